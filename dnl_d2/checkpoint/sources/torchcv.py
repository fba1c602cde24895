"""What the authors' segmentation repositories share: they are built on donnyyou/torchcv."""

from dnl_d2.checkpoint.keymap import Rule, State, matching
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.checkpoint.sources.resnet import conv_norm, residual_rules
from dnl_d2.checkpoint.sources.torchvision import CLASSIFIER

# Images as cv2 reads them, minus Caffe's means, not divided.
INPUT_FORMAT = InputFormat("BGR", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))

# What no parameter shows.
SETTINGS = {
    "MODEL.RESNETS.STEM_TYPE": "v1c-ceil",
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": True,
}

# Where the layers before the first stage are: now, and in older versions of torchcv.
_STEMS = ("prefix", "resinit")


def stem_signature() -> str:
    """A template that matches a backbone of any version."""
    return f"backbone.{{stem:{'|'.join(_STEMS)}}}.conv1.weight"


def backbone_rules(state: State) -> list[Rule]:
    """The ResNet under ``backbone``: one 7x7 convolution or three 3x3 ones before ``layer1``."""
    stem = _STEMS[bool(matching(state, f"backbone.{_STEMS[1]}.{{rest:*}}"))]
    return [*_stem_rules(f"backbone.{stem}."), *residual_rules("backbone.")]


def _stem_rules(public: str) -> list[Rule]:
    return conv_norm(f"{public}conv{{i}}", f"{public}bn{{i}}", "backbone.stem.conv{i}")


def _imagenet_rules(state: State) -> list[Rule]:
    return [*_stem_rules(""), *residual_rules(), CLASSIFIER]


# The ResNet-101 with three 3x3 convolutions that both repositories train from.
SOURCE = Source(
    name="torchcv",
    title="an ImageNet ResNet with a 3x3 stem, as torchcv trains from",
    signature=("conv3.weight", "bn3.weight", "layer1.0.conv1.weight"),
    rules=_imagenet_rules,
    input_format=INPUT_FORMAT,
    settings={"MODEL.RESNETS.STEM_TYPE": "v1c-ceil"},
)
