"""Classification of images with context blocks in the backbone."""

from dnl_d2_imagenet.folders import image_folder
from dnl_d2_imagenet.mapper import ClassificationMapper
from dnl_d2_imagenet.model import ImageClassifier
from dnl_d2_imagenet.shards import tar_shards

__all__ = ["ClassificationMapper", "ImageClassifier", "image_folder", "tar_shards"]
