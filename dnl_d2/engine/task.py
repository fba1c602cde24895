"""What a config's model reads from its datasets."""

from dataclasses import dataclass

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from dnl_d2.data.instance_check import InstanceTask

# By architecture: the node of its number of classes, and whether it can have masks.
_DETECTORS = {
    "GeneralizedRCNN": ("ROI_HEADS", True),
    "PanopticFPN": ("ROI_HEADS", True),
    "RetinaNet": ("RETINANET", False),
}
_LAZY_CLASSES = ("model.roi_heads.num_classes", "model.num_classes")
_LAZY_MAPPER = "dataloader.train.mapper"


@dataclass(frozen=True)
class Task:
    """What a model reads from its datasets.

    Args:
        num_classes: classes of its semantic segmentation; None if it does none.
        instances: what it detects; None if it detects nothing.
    """

    num_classes: int | None = None
    instances: InstanceTask | None = None


def task_of_yaml(cfg: CfgNode) -> Task:
    """The task of a YAML config; without ``instances`` for architectures not known here."""
    instances = None
    if cfg.MODEL.META_ARCHITECTURE in _DETECTORS:
        node, masks = _DETECTORS[cfg.MODEL.META_ARCHITECTURE]
        instances = InstanceTask(
            num_classes=cfg.MODEL[node].NUM_CLASSES,
            classes_key=f"MODEL.{node}.NUM_CLASSES",
            masks=masks and cfg.MODEL.MASK_ON,
            masks_key="MODEL.MASK_ON",
            mask_format=cfg.INPUT.MASK_FORMAT,
            format_key="INPUT.MASK_FORMAT",
        )
    return Task(num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, instances=instances)


def task_of_lazy(cfg: DictConfig) -> Task:
    """The task of a LazyConfig, by the names that Detectron2's have."""
    instances = None
    for key in _LAZY_CLASSES:
        num_classes = OmegaConf.select(cfg, key)
        if num_classes is not None:
            instances = InstanceTask(
                num_classes=num_classes,
                classes_key=key,
                masks=bool(OmegaConf.select(cfg, f"{_LAZY_MAPPER}.use_instance_mask")),
                masks_key=f"{_LAZY_MAPPER}.use_instance_mask",
                mask_format=OmegaConf.select(cfg, f"{_LAZY_MAPPER}.instance_mask_format")
                or "polygon",
                format_key=f"{_LAZY_MAPPER}.instance_mask_format",
            )
            break
    return Task(
        num_classes=OmegaConf.select(cfg, "model.sem_seg_head.num_classes"), instances=instances
    )
