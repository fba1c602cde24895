"""The steps from a record to what a model is trained on, timed one by one."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.data import transforms as T

from dnl_d2.data import PhotometricDistortion, RandomResize, SemSegMapper
from dnl_d2.data.colours import ColorJitter
from dnl_d2.data.crop import CategoryCrop, RandomFlip, ResizedCrop
from dnl_d2.data.mapper import tensors

WHOLE = "whole"
PARTS = (
    "decode image", "decode label", "resize and crop", "flip", "colours", "others", "to tensor",
)  # fmt: skip
_OF_AUGMENTATION = {
    ResizedCrop: "resize and crop",
    RandomResize: "resize and crop",
    CategoryCrop: "resize and crop",
    RandomFlip: "flip",
    PhotometricDistortion: "colours",
    ColorJitter: "colours",
}
_OF_TRANSFORM = {
    "LoadImageFromFile": "decode image",
    "LoadAnnotations": "decode label",
    "RandomResize": "resize and crop",
    "RandomCrop": "resize and crop",
    "RandomFlip": "flip",
    "PhotoMetricDistortion": "colours",
    "PackSegInputs": "to tensor",
}


class Clock:
    """CPU time of calls, added up by part: of all threads of this process, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, part: str, function: Callable, *args: Any) -> Any:
        """Calls ``function(*args)`` and returns what it does."""
        start = time.process_time()
        result = function(*args)
        self.seconds[part] += time.process_time() - start
        return result


def time_ours(mapper: SemSegMapper, record: dict, clock: Clock) -> dict:
    """The steps of a mapper's call, and the tensors of what it returns."""
    record = dict(record)
    image = clock("decode image", mapper.read_image, record)
    label = clock("decode label", mapper.read_label, record)
    inputs = T.AugInput(image, sem_seg=label)
    for augmentation in mapper.augmentations.augs:
        clock(_OF_AUGMENTATION.get(type(augmentation), "others"), augmentation, inputs)
    return clock("to tensor", tensors, inputs)


def time_reference(pipeline: Sequence[Callable], record: dict, clock: Clock) -> dict:
    """The steps of mmsegmentation's transforms, and what they return."""
    results = {
        "img_path": record["file_name"],
        "seg_map_path": record["sem_seg_file_name"],
        "reduce_zero_label": False,
        "label_map": None,
        "seg_fields": [],
    }
    for transform in pipeline:
        results = clock(_OF_TRANSFORM[type(transform).__name__], transform, results)
    return results


def reference_options(augmentations: Sequence[T.Augmentation]) -> list[dict] | None:
    """mmsegmentation's training pipeline of the same steps; None where it has no such steps."""
    options = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")]
    for step in augmentations:
        if isinstance(step, ResizedCrop) and step.resize.base_size and not step.resize.step:
            resize, crop = step.resize, step.crop
            scale = {"scale": resize.base_size, "ratio_range": resize.ratio_range}
            options.append(dict(type="RandomResize", keep_ratio=True, **scale))
            window = {"crop_size": tuple(crop.crop_aug.crop_size)}
            limit = {"cat_max_ratio": crop.single_category_max_area}
            options.append(dict(type="RandomCrop", **window, **limit))
        elif isinstance(step, RandomFlip):
            options.append(dict(type="RandomFlip", prob=step.prob))
        elif isinstance(step, PhotometricDistortion):
            options.append(dict(type="PhotoMetricDistortion"))
        else:
            return None
    return [*options, dict(type="PackSegInputs")]
