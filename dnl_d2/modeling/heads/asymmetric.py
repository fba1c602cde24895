"""The head of the asymmetric non-local network (ANN)."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import AsymmetricFusionNonLocalBlock, AsymmetricPyramidNonLocalBlock
from dnl_d2.modeling.heads.context import build_auxiliary_head
from dnl_d2.modeling.heads.segmentation_head import SegmentationHead, conv3x3


@SEM_SEG_HEADS_REGISTRY.register()
class AsymmetricHead(SegmentationHead):
    """AFNB(low, high) -> dropout -> 3x3 conv -> APNB -> classifier (arXiv 1908.07678, figure 4).

    Args:
        input_shape: the backbone's features.
        in_features: the shallow and the deep feature, such as ``("res4", "res5")``.
        channels: width after the 3x3 convolution.
        norm: norm of every convolution.
        project_channels: width of queries, keys and values in both blocks.
        pool_scales: cells per axis of each pyramid level.
        options: num_classes, loss, loss_weight, dropout, align_corners and auxiliary, as in
            :class:`SegmentationHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str] = ("res4", "res5"),
        channels: int = 512,
        norm: str = "SyncBN",
        project_channels: int = 256,
        pool_scales: Sequence[int] = (1, 3, 6, 8),
        dropout: float = 0.1,
        **options: Any,
    ):
        super().__init__(
            input_shape, in_features=in_features, channels=channels, dropout=dropout, **options
        )
        if len(self.in_features) != 2:
            raise UsageError(
                f"AsymmetricHead reads a shallow and a deep feature, got {self.in_features}"
            )
        low, high = (input_shape[f].channels for f in self.in_features)
        shared = dict[str, Any](inter_channels=project_channels, pool_scales=pool_scales, norm=norm)
        self.fusion = AsymmetricFusionNonLocalBlock(high, low_channels=low, **shared)
        self.bottleneck = nn.Sequential(nn.Dropout2d(dropout), conv3x3(high, channels, norm))
        self.context = AsymmetricPyramidNonLocalBlock(channels, **shared)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        if head.CONTEXT.NAME:
            raise UsageError(
                "AsymmetricHead has its own blocks: leave SEM_SEG_HEAD.CONTEXT.NAME empty"
            )
        return super().from_config(cfg, input_shape) | {
            "project_channels": head.ASYMMETRIC.PROJECT_CHANNELS,
            "pool_scales": head.ASYMMETRIC.POOL_SCALES,
            "auxiliary": build_auxiliary_head(cfg, input_shape),
        }

    def decode(self, features: list[Tensor]) -> Tensor:
        low, high = features
        return self.context(self.bottleneck(self.fusion(high, low=low)))
