"""ResNets with torchvision's names: bare classifiers, and what other code bases build on them."""

from dnl_d2.checkpoint.keymap import NORM, Rule, State, has


def conv_norm(public_conv: str, public_norm: str, ours: str) -> list[Rule]:
    """A bias-free convolution and its norm."""
    return [
        Rule(f"{public_conv}.weight", f"{ours}.weight"),
        Rule(f"{public_norm}.{NORM}", f"{ours}.norm.{NORM}"),
    ]


def residual_rules(public: str = "", *, pooled: bool = False) -> list[Rule]:
    """``layer1`` to ``layer4``; with ``pooled``, average pooling is number 0 of a shortcut."""
    block, res = f"{public}layer{{s}}.{{b}}", "backbone.res{s+1}.{b}"
    conv, norm = (f"{block}.downsample.{i + pooled}" for i in range(2))
    return [
        *conv_norm(f"{block}.conv{{i}}", f"{block}.bn{{i}}", f"{res}.conv{{i}}"),
        *conv_norm(conv, norm, f"{res}.shortcut"),
    ]


def basic_stem_rules(public: str = "") -> list[Rule]:
    """One 7x7 convolution."""
    return conv_norm(f"{public}conv1", f"{public}bn1", "backbone.stem.conv1")


def deep_stem_rules(public: str) -> list[Rule]:
    """Three 3x3 convolutions in one ``nn.Sequential`` (ResNet-V1c)."""
    return [
        rule
        for i, conv in enumerate((0, 3, 6), start=1)
        for rule in conv_norm(f"{public}.{conv}", f"{public}.{conv + 1}", f"backbone.stem.conv{i}")
    ]


def openmmlab_rules(state: State, *, pooled: bool = False) -> list[Rule]:
    """The ResNet under ``backbone``, with the stem that the public or our keys show."""
    deep = has(state, "backbone.stem.0.weight", "backbone.stem.conv3.weight")
    return [
        *(deep_stem_rules("backbone.stem") if deep else basic_stem_rules("backbone.")),
        *residual_rules("backbone.", pooled=pooled),
    ]
