"""From pictures of one's own to label maps, objects, and pictures of them."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.prediction.attention import AttentionMaps, predicting_once
from dnl_d2.prediction.predictor import Predictor
from dnl_d2.prediction.results import Detections, Segmentation

__all__ = ["AttentionMaps", "Detections", "Predictor", "Segmentation", "predicting_once"]
