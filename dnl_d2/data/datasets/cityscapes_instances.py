"""Cityscapes instances: Cordts et al., CVPR 2016.

Detectron2's own ``cityscapes_fine_instance_seg_*`` are polygons, whose overlaps it resolves with
shapely, by a loader that imports a package that is not public since December 2024. Here an object
is the pixels that the evaluation counts.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask
from scipy.ndimage import find_objects

from dnl_d2.data.datasets.cityscapes import CLASS_COLORS, IMAGE_SUFFIX, LAYOUT_HINT, list_by_city
from dnl_d2.data.datasets.records import make_records
from dnl_d2.data.datasets.registration import register
from dnl_d2.data.images import load_picture
from dnl_d2.data.listing import require_all

# Classes whose objects are labelled one by one, by their official ids.
CLASS_IDS = {entry["name"]: entry["id"] for entry in CITYSCAPES_CATEGORIES if entry["isthing"]}
INSTANCE_SUFFIX = "_gtFine_instanceIds.png"

_CONTIGUOUS = {official: number for number, official in enumerate(CLASS_IDS.values())}


def load_cityscapes_instances(image_dir: str, gt_dir: str) -> list[dict]:
    """Reads the objects of a split, which takes minutes for the training split.

    Args:
        image_dir: ``cityscapes/leftImg8bit/SPLIT``.
        gt_dir: ``cityscapes/gtFine/SPLIT``.

    Returns:
        detectron2 dataset dicts, sorted by city and name; masks are run lengths, for
        ``INPUT.MASK_FORMAT: bitmask``. Groups of objects are crowd.

    Raises:
        UsageError: a folder is missing or empty, or a picture or a label has no counterpart.
    """
    images, labels = list_cityscapes_instances(image_dir, gt_dir)
    records = make_records(list(images.values()), None)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        objects = pool.map(read_instances, [labels[key] for key in images])
        for key, record, annotations in zip(images, records, objects, strict=True):
            record.update(image_id=os.path.basename(key), annotations=annotations)
    return records


def list_cityscapes_instances(image_dir: str, gt_dir: str) -> tuple[dict[str, str], dict[str, str]]:
    """Pictures and their maps of instance ids, by ``CITY/NAME``; see above for errors."""
    images = list_by_city(image_dir, IMAGE_SUFFIX, LAYOUT_HINT)
    labels = list_by_city(gt_dir, INSTANCE_SUFFIX, LAYOUT_HINT)
    lack = f"have no *{INSTANCE_SUFFIX} in {gt_dir}"
    require_all(images, labels, f"images in {image_dir} {lack}", LAYOUT_HINT)
    return images, labels


def read_instances(path: str) -> list[dict]:
    """The objects of a map of instance ids: 1000 times a class, or below 1000 for groups."""
    ids = np.asarray(load_picture(path, kind="label")).astype(np.int32)
    found = []
    for value, box in enumerate(find_objects(ids), start=1):
        crowd = value < 1000
        number = _CONTIGUOUS.get(value if crowd else value // 1000)
        if box is None or number is None:
            continue
        mask = np.zeros(ids.shape, dtype=np.uint8, order="F")
        mask[box] = ids[box] == value
        rows, columns = box
        found.append(
            {
                "category_id": number,
                "iscrowd": int(crowd),
                "bbox": [columns.start, rows.start, columns.stop, rows.stop],
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": coco_mask.encode(mask),
            }
        )
    return found


def load_cityscapes_images(image_dir: str, gt_dir: str) -> list[dict]:
    """As :func:`load_cityscapes_instances` for the test split, whose labels are not public."""
    images = list_by_city(image_dir, IMAGE_SUFFIX, LAYOUT_HINT)
    records = make_records(list(images.values()), None)
    return [r | {"image_id": os.path.basename(k)} for k, r in zip(images, records, strict=True)]


for _split in ("train", "val", "test"):
    register(
        f"cityscapes_instances_{_split}",
        load_cityscapes_images if _split == "test" else load_cityscapes_instances,
        {"image_dir": f"cityscapes/leftImg8bit/{_split}", "gt_dir": f"cityscapes/gtFine/{_split}"},
        {
            "thing_classes": list(CLASS_IDS),
            "thing_colors": [CLASS_COLORS[name] for name in CLASS_IDS],
            "evaluator_type": "cityscapes_instance",
            "mask_format": "bitmask",
        },
    )
