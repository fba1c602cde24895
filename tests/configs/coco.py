"""The COCO recipes, for their tests."""

import pathlib
import re

import yaml
from detectron2.modeling import build_model

from dnl_d2.engine import load_config
from tests.meta import on_meta

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
ROWS = yaml.safe_load((CONFIGS / "published.yaml").read_text())["coco"]
LEAVES = list(dict.fromkeys(row["config"] for row in ROWS))
NAME = re.compile(
    r"coco/(?P<cascade>cascade_)?mask_rcnn_(?P<backbone>r50|r101|x101-32x4d)_fpn"
    r"(?P<deform>_dconv_c3-c5)?(_(?P<block>gc_r16|gc_r4|nl|snl|dnl)_(?P<where>c3-c5|c4|c4-c5))?"
    r"_(?P<norm>fixbn|syncbn)(?P<conv_head>_4conv1fc)?_(?P<schedule>[12])x"
)


def yaml_config(name, *overrides):
    return load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "meta", *overrides])


def meta_model(name, *overrides):
    """The whole network of a leaf, without memory."""
    with on_meta():
        return build_model(yaml_config(name, *overrides))
