"""The public slow-only networks whose checkpoints can be read, one file each."""

from dnl_d2_kinetics.sources import mmaction2, pytorchvideo, slowfast

SOURCES = (mmaction2.SOURCE, slowfast.SOURCE, pytorchvideo.SOURCE)
