"""Slow-only ResNets with context blocks for videos: model, data, weights of others.

Importing it registers its datasets with Detectron2 and its sources of weights with ``dnl_d2``.
"""

from dnl_d2.checkpoint import register_source
from dnl_d2_kinetics.datasets import register_videos
from dnl_d2_kinetics.mapper import TestClipMapper, TrainClipMapper
from dnl_d2_kinetics.resnet import SlowOnlyResNet
from dnl_d2_kinetics.sources import SOURCES
from dnl_d2_kinetics.video_classifier import VideoClassifier

__all__ = [
    "SOURCES",
    "SlowOnlyResNet",
    "TestClipMapper",
    "TrainClipMapper",
    "VideoClassifier",
    "register_videos",
]

for _source in SOURCES:
    register_source(_source)
