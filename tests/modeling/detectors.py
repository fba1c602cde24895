"""Detectron2's own detectors at a small size, and pictures for them."""

import importlib.util
import json
import pathlib
import sys
import types
from collections.abc import Callable

import numpy as np
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig
from PIL import Image

from dnl_d2 import add_dnl_config
from dnl_d2.modeling import build_context_resnet

ZOO = pathlib.Path(importlib.util.find_spec("detectron2").origin).parent / "model_zoo" / "configs"
DATASET, SEMANTIC = "tiny_detectors", "tiny_detectors_sem_seg"
SIZES = [(64, 96), (96, 64)]
KEYPOINTS = 17  # as COCO's, whose tolerances the evaluator knows
# Builders of Detectron2 and their twins.
TWINS = {
    "build_resnet_backbone": "build_context_resnet_backbone",
    "build_resnet_fpn_backbone": "build_context_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_context_retinanet_resnet_fpn_backbone",
    "build_resnet_deeplab_backbone": "build_context_resnet_backbone",
}
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_STD": [64.0, 64.0, 64.0],
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 50,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 50,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,),
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE": 1,
    "MODEL.RETINANET.NUM_CLASSES": 2,
    "MODEL.RETINANET.NUM_CONVS": 1,
    "MODEL.RETINANET.SCORE_THRESH_TEST": 0.0,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": 20,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,  # group norm has 32 groups
    "DATASETS.TRAIN": (DATASET,),
    "DATASETS.TEST": (DATASET,),
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.ASPECT_RATIO_GROUPING": False,  # a batch has padding
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MAX_SIZE_TRAIN": 96,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 96,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 1e-3,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}
FPN_ANCHORS = {"MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]]}
INSERT = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.CONTEXT.NAME": "dnl",
    "MODEL.RESNETS.CONTEXT_STAGES.RES4": [-1],
}


def zoo_config(
    name: str, *settings: dict, twin: bool = True, add: tuple[Callable, ...] = (add_dnl_config,)
) -> CfgNode:
    """A YAML config of Detectron2's zoo, made small.

    Args:
        name: below its folder of configs, or empty for Detectron2's defaults.
        settings: more keys, the last ones win.
        twin: whether its backbone becomes ours.
        add: what adds keys of projects, in this order.
    """
    cfg = get_cfg()
    for function in add:
        function(cfg)
    if name:
        cfg.merge_from_file(str(ZOO / name))
    for keys in (SMALL, *settings):
        cfg.merge_from_list([part for pair in keys.items() for part in pair])
    if twin:
        cfg.MODEL.BACKBONE.NAME = TWINS[cfg.MODEL.BACKBONE.NAME]
    return cfg


def lazy_fcos(**backbone) -> DictConfig:
    """FCOS, which the zoo has as a LazyConfig only, on our backbone."""
    cfg = LazyConfig.load(str(ZOO / "COCO-Detection/fcos_R_50_FPN_1x.py"))
    cfg.model.backbone.bottom_up = L(build_context_resnet)(
        depth=18,
        stem_out_channels=8,
        res2_out_channels=8,
        norm="FrozenBN",
        out_features=["res3", "res4", "res5"],
        freeze_at=2,
        **backbone,
    )
    cfg.model.backbone.out_channels = cfg.model.backbone.top_block.in_channels = 32
    cfg.model.head.input_shape = [ShapeSpec(channels=32)] * 5
    cfg.model.head.conv_dims = [64]  # two channels in each of the 32 groups of its norm
    cfg.model.num_classes = 2
    cfg.model.test_score_thresh = 0.0
    for split in ("train", "test"):
        loader = cfg.dataloader[split]
        loader.dataset.names, loader.num_workers = DATASET, 0
        resize = loader.mapper.augmentations[0]
        resize.short_edge_length, resize.max_size = 64, 96
    cfg.dataloader.train.total_batch_size = 2
    cfg.optimizer.lr = 1e-3
    return cfg


def write_pictures(folder: pathlib.Path) -> None:
    """Two pictures with two rectangles each, as COCO JSON, label maps and panoptic maps."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES):
        picture = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
        labels = np.full((height, width), 1, np.uint8)
        labels[height // 2 :] = 2
        panoptic = (labels + 2).astype(np.uint8)  # stuff: segment and category are 3 or 4
        for k, (x, y, w, h) in enumerate([(6, 8, 24, 30), (34, 20, 22, 28)]):
            picture[y : y + h, x : x + w] += np.uint8(80 + 40 * k)
            labels[y : y + h, x : x + w] = 0
            panoptic[y : y + h, x : x + w] = 10 + k
            points = generator.uniform((x, y), (x + w, y + h), (KEYPOINTS, 2))
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": k + 1,
                "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                "num_keypoints": KEYPOINTS,
                "keypoints": [float(v) for px, py in points for v in (px, py, 2)],
            })  # fmt: skip
        images.append(
            {"id": number, "height": height, "width": width, "file_name": f"{number}.png"}
        )
        red_is_id = np.stack([panoptic, 0 * panoptic, 0 * panoptic], axis=2)
        for kind, array in [("", picture), ("_labels", labels), ("_panoptic", red_is_id)]:
            Image.fromarray(array).save(folder / f"{number}{kind}.png")
    names = [f"k{i}" for i in range(KEYPOINTS)]
    categories = [{"id": i, "name": n, "keypoints": names} for i, n in [(1, "left"), (2, "right")]]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def register_pictures(folder: pathlib.Path) -> None:
    """Registers them as :data:`DATASET` with all targets, and as :data:`SEMANTIC`."""

    def load() -> list[dict]:
        records = load_coco_json(str(folder / "instances.json"), str(folder), DATASET)
        for record in records:
            stem = record["file_name"].removesuffix(".png")
            record["sem_seg_file_name"] = f"{stem}_labels.png"
            record["pan_seg_file_name"] = f"{stem}_panoptic.png"
            segments = [(10, 0), (11, 1), (3, 2), (4, 3)]  # contiguous classes
            record["segments_info"] = [
                {"id": i, "category_id": c, "iscrowd": 0, "area": 500} for i, c in segments
            ]
        return records

    names = [f"k{i}" for i in range(KEYPOINTS)]
    DatasetCatalog.register(DATASET, load)
    MetadataCatalog.get(DATASET).set(
        json_file=str(folder / "instances.json"),
        evaluator_type="coco",
        keypoint_names=names,
        keypoint_flip_map=[],
        stuff_classes=["things", "upper", "lower"],
        ignore_label=255,
        label_divisor=1000,
    )
    DatasetCatalog.register(SEMANTIC, load)
    MetadataCatalog.get(SEMANTIC).set(
        evaluator_type="sem_seg", stuff_classes=["things", "upper", "lower"], ignore_label=255
    )


def remove_pictures() -> None:
    for name in (DATASET, SEMANTIC):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def panoptic_deeplab() -> types.ModuleType:
    """The project, also where panopticapi is missing, of which it needs one function."""
    missing = importlib.util.find_spec("panopticapi") is None
    if missing:
        package, utils = types.ModuleType("panopticapi"), types.ModuleType("panopticapi.utils")
        utils.rgb2id = lambda color: color.astype(np.uint32) @ np.array([1, 256, 256**2])
        sys.modules |= {"panopticapi": package, "panopticapi.utils": utils}
    try:
        return importlib.import_module("detectron2.projects.panoptic_deeplab")
    finally:
        if missing:
            del sys.modules["panopticapi"], sys.modules["panopticapi.utils"]


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random values for what starts at zero, the statistics of norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            noise = torch.rand(value.shape, generator=generator)
            if not value.is_floating_point() or (value.dim() > 1 and value.any()):
                continue
            if key.endswith(("running_var", "norm.weight")):
                value.copy_(0.5 + noise)
            else:
                value.copy_((noise - 0.5) * 0.2)
    return model
