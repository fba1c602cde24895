"""PASCAL VOC 2012, 21 classes: Everingham et al., IJCV 2010. The split ``trainaug`` adds the labels
of SBD: Hariharan et al., ICCV 2011, to pictures that have none in VOC.
"""

from functools import partial

from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from dnl_d2.data.datasets.records import load_listed
from dnl_d2.data.datasets.registration import register_dataset

CLASSES = ("background", *CLASS_NAMES)
FOLDER = "VOCdevkit/VOC2012"

_HINT = (
    f"expected $DETECTRON2_DATASETS/{FOLDER}/{{JPEGImages,SegmentationClass,ImageSets}} as "
    "VOCtrainval_11-May-2012.tar unpacks"
)
_HINT_AUG = f"{_HINT}, benchmark_RELEASE of SBD beside it, then run tools/prepare_dataset.py voc"


def colormap(count: int) -> list[tuple[int, ...]]:
    """The colours of PASCAL VOC: every third bit of the index, the lowest bit weighing most."""
    return [
        tuple(
            sum((index >> 3 * place + channel & 1) << 7 - place for place in range(3))
            for channel in range(3)
        )
        for index in range(count)
    ]


for _split in ("train", "trainaug", "val"):
    _roots = {
        "image_root": f"{FOLDER}/JPEGImages",
        "sem_seg_root": f"{FOLDER}/SegmentationClass",
        "list_file": f"{FOLDER}/ImageSets/Segmentation/{_split}.txt",
    }
    if _split == "trainaug":
        _roots["second_sem_seg_root"] = f"{FOLDER}/SegmentationClassAug"
    register_dataset(
        f"voc_2012_sem_seg_{_split}",
        partial(load_listed, hint=_HINT_AUG if _split == "trainaug" else _HINT),
        _roots,
        classes=CLASSES,
        colors=colormap(len(CLASSES)),
    )
