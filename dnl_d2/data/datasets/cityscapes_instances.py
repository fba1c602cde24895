"""Cityscapes instances: Cordts et al., CVPR 2016; the names that Detectron2 has, registered anew.

Detectron2's loader imports a package that is not public since December 2024, and reads polygons,
whose overlaps it resolves with shapely. Here an object is the pixels that the evaluation counts.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask
from scipy.ndimage import find_objects

from dnl_d2.data.datasets.cityscapes import CLASS_COLORS, IMAGE_SUFFIX, files_by_city
from dnl_d2.data.datasets.records import make_records, require_all
from dnl_d2.data.datasets.registration import dataset_path
from dnl_d2.data.images import load_picture

# Classes whose objects are labelled one by one, by their official ids.
CLASS_IDS = {
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip
INSTANCE_SUFFIX = "_gtFine_instanceIds.png"

_CONTIGUOUS = {official: number for number, official in enumerate(CLASS_IDS.values())}
_HINT = (
    "expected $DETECTRON2_DATASETS/cityscapes/{leftImg8bit,gtFine}/{train,val,test}/CITY/*.png as "
    "the archives unpack"
)


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
    images = files_by_city(image_dir, IMAGE_SUFFIX, _HINT)
    labels = files_by_city(gt_dir, INSTANCE_SUFFIX, _HINT)
    lack = f"have no *{INSTANCE_SUFFIX} in {gt_dir}"
    require_all(images, labels, f"images in {image_dir} {lack}", _HINT)
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


def _load_images(image_dir: str) -> list[dict]:
    """The test split, whose labels are not public."""
    images = files_by_city(image_dir, IMAGE_SUFFIX, _HINT)
    records = make_records(list(images.values()), None)
    return [r | {"image_id": os.path.basename(k)} for k, r in zip(images, records, strict=True)]


def _register(split: str) -> None:
    name = f"cityscapes_fine_instance_seg_{split}"
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    meta = MetadataCatalog.get(name)

    def set_paths() -> None:
        # Past Metadata's write-once check: $DETECTRON2_DATASETS may change between loads.
        vars(meta).update(
            image_dir=dataset_path(f"cityscapes/leftImg8bit/{split}"),
            gt_dir=dataset_path(f"cityscapes/gtFine/{split}"),
        )

    def load() -> list[dict]:
        set_paths()
        if split == "test":
            return _load_images(meta.image_dir)
        return load_cityscapes_instances(meta.image_dir, meta.gt_dir)

    set_paths()
    meta.set(
        thing_classes=list(CLASS_IDS),
        thing_colors=[CLASS_COLORS[name] for name in CLASS_IDS],
        evaluator_type="cityscapes_instance",
        set_paths=set_paths,
    )
    DatasetCatalog.register(name, load)


for _split in ("train", "val", "test"):
    _register(_split)
