"""What every segmentation head shares: classifier, resizing, loss, auxiliary head."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.nn import weight_init
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import init_normal
from dnl_d2.layers.functional import full_precision
from dnl_d2.modeling.losses import CrossEntropyLoss, build_loss
from dnl_d2.modeling.losses.by_parts import cross_entropy_by_parts, goes_by_parts


def conv3x3(in_channels: int, out_channels: int, norm: str) -> Conv2d:
    """3x3 convolution, norm, ReLU."""
    conv = Conv2d(
        in_channels,
        out_channels,
        3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    weight_init.c2_msra_fill(conv)
    return conv


class SegmentationHead(nn.Module, ABC):
    """Base of the heads, with the interface of Detectron2's semantic-segmentation heads.

    Subclasses implement :meth:`decode`. :class:`detectron2.modeling.SemanticSegmentor` calls
    ``forward``, PointRend calls ``layers`` and ``losses``.

    Args:
        input_shape: the backbone's features.
        in_features: the ones this head reads.
        channels: width of what :meth:`decode` returns.
        num_classes: number of classes K, 2 or more.
        loss: module of (logits, targets) with an ``ignore_value``, such as those of
            :mod:`dnl_d2.modeling.losses`, whose ``terms`` are logged one by one; default cross
            entropy.
        loss_weight: factor of the loss.
        dropout: channel dropout before the classifier.
        align_corners: how logits are resized.
        half_pixel_centers: without aligned corners, whether the centre of cell i lies at i + 1/2
            (as everywhere but in PaddleSeg's DNLNet) or at i.
        auxiliary: a second head whose loss is added in training; it is not used in inference.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str],
        channels: int,
        num_classes: int,
        loss: nn.Module | None = None,
        loss_weight: float = 1.0,
        dropout: float = 0.1,
        align_corners: bool = False,
        half_pixel_centers: bool = True,
        auxiliary: "SegmentationHead | None" = None,
    ):
        super().__init__()
        self._check_features(in_features, input_shape)
        if align_corners and not half_pixel_centers:
            raise UsageError("half_pixel_centers=False has no meaning with align_corners=True")
        if num_classes < 2:
            raise UsageError(
                f"num_classes (MODEL.SEM_SEG_HEAD.NUM_CLASSES) is {num_classes}: the softmax of a "
                "single output is always 1. Count the background as a class too (label it 0, the "
                "object 1, and predict 2 classes); models of one output with a sigmoid, such as "
                "mmsegmentation's binary ones, are not supported"
            )
        self.in_features = list(in_features)
        self.common_stride = input_shape[self.in_features[-1]].stride
        self.num_classes = num_classes
        self.loss = CrossEntropyLoss() if loss is None else loss
        if getattr(self.loss, "num_classes", None) not in (None, num_classes):
            raise UsageError(
                f"{self.loss.num_classes} class weights (MODEL.SEM_SEG_HEAD.LOSS_CLASS_WEIGHTS, "
                f"or class_weights of the loss), but {num_classes} classes"
            )
        self.loss_weight = loss_weight
        self.align_corners = align_corners
        self.half_pixel_centers = half_pixel_centers
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = Conv2d(channels, num_classes, 1)
        init_normal(0.01, self.predictor)
        self.auxiliary = auxiliary

    def _check_features(
        self, in_features: Sequence[str], input_shape: Mapping[str, ShapeSpec]
    ) -> None:
        for feature in in_features:
            if feature not in input_shape:
                raise UsageError(
                    f"{type(self).__name__}: the backbone does not return {feature!r}; "
                    f"it returns {', '.join(input_shape)}"
                )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """What every head reads from MODEL.SEM_SEG_HEAD alike."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "in_features": head.IN_FEATURES,
            "channels": head.CONVS_DIM,
            "num_classes": head.NUM_CLASSES,
            "norm": head.NORM,
            "loss": build_loss(head),
            "loss_weight": head.LOSS_WEIGHT,
            "dropout": head.DROPOUT,
            "align_corners": head.ALIGN_CORNERS,
            "half_pixel_centers": head.HALF_PIXEL_CENTERS,
        }

    @property
    def ignore_value(self) -> int:
        """Label of pixels that take no part in the loss."""
        return cast(int, self.loss.ignore_value)

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Tensor:
        """The selected features -> ``(N, channels, H', W')``."""

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> logits ``(N, K, H', W')`` at feature resolution."""
        return self.predictor(self.dropout(self.decode([features[f] for f in self.in_features])))

    def losses(
        self, predictions: Tensor, targets: Tensor, *, name: str = "loss_sem_seg"
    ) -> dict[str, Tensor]:
        """Losses to log and to add up.

        Args:
            predictions: ``(N, K, H', W')`` logits at feature resolution.
            targets: ``(N, H, W)`` labels.
            name: of the loss; the terms of a sum append theirs.
        """
        (predictions,) = full_precision(predictions)
        size = targets.shape[-2:]
        if goes_by_parts(self.loss, predictions, targets):
            resize = partial(self._resize, size=size)
            terms = {"": cross_entropy_by_parts(self.loss, predictions, targets, resize)}
        else:
            logits = self._resize(predictions, size)
            terms_of = getattr(self.loss, "terms", None)  # modules of others may have none
            # Compared with None: PyTorch 2.11 and before cannot compile a method's truth value.
            terms = (
                {"": self.loss(logits, targets)} if terms_of is None else terms_of(logits, targets)
            )
        return {f"{name}_{k}" if k else name: v * self.loss_weight for k, v in terms.items()}

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Predicts, or computes losses in training.

        Args:
            features: backbone features by name. If there is an ``"input"`` among them, logits are
                resized to its size, otherwise by the stride of the features.
            targets: ``(N, H, W)`` labels.

        Returns:
            ``(None, losses)`` in training, ``(logits (N, K, H, W), {})`` in inference.
        """
        predictions = self.layers(features)
        if self.training:
            assert targets is not None  # training comes with labels
            losses = self.losses(predictions, targets)
            if self.auxiliary is not None:
                predictions = self.auxiliary.layers(features)
                name = "loss_sem_seg_auxiliary"
                # Not by |=, which PyTorch 2.6 cannot compile.
                losses.update(self.auxiliary.losses(predictions, targets, name=name))
            return None, losses
        if "input" in features:
            size: Sequence[int] = features["input"].shape[-2:]
        else:
            size = [s * self.common_stride for s in predictions.shape[-2:]]
        return self._resize(predictions, size), {}

    def _resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        if self.half_pixel_centers:
            return F.interpolate(
                logits, size=tuple(size), mode="bilinear", align_corners=self.align_corners
            )
        # Pixel i of n reads cell i * cells / n; aligned corners do so given one more of both.
        grown = F.pad(logits, (0, 1, 0, 1), mode="replicate")
        size = [s + 1 for s in size]
        return F.interpolate(grown, size, mode="bilinear", align_corners=True)[..., :-1, :-1]
