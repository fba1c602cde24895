"""Datasets of one's own in COCO's form: a folder of images and a JSON file."""

import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.coco_json import readable_copy
from dnl_d2.data.datasets.keypoints import CocoMetadata, declared_keypoints, with_keypoints
from dnl_d2.data.datasets.registration import register
from dnl_d2.errors import UsageError, shortened

# What is noted as a file is read; Detectron2 refuses to note anything else later.
_READ_FROM_FILE = ("thing_classes", "thing_dataset_id_to_contiguous_id", "json_file")


def register_coco_dataset(
    name: str,
    *,
    images: str,
    json: str,
    classes: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    keypoints: Sequence[str] | None = None,
    keypoint_flip_map: Sequence[Sequence[str]] | None = None,
    skeleton: Sequence[Sequence[str]] | None = None,
    hint: str | None = None,
) -> None:
    """Registers a dataset for detectors; a second call replaces the first.

    Classes are the categories of the file in the order of their ids, which may have gaps. What
    annotation tools write otherwise than COCO, text ids for instance, is taken as it is meant; then
    ``json_file`` of the metadata is a copy without such things once the dataset is loaded.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        images: the folder that ``file_name`` in the file starts from, absolute or relative to
            ``$DETECTRON2_DATASETS``, which is read when the dataset is loaded.
        json: the annotation file, likewise.
        classes: the names that the file must have; None for whatever it has.
        colors: an RGB triple per class for pictures.
        keypoints: names of the keypoints; None for those of the file's categories.
        keypoint_flip_map: pairs of names that a mirror image swaps, empty for none; None for what
            names with left and right tell, see :mod:`dnl_d2.data.datasets.keypoints`.
        skeleton: pairs of names to connect in pictures; None for that of the file's categories.
        hint: how to come by a missing file.

    Raises:
        UsageError: the name is another's, Detectron2's for instance; or keypoints, or pairs of
            them, that cannot be meant.
    """
    metadata: dict[str, Any] = {"evaluator_type": "coco"}
    metadata |= declared_keypoints(name, keypoints, keypoint_flip_map, skeleton)
    if classes is not None:
        metadata["thing_classes"] = list(classes)
    if colors is not None:
        metadata["thing_colors"] = [list(color) for color in colors]
    if hint is None and not os.path.isabs(json):
        hint = "relative paths start at $DETECTRON2_DATASETS"

    def load(json_file: str, image_root: str) -> list[dict]:
        if not PathManager.isfile(json_file):
            wrong = "is a folder" if PathManager.isdir(json_file) else "does not exist"
            raise UsageError(
                f"dataset {name}: its annotation file {json_file} {wrong}"
                + (f"; {hint}" if hint else "")
            )
        try:
            copy = readable_copy(json_file)
            vars(MetadataCatalog.get(name))["json_file"] = copy  # which it refuses to change itself
            return with_keypoints(load_coco_json(copy, image_root, name))
        except UsageError as error:
            raise UsageError(f"dataset {name}: {json_file}: {shortened(error)}") from error
        except AssertionError as error:  # other classes than told
            raise UsageError(
                f"dataset {name}: {json_file} cannot be used ({shortened(error)})"
            ) from error

    noted = [key for key in _READ_FROM_FILE if key not in metadata]
    paths = {"json_file": json, "image_root": images}
    register(name, load, paths, metadata, noted_by_load=noted, metadata_class=CocoMetadata)
