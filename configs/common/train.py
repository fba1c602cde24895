"""``train`` of every recipe: dnl_d2/config/train_defaults.py lists the keys and their values."""

from dnl_d2.config.train_defaults import TRAIN as train
