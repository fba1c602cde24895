"""What the model of a LazyConfig reads: its datasets, classes, masks, keypoints."""

from detectron2.data import MetadataCatalog
from detectron2.data.transforms import RandomFlip
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from dnl_d2.config.rules import select_lazy
from dnl_d2.validation.instances import InstanceTask
from dnl_d2.validation.keypoints import KeypointTask
from dnl_d2.validation.task import Task

MAPPER = "dataloader.train.mapper"
FLIP_INDICES = f"{MAPPER}.keypoint_hflip_indices"
_CLASSES = ("model.roi_heads.num_classes", "model.num_classes")


def task_of_lazy(cfg: DictConfig) -> Task:
    """What the model of a LazyConfig reads, by the names that Detectron2's have."""
    if classifies(cfg):
        return Task()
    instances = None
    classes_key = next((key for key in _CLASSES if select_lazy(cfg, key) is not None), None)
    if classes_key is not None:
        keypoints = f"{MAPPER}.use_keypoint"
        instances = InstanceTask(
            num_classes=select_lazy(cfg, classes_key),
            classes_key=classes_key,
            masks=bool(select_lazy(cfg, f"{MAPPER}.use_instance_mask")),
            masks_key=f"{MAPPER}.use_instance_mask",
            mask_format=select_lazy(cfg, f"{MAPPER}.instance_mask_format") or "polygon",
            format_key=f"{MAPPER}.instance_mask_format",
            keypoints_key=keypoints if select_lazy(cfg, keypoints) else None,
            keypoints=_keypoint_task(cfg) if select_lazy(cfg, keypoints) else None,
            keeps_empty=select_lazy(cfg, "dataloader.train.dataset.filter_empty") is False,
        )
    semantic = select_lazy(cfg, "model.sem_seg_head") is not None
    return Task(
        num_classes=select_lazy(cfg, "model.sem_seg_head.num_classes"),
        instances=instances,
        only_detects=select_lazy(cfg, "model.roi_heads") is not None and not semantic,
        ignore_label=select_lazy(cfg, f"{MAPPER}.dataset_ignore_label"),
        ignore_key=f"{MAPPER}.dataset_ignore_label",
        crop_size=tuple(select_lazy(cfg, f"{MAPPER}.augmentations.crop_size") or ()),
    )


def dataset_names(cfg: DictConfig, split: str) -> tuple[str, ...]:
    """The datasets of a split, ``train`` or ``test``; a config may give one as a string."""
    names = select_lazy(cfg, f"dataloader.{split}.dataset.names") or []
    return (names,) if isinstance(names, str) else tuple(names)


def classifies(cfg: DictConfig) -> bool:
    """Whether the datasets give whole images a class; ``model.num_classes`` is of these then."""
    names = [*dataset_names(cfg, "train"), *dataset_names(cfg, "test")]
    kinds = {MetadataCatalog.get(name).get("evaluator_type") for name in names}
    return "classification" in kinds


def _keypoint_task(cfg: DictConfig) -> KeypointTask:
    count, evaluator = "model.roi_heads.keypoint_head.num_keypoints", "dataloader.evaluator"
    listed = OmegaConf.is_list(select_lazy(cfg, evaluator))  # of which one may have sigmas
    sigmas = select_lazy(cfg, f"{evaluator}.kpt_oks_sigmas") or ()
    indices = select_lazy(cfg, FLIP_INDICES)
    return KeypointTask(
        count=select_lazy(cfg, count),
        count_key=count,
        sigmas=None if listed else tuple(sigmas),
        sigmas_key=f"{evaluator}.kpt_oks_sigmas",
        flip=_flip(cfg),
        flip_key=f"{MAPPER}.augmentations",
        flip_indices=None if indices is None else tuple(indices),
        flip_indices_key=FLIP_INDICES,
    )


def _flip(cfg: DictConfig) -> str:
    """As Detectron2's mapper sees it: how training mirrors pictures."""
    augmentations = select_lazy(cfg, f"{MAPPER}.augmentations")
    for node in augmentations if OmegaConf.is_list(augmentations) else ():
        target = node.get("_target_") if OmegaConf.is_dict(node) else None
        target = locate(target) if isinstance(target, str) else target
        if target is RandomFlip:
            return "vertical" if node.get("vertical") else "horizontal"
    return "none"
