"""CamVid, 11 classes: Brostow et al., Pattern Recognition Letters 2009, in the split and classes
of Badrinarayanan et al., "SegNet", TPAMI 2017.

``$DETECTRON2_DATASETS/camvid`` holds ``train``, ``trainannot``, ``val`` and ``valannot``.
"""

from dnl_d2.data.datasets.folder import register_sem_seg_folder

CLASS_COLORS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

for _split in ("train", "val"):
    register_sem_seg_folder(
        f"camvid_sem_seg_{_split}",
        f"camvid/{_split}",
        f"camvid/{_split}annot",
        classes=list(CLASS_COLORS),
        colors=list(CLASS_COLORS.values()),
        ignore_label=11,
    )
