"""PASCAL Context: Mottaghi et al., CVPR 2014; its 59 most frequent classes, or 60 with background.

The labels of 59 classes are the same with 255 in place of background, and one less elsewhere.
"""

from functools import partial

from dnl_d2.data.datasets.ade20k import CLASS_COLORS as _ADE20K
from dnl_d2.data.datasets.records import load_listed
from dnl_d2.data.datasets.registration import register_dataset

CLASSES = (
    "background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat",
    "book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth",
    "computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass",
    "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate",
    "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky",
    "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water",
    "window", "wood",
)  # fmt: skip
FOLDER = "VOCdevkit/VOC2010"
LABELS = {60: "SegmentationClassContext", 59: "SegmentationClassContext59"}
LISTS = "ImageSets/SegmentationContext"

# The public framework, and with it the pictures of published results, borrows ADE20K's colours.
CLASS_COLORS = dict(zip(CLASSES, _ADE20K.values(), strict=False))

_HINT = (
    f"expected $DETECTRON2_DATASETS/{FOLDER}/JPEGImages as VOCtrainval_03-May-2010.tar unpacks, in "
    f"{FOLDER} also trainval_merged.json or the folder trainval of *.mat files, then run "
    "tools/prepare_dataset.py pascal_context"
)

for _count, _folder in LABELS.items():
    for _split in ("train", "val"):
        register_dataset(
            f"pascal_context_{_count}_sem_seg_{_split}",
            partial(load_listed, hint=_HINT),
            {
                "image_root": f"{FOLDER}/JPEGImages",
                "sem_seg_root": f"{FOLDER}/{_folder}",
                "list_file": f"{FOLDER}/{LISTS}/{_split}.txt",
            },
            classes=CLASSES[-_count:],
            colors=[CLASS_COLORS[name] for name in CLASSES[-_count:]],
        )
