"""What files of mmsegmentation and mmdetection tell beside their weights."""

import re
from collections.abc import Mapping
from typing import Any

from dnl_d2.checkpoint.source import InputFormat

_NUMBERS = r"['\"]?\s*[=:]\s*[\[(]([^\])]{0,200})[\])]"
_FLAG = r"['\"]?\s*[=:]\s*(True|False|true|false)"


def input_format(rest: Mapping[str, Any]) -> InputFormat | None:
    """How the images of the training recipe were normalised; None if the file does not say."""
    text = _config_text(rest)
    mean, std = (_numbers(text, name) for name in ("mean", "std"))
    to_rgb = _flag(text, "to_rgb")  # bgr_to_rgb in the 1.x and 3.x releases
    if mean is None or std is None or to_rgb is None or min(std) <= 0:
        return None
    return InputFormat("RGB" if to_rgb else "BGR", mean, std)


def settings(rest: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML keys that the recipe tells: ``align_corners``, and where a ResNet strides."""
    text = _config_text(rest)
    corners = _flag(text, "align_corners")
    told = {} if corners is None else {"MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": corners}
    return told | stride(rest)


def stride(rest: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML key of where a ResNet strides, if the training recipe tells its style."""
    style = re.search(r"\bstyle['\"]?\s*[=:]\s*['\"](caffe|pytorch)", _config_text(rest))
    return {"MODEL.RESNETS.STRIDE_IN_1X1": style[1] == "caffe"} if style else {}


def class_names(rest: Mapping[str, Any]) -> list[str]:
    """Names of the classes, in the order of the classifier; empty if the file does not say."""
    names = _first_list(_meta(rest), "CLASSES", "classes") or _first_list(rest, "classes")
    return [str(name) for name in names]


def palette(rest: Mapping[str, Any]) -> list:
    """Colours of the classes; empty if the file does not say."""
    return _first_list(_meta(rest), "PALETTE", "palette")


def _first_list(mapping: Mapping[str, Any], *keys: str) -> list:
    values = (mapping.get(key) for key in keys)
    return next((list(v) for v in values if isinstance(v, list | tuple)), [])


def _meta(rest: Mapping[str, Any]) -> dict[str, Any]:
    meta = rest.get("meta")
    if not isinstance(meta, Mapping):
        return {}
    nested = meta.get("dataset_meta")
    return {**(nested if isinstance(nested, Mapping) else {}), **meta}


def _config_text(rest: Mapping[str, Any]) -> str:
    meta = _meta(rest)
    return "\n".join(str(meta[key]) for key in ("config", "cfg") if key in meta)


def _numbers(text: str, name: str) -> tuple[float, float, float] | None:
    found = re.search(rf"\b{name}{_NUMBERS}", text)
    try:
        values = tuple(float(v) for v in found[1].split(",") if v.strip()) if found else ()
    except ValueError:
        return None
    return values if len(values) == 3 else None


def _flag(text: str, name: str) -> bool | None:
    found = re.search(rf"{name}{_FLAG}", text)
    return found[1].lower() == "true" if found else None
