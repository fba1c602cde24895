"""What a config's model reads from its datasets."""

from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from omegaconf import DictConfig, OmegaConf

from dnl_d2.validation.instances import InstanceTask

# By architecture or its base: the node of its number of classes, and whether it can have masks.
_DETECTORS = {
    "GeneralizedRCNN": ("ROI_HEADS", True),
    "PanopticFPN": ("ROI_HEADS", True),
    "RetinaNet": ("RETINANET", False),
}
# Those with MODEL.SEM_SEG_HEAD, likewise; of Detectron2's projects some may not be imported.
_SEMANTIC = ("SemanticSegmentor", "PanopticFPN", "PanopticDeepLab")
_LAZY_CLASSES = ("model.roi_heads.num_classes", "model.num_classes")
_LAZY_MAPPER = "dataloader.train.mapper"
_LAZY_KEYPOINTS = f"{_LAZY_MAPPER}.use_keypoint"
_LAZY_FILTER = "dataloader.train.dataset.filter_empty"


@dataclass(frozen=True)
class Task:
    """What a model reads from its datasets.

    Args:
        num_classes: classes of its semantic segmentation; None if it does none.
        instances: what it detects; None if it detects nothing.
        only_detects: whether it has no use for label maps for sure.
    """

    num_classes: int | None = None
    instances: InstanceTask | None = None
    only_detects: bool = False


def task_of_yaml(cfg: CfgNode) -> Task:
    """The task of a YAML config; empty for architectures that are not known here."""
    instances = None
    bases = _with_bases(cfg.MODEL.META_ARCHITECTURE)
    detector = next((name for name in bases if name in _DETECTORS), None)
    if detector is not None:
        node, masks = _DETECTORS[detector]
        keypoints = masks and cfg.MODEL.KEYPOINT_ON
        instances = InstanceTask(
            num_classes=cfg.MODEL[node].NUM_CLASSES,
            classes_key=f"MODEL.{node}.NUM_CLASSES",
            masks=masks and cfg.MODEL.MASK_ON,
            masks_key="MODEL.MASK_ON",
            mask_format=cfg.INPUT.MASK_FORMAT,
            format_key="INPUT.MASK_FORMAT",
            keypoints_key="MODEL.KEYPOINT_ON" if keypoints else None,
            keeps_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        )
    semantic = any(name in _SEMANTIC for name in bases)
    return Task(
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if semantic else None,
        instances=instances,
        only_detects=instances is not None and not semantic,
    )


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
                keypoints_key=_LAZY_KEYPOINTS if OmegaConf.select(cfg, _LAZY_KEYPOINTS) else None,
                keeps_empty=OmegaConf.select(cfg, _LAZY_FILTER) is False,
            )
            break
    semantic = OmegaConf.select(cfg, "model.sem_seg_head") is not None
    return Task(
        num_classes=OmegaConf.select(cfg, "model.sem_seg_head.num_classes"),
        instances=instances,
        only_detects=OmegaConf.select(cfg, "model.roi_heads") is not None and not semantic,
    )


def _with_bases(architecture: str) -> list[str]:
    """Its name and those of its base classes, the nearest first."""
    found = META_ARCH_REGISTRY.get(architecture) if architecture in META_ARCH_REGISTRY else None
    return [c.__name__ for c in found.__mro__] if isinstance(found, type) else [architecture]
