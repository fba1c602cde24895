"""Cityscapes, fine annotation, 19 classes: Cordts et al., CVPR 2016.

Detectron2's own ``cityscapes_fine_sem_seg_*`` give the same records, in the order of the folder,
and say little about incomplete ones.
"""

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from dnl_d2.data.datasets.records import make_records
from dnl_d2.data.datasets.registration import register_dataset
from dnl_d2.data.listing import find_files_by_city, require_all, require_folder
from dnl_d2.errors import UsageError

CLASS_COLORS = {entry["name"]: entry["color"] for entry in CITYSCAPES_CATEGORIES}
IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelTrainIds.png"

LAYOUT_HINT = (
    "expected $DETECTRON2_DATASETS/cityscapes/{leftImg8bit,gtFine}/{train,val,test}/CITY/*.png as "
    "the archives unpack"
)

_HINT = f"{LAYOUT_HINT}, then run tools/prepare_dataset.py cityscapes"


def load_cityscapes(image_dir: str, gt_dir: str) -> list[dict]:
    """Lists the pictures of a split with their trainId label maps.

    Args:
        image_dir: ``cityscapes/leftImg8bit/SPLIT``.
        gt_dir: ``cityscapes/gtFine/SPLIT``.

    Returns:
        detectron2 dataset dicts with file_name, sem_seg_file_name, height and width, sorted by
        city and name.

    Raises:
        UsageError: a folder is missing or empty, or a picture or a label has no counterpart.
    """
    images = list_by_city(image_dir, IMAGE_SUFFIX, _HINT)
    labels = list_by_city(gt_dir, LABEL_SUFFIX, _HINT)
    require_all(images, labels, f"images in {image_dir} have no *{LABEL_SUFFIX} in {gt_dir}", _HINT)
    require_all(labels, images, f"labels in {gt_dir} have no image in {image_dir}", _HINT)
    return make_records(list(images.values()), [labels[key] for key in images])


def load_cityscapes_images(image_dir: str, gt_dir: str) -> list[dict]:
    """As :func:`load_cityscapes` for the test split, whose labels are not public."""
    images = list_by_city(image_dir, IMAGE_SUFFIX, _HINT)
    return make_records(list(images.values()), None)


def list_by_city(folder: str, suffix: str, hint: str) -> dict[str, str]:
    """Lists ``folder/CITY/*suffix`` by ``CITY/`` and the name without the suffix.

    Raises:
        UsageError: there is no such folder or no such file; ``hint`` says what is expected.
    """
    require_folder(folder, hint)
    files = find_files_by_city(folder, suffix)
    if not files:
        raise UsageError(f"folder {folder} holds no */*{suffix}: {hint}")
    return files


for _split in ("train", "val", "test"):
    register_dataset(
        f"cityscapes_sem_seg_{_split}",
        load_cityscapes_images if _split == "test" else load_cityscapes,
        {"image_dir": f"cityscapes/leftImg8bit/{_split}", "gt_dir": f"cityscapes/gtFine/{_split}"},
        classes=list(CLASS_COLORS),
        colors=list(CLASS_COLORS.values()),
        evaluator_type="cityscapes_sem_seg",
    )
