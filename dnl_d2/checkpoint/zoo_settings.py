"""What the files of Detectron2's model zoo, and classifiers, were trained with, by their names."""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from dnl_d2.checkpoint.detectron2_zoo import addresses, config_path
from dnl_d2.checkpoint.hidden_settings import SETTINGS
from dnl_d2.checkpoint.source import CAFFE_BGR, IMAGENET_RGB, InputFormat
from dnl_d2.config.loading import zoo_config
from dnl_d2.config.rules import select_lazy, select_yaml

AUTHOR = "Detectron2 Model Zoo"  # what its files say
_INPUT = {
    "INPUT.FORMAT": "dataloader.train.mapper.image_format",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
}


@dataclass(frozen=True)
class TrainedWith:
    """What the network of a file was trained with.

    Args:
        title: the network, for messages.
        input_format: how it was fed; None if nobody knows.
        settings: YAML keys that no parameter shows.
    """

    title: str
    input_format: InputFormat | None
    settings: Mapping[str, Any] = field(default_factory=dict)


_STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"
_STRIDE_IN_3X3 = {_STRIDE: False}
_CAFFE = re.compile(r"resnet\d+_(caffe|msra)\b")  # such as resnet50_msra-5891d200
# Classifiers that Detectron2's configs start from and that are told by their names alone.
_CLASSIFIERS = {
    name: TrainedWith(f"ImageNet's {name}", fed, _STRIDE_IN_3X3)
    for name, fed in {
        "R-50-GN": CAFFE_BGR,
        "R-101-GN": CAFFE_BGR,
        "X-101-32x8d": InputFormat("BGR", CAFFE_BGR.mean, (57.375, 57.12, 58.395)),
        "X-101-64x4d": CAFFE_BGR,
        "X-152-32x8d-IN5k": CAFFE_BGR,
        "R-52": IMAGENET_RGB,
        "R-103": IMAGENET_RGB,
    }.items()
}
# All models of the zoo are fed so; their stds differ.
_RENAMED = TrainedWith(
    "a model of Detectron2's zoo, whose file name would tell which one and which reads BGR "
    "(INPUT.FORMAT),",
    None,
    {"MODEL.PIXEL_MEAN": [*CAFFE_BGR.mean]},
)
_CONVERTED = TrainedWith("a torchvision ResNet", IMAGENET_RGB, _STRIDE_IN_3X3)


def zoo_settings(path: str, rest: Mapping[str, Any]) -> TrainedWith | None:
    """What a file was trained with, if its name or its author is of Detectron2's model zoo.

    Args:
        path: the file; folders and ending do not count.
        rest: what it holds beside its weights.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    if stem in _models():
        return _of_model(_models()[stem])
    if rest.get("__author__") == "torchvision":  # as Detectron2's converter writes
        return _CONVERTED
    if _CAFFE.match(stem):
        return TrainedWith(f"{stem} of OpenMMLab", CAFFE_BGR, {_STRIDE: True})
    if stem in _CLASSIFIERS:
        return _CLASSIFIERS[stem]
    return _RENAMED if rest.get("__author__") == AUTHOR else None


@functools.cache
def _models() -> dict[str, str]:
    """Name of the weights file, without its ending -> name of the model."""
    return {
        os.path.splitext(os.path.basename(address))[0]: name
        for name, address in addresses().items()
        if "/model_" in address
    }


@functools.cache
def _of_model(name: str) -> TrainedWith:
    cfg = zoo_config(config_path(name))
    keys = {s.key: f"model.{s.lazy}" for s in SETTINGS} | _INPUT
    values = {key: _value(cfg, key, path) for key, path in keys.items()}
    order, mean, std = (values.pop(key) for key in _INPUT)
    settings = {key: value for key, value in values.items() if value is not None}
    return TrainedWith(
        f"{name} of Detectron2's model zoo", InputFormat(order, tuple(mean), tuple(std)), settings
    )


def _value(cfg: CfgNode | DictConfig, key: str, path: str) -> Any:
    """A value as YAML has it; None where there is none."""
    if isinstance(cfg, CfgNode):
        try:
            return select_yaml(cfg, key)
        except AttributeError:  # a key of this library
            return None
    value = select_lazy(cfg, path)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_object(value)
    if path.endswith("_target_"):
        value = getattr(value, "__name__", str(value).rpartition(".")[2])
    if key.endswith("ASPECT_RATIOS") and value and not isinstance(value[0], list):
        value = [value]  # of all levels
    return value
