"""What the checks want to know of a config, of either kind."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf


def config_datasets(cfg: CfgNode | DictConfig) -> tuple[list[str], list[str], int | None]:
    """Names of the datasets for training, of those for testing, and the number of classes."""
    if isinstance(cfg, CfgNode):
        sets = cfg.DATASETS
        return list(sets.TRAIN), list(sets.TEST), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names = []
    for split in ("train", "test"):
        value = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names", default=[])
        names.append([value] if isinstance(value, str) else list(value))
    return *names, OmegaConf.select(cfg, "model.sem_seg_head.num_classes")


def fitting_crop(cfg: CfgNode | DictConfig, size: Sequence[int]) -> list[int]:
    """The crop of a config, cut down to pictures that are smaller.

    Args:
        cfg: the config.
        size: (height, width) of the pictures.

    Returns:
        (height, width); empty where the config's own crop fits, or it has none.
    """
    if isinstance(cfg, CfgNode):
        crop = cfg.INPUT.CROP.SIZE if cfg.INPUT.CROP.ENABLED else ()
    else:
        crop = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations.crop_size") or ()
    fitting = [min(sides) for sides in zip(crop, size, strict=False)]
    return fitting if fitting != list(crop) else []
