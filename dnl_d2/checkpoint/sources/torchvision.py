"""ImageNet classifiers of torchvision: ResNet and ResNeXt, and all that keep its names."""

from dnl_d2.checkpoint.keymap import PARAM, Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.resnet import basic_stem_rules, residual_rules

CLASSIFIER = Rule(f"fc.{PARAM}", f"classifier.{PARAM}")


def _rules(state: State) -> list[Rule]:
    return [*basic_stem_rules(), *residual_rules(), CLASSIFIER]


SOURCE = Source(
    name="torchvision",
    title="a torchvision ResNet",
    signature=("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"),
    rules=_rules,
)
