"""ImageNet classifiers of timm with a deep stem: ResNet-C (``resnet50c``) and -D (``resnet50d``).

timm's plain ResNets have torchvision's names.
"""

from functools import partial

from dnl_d2.checkpoint.keymap import Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.resnet import conv_norm, residual_rules
from dnl_d2.checkpoint.sources.torchvision import CLASSIFIER


def _rules(state: State, pooled: bool) -> list[Rule]:
    # The stem is a Sequential that ends with a convolution, whose norm is ``bn1``.
    return [
        *conv_norm("conv1.0", "conv1.1", "backbone.stem.conv1"),
        *conv_norm("conv1.3", "conv1.4", "backbone.stem.conv2"),
        *conv_norm("conv1.6", "bn1", "backbone.stem.conv3"),
        *residual_rules(pooled=pooled),
        CLASSIFIER,
    ]


_STEM = ("conv1.0.weight", "conv1.6.weight", "layer1.0.conv1.weight")

SOURCES = (
    Source(
        name="timm-resnet-d",
        title="a timm ResNet-D",
        signature=(*_STEM, "layer2.0.downsample.2.weight"),
        rules=partial(_rules, pooled=True),
        settings={"MODEL.RESNETS.SHORTCUT": "avg_pool"},
    ),
    Source(
        name="timm-resnet-c",
        title="a timm ResNet-C",
        signature=_STEM,
        rules=partial(_rules, pooled=False),
    ),
)
