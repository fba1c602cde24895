"""Testing at several scales and mirrored: TEST.AUG of YAML configs."""

from detectron2.config import CfgNode
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPN,
)
from torch import nn

from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor


def check_augmented_test(cfg: CfgNode) -> None:
    """Raises :class:`UsageError` if TEST.AUG is enabled for a model that knows nothing of it."""
    if not cfg.TEST.AUG.ENABLED:
        return
    name = cfg.MODEL.META_ARCHITECTURE
    model = META_ARCH_REGISTRY.get(name)
    bases = model.__mro__ if isinstance(model, type) else ()
    if ContextSegmentor in bases:
        return
    if GeneralizedRCNN in bases and PanopticFPN not in bases:
        for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
            if cfg.MODEL[key]:
                raise UsageError(f"TEST.AUG.ENABLED: not with MODEL.{key}, disable one of them")
        return
    remedy = "disable it"
    if name == "SemanticSegmentor":
        remedy = "set MODEL.META_ARCHITECTURE to ContextSegmentor"
    raise UsageError(f"TEST.AUG.ENABLED: {name} does not average over scales; {remedy}")


def augmented_detector(cfg: CfgNode, model: nn.Module) -> nn.Module | None:
    """Detectron2's test at several scales around a detector that is built for single ones.

    Args:
        cfg: TEST.AUG has MIN_SIZES (of the shorter side), MAX_SIZE and FLIP.
        model: of ``cfg``.

    Returns:
        None if TEST.AUG is off or the model, a segmentor, averages by itself.
    """
    if not cfg.TEST.AUG.ENABLED or not isinstance(model, GeneralizedRCNN):
        return None
    return GeneralizedRCNNWithTTA(cfg, model)
