"""ImageNet classifiers with a deep stem, as mmsegmentation and mmpretrain name them.

mmsegmentation starts training from such files (``resnet50_v1c``, ``resnet101_v1c``). Plain ResNets
have torchvision's names there.
"""

from functools import partial

from torch import Tensor

from dnl_d2.checkpoint.keymap import PARAM, Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.resnet import deep_stem_rules, residual_rules
from dnl_d2.checkpoint.sources.torchvision import CLASSIFIER


def _prepare(state: State) -> dict[str, Tensor]:
    """mmpretrain's files have the backbone in a classifier; mmsegmentation's are bare."""
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def _rules(state: State, pooled: bool) -> list[Rule]:
    return [
        *deep_stem_rules("stem"),
        *residual_rules(pooled=pooled),
        CLASSIFIER,
        Rule(f"head.fc.{PARAM}", f"classifier.{PARAM}"),
    ]


_SIGNATURE = ("stem.0.weight", "stem.6.weight", "layer1.0.conv1.weight")

SOURCES = (
    Source(
        name="openmmlab-v1d",
        title="an OpenMMLab ResNet-V1d",
        signature=(*_SIGNATURE, "layer2.0.downsample.2.weight"),
        rules=partial(_rules, pooled=True),
        prepare=_prepare,
        settings={"MODEL.RESNETS.SHORTCUT": "avg_pool"},
    ),
    Source(
        name="openmmlab-v1c",
        title="an OpenMMLab ResNet-V1c",
        signature=_SIGNATURE,
        rules=partial(_rules, pooled=False),
        prepare=_prepare,
    ),
)
