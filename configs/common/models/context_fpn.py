"""Detectron2's FPN over a ResNet-50 with room for context blocks: twin of the YAML backbone
``build_context_resnet_fpn_backbone``. Put it in place of a zoo model's ``model.backbone``."""

from detectron2.config import LazyCall as L
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from dnl_d2.modeling import build_context_resnet

backbone = L(FPN)(
    bottom_up=L(build_context_resnet)(
        depth=50,
        stride_in_1x1=True,
        norm="FrozenBN",
        freeze_at=2,
        out_features=["res2", "res3", "res4", "res5"],
        context=None,  # such as dict(name="dnl", preset="paper-det")
        inserts=None,  # such as dict(res4=[-2], res5="all")
        position="after_conv3",
        padded_to=32,  # FPN.size_divisibility
    ),
    in_features=["res2", "res3", "res4", "res5"],
    out_channels=256,
    norm="",
    top_block=L(LastLevelMaxPool)(),
)
