"""Ready-made lines: a config for two folders, class weights, a script that converts colours."""

import os
from collections.abc import Sequence

import yaml

from dnl_d2.errors import UsageError
from dnl_d2.validation.labelled_sets import LabelledSet

_SCRIPT = '''"""Turns colours into class ids: order them as your classes, then run it."""

import os

import numpy as np
from PIL import Image

CLASSES = [  # class 0, 1, ...; everything else becomes 255 and is ignored
{colors}
]
TOLERANCE = {tolerance}  # how far a channel may be off
FOLDERS = {folders}

for source, target in FOLDERS.items():
    os.makedirs(target, exist_ok=True)
    for name in sorted(os.listdir(source)):
        if not name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")):
            continue
        rgb = np.asarray(Image.open(os.path.join(source, name)).convert("RGB")).astype(int)
        ids = np.full(rgb.shape[:2], 255, np.uint8)
        for number, color in enumerate(CLASSES):
            ids[(abs(rgb - color) <= TOLERANCE).all(axis=-1)] = number
        Image.fromarray(ids).save(os.path.join(target, os.path.splitext(name)[0] + ".png"))
'''

_CROP_COMMENT = "# height, width; the base's is larger"


def fitting_crop(crop: Sequence[int], size: Sequence[int]) -> list[int]:
    """A crop, cut down to pictures that are smaller.

    Args:
        crop: (height, width) of a config's crops; empty for none.
        size: (height, width) of the pictures.

    Returns:
        (height, width); empty where the crop fits, or there is none.
    """
    fitting = [min(sides) for sides in zip(crop, size, strict=False)]
    return fitting if fitting != list(crop) else []


def yaml_config(
    train: LabelledSet,
    test: LabelledSet | None,
    *,
    base: str,
    classes: Sequence[str],
    base_size: Sequence[int],
    output_dir: str,
    crop_size: Sequence[int] = (),
    weights: Sequence[float] = (),
) -> str:
    """A YAML config that trains on ``train`` and evaluates on ``test``, both of two folders.

    Args:
        train, test: the sets, as :func:`~dnl_d2.validation.folder_set` makes them.
        base: the config it changes, relative to where it will lie.
        classes: names of the classes.
        base_size: long and short side of an image.
        output_dir: where its runs will write.
        crop_size: (height, width), where the base's does not suit the images.
        weights: of the classes, for a line that is commented out.
    """
    entries = [_entry(part, classes) for part in (train, test) if part is not None]
    folders = "\n".join(f"  - {_flow(entry)}" for entry in entries)
    return (
        f"_BASE_: {_flow(base)}\n"
        f"DATASETS:\n  FOLDERS:\n{folders}\n"
        f"  TRAIN: [{_flow(train.name)}]\n"
        f"  TEST: [{_flow(test.name) if test else ''}]\n"
        f"INPUT:\n  RESIZE: {{BASE_SIZE: {list(base_size)}}}  # long, short side of an image\n"
        + (f"  CROP: {{SIZE: {list(crop_size)}}}  {_CROP_COMMENT}\n" if crop_size else "")
        + f"MODEL:\n  SEM_SEG_HEAD:\n    NUM_CLASSES: {len(classes)}\n"
        + (f"    # {weight_lines(weights)[0]}\n" if weights else "")
        + f"OUTPUT_DIR: {_flow(output_dir)}\n"
    )


def lazy_config(
    train: LabelledSet,
    test: LabelledSet | None,
    *,
    base: str,
    classes: Sequence[str],
    base_size: Sequence[int],
    output_dir: str,
    crop_size: Sequence[int] = (),
    weights: Sequence[float] = (),
) -> str:
    """The same as :func:`yaml_config` as a LazyConfig file."""
    cropped = f"{tuple(crop_size)}  {_CROP_COMMENT}"
    testing = "del dataloader.test, dataloader.evaluator"
    if test is not None:
        testing = f"dataloader.test.dataset.names = {test.name!r}"
    lines = [
        "from detectron2.config import LazyConfig\n",
        "from dnl_d2.data import register_sem_seg_folder\n",
        f"CLASSES = {list(classes)!r}",
        *(_registration(part) for part in (train, test) if part is not None),
        "",
        "dataloader, lr_multiplier, model, optimizer, train = LazyConfig.load_rel(",
        f"    {base!r},",
        '    ("dataloader", "lr_multiplier", "model", "optimizer", "train"),',
        ")",
        f"dataloader.train.dataset.names = {train.name!r}",
        f"dataloader.train.mapper.dataset_ignore_label = {train.ignore_label}",
        f"dataloader.train.mapper.augmentations.base_size = {list(base_size)}",
        *([f"dataloader.train.mapper.augmentations.crop_size = {cropped}"] if crop_size else []),
        testing,
        f"model.sem_seg_head.num_classes = {len(classes)}",
        *([f"# {weight_lines(weights)[1]}"] if weights else []),
        f"train.output_dir = {output_dir!r}",
    ]
    return "\n".join(lines) + "\n"


def weight_lines(weights: Sequence[float]) -> list[str]:
    """Class weights as YAML below MODEL.SEM_SEG_HEAD, and as LazyConfig."""
    values = ", ".join(f"{weight:g}" for weight in weights)
    return [
        f"LOSS_CLASS_WEIGHTS: [{values}]",
        f"model.sem_seg_head.loss.class_weights = [{values}]",
    ]


def conversion_script(
    colors: Sequence[tuple[int, float]], folders: Sequence[str], *, tolerance: int
) -> str:
    """A Python script that writes labels of class ids beside folders of coloured ones.

    Args:
        colors: 0xRRGGBB and its share of the pixels.
        folders: of the coloured labels.
        tolerance: how far a pixel's channel may be from a class's colour.
    """
    listed = "\n".join(
        f"    ({code >> 16}, {code >> 8 & 255}, {code & 255}),  # {share:.2%} of the pixels"
        for code, share in colors
    )
    targets = {folder: f"{folder.rstrip(os.sep)}_ids" for folder in folders}
    return _SCRIPT.format(colors=listed, tolerance=tolerance, folders=repr(targets))


def check_base(path: str, written: str) -> None:
    """Raises a UsageError unless ``path`` exists and is a config of the kind of ``written``."""
    suffix = os.path.splitext(written)[1]
    if suffix not in (".yaml", ".py"):
        raise UsageError(f"{written}: a config ends in .yaml or .py")
    if not os.path.isfile(path):
        raise UsageError(f"--base {path}: no such file")
    if os.path.splitext(path)[1] != suffix:
        raise UsageError(f"--base {path}: a {suffix} config needs a base that is one, too")


def _registration(source: LabelledSet) -> str:
    assert source.folders is not None  # of two folders
    images, labels = source.folders
    return (
        f"register_sem_seg_folder(\n    {source.name!r},\n    {images!r},\n"
        f"    {labels!r},\n    classes=CLASSES,\n"
        f"    ignore_label={source.ignore_label},\n)"
    )


def _entry(source: LabelledSet, classes: Sequence[str]) -> dict:
    assert source.folders is not None  # of two folders
    images, labels = source.folders
    entry = {"NAME": source.name, "IMAGES": images, "LABELS": labels, "CLASSES": list(classes)}
    return entry | ({"IGNORE_LABEL": source.ignore_label} if source.ignore_label != 255 else {})


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.strip().removesuffix("...").strip()
