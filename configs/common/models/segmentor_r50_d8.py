"""The published segmentation model: R-50-D8, context head, auxiliary FCN head on res4."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from dnl_d2.modeling import ContextHead, ContextSegmentor, CrossEntropyLoss, build_context_resnet

model = L(ContextSegmentor)(
    backbone=L(build_context_resnet)(
        depth=50,
        stem="v1c",
        output_stride=8,
        norm="SyncBN",
        out_features=["res4", "res5"],
    ),
    sem_seg_head=L(ContextHead)(
        input_shape=dict(
            res4=L(ShapeSpec)(channels=1024, stride=8),
            res5=L(ShapeSpec)(channels=2048, stride=8),
        ),
        in_features=["res5"],
        channels=512,
        norm="SyncBN",
        num_classes=19,
        align_corners=False,
        loss=L(CrossEntropyLoss)(average="valid"),
        auxiliary=L(ContextHead)(
            input_shape="${..input_shape}",
            in_features=["res4"],
            channels=256,
            norm="${..norm}",
            num_classes="${..num_classes}",
            num_convs=1,
            concat_input=False,
            loss=L(CrossEntropyLoss)(average="valid"),
            loss_weight=0.4,
            align_corners="${..align_corners}",
        ),
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)
