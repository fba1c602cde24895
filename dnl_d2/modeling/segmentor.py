"""The model of the published segmentation recipes: Detectron2's, with their way to predict."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from detectron2.structures import ImageList
from torch import Tensor

from dnl_d2.modeling.inference import check_window, sliding_window


@META_ARCH_REGISTRY.register()
class ContextSegmentor(SemanticSegmentor):
    """:class:`detectron2.modeling.SemanticSegmentor` that predicts as mmsegmentation does.

    It can slide a window over the image, and it resizes logits to the size asked for with the
    head's ``align_corners`` (Detectron2: never aligned). Training is Detectron2's.

    Args:
        slide_window, slide_stride: (height, width); both empty for the whole image at once.
        slide_batch_size: windows that are predicted together.
        options: backbone, sem_seg_head, pixel_mean and pixel_std, as in the base class.
    """

    @configurable
    def __init__(
        self,
        *,
        slide_window: Sequence[int] = (),
        slide_stride: Sequence[int] = (),
        slide_batch_size: int = 4,
        **options,
    ):
        super().__init__(**options)
        if len(slide_window) or len(slide_stride):
            check_window(slide_window, slide_stride, slide_batch_size)
        self.slide_window = tuple(slide_window)
        self.slide_stride = tuple(slide_stride)
        self.slide_batch_size = slide_batch_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return super().from_config(cfg) | {
            "slide_window": cfg.TEST.SLIDE.WINDOW,
            "slide_stride": cfg.TEST.SLIDE.STRIDE,
            "slide_batch_size": cfg.TEST.SLIDE.BATCH_SIZE,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """Losses in training, otherwise ``{"sem_seg": (K, height, width) logits}`` per image."""
        if self.training:
            return super().forward(batched_inputs)
        if len({x["image"].shape for x in batched_inputs}) > 1:
            # Each by itself: padding to a common size would take part in the attention.
            return [result for x in batched_inputs for result in self.forward([x])]
        normalised = [
            (x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs
        ]
        images = ImageList.from_tensors(
            normalised,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        height, width = images.image_sizes[0]
        logits = self.predict(images.tensor)[..., :height, :width]
        return [
            {"sem_seg": self._resize(part, x.get("height", height), x.get("width", width))}
            for part, x in zip(logits, batched_inputs, strict=True)
        ]

    def predict(self, images: Tensor) -> Tensor:
        """Normalised ``(N, C, H, W)`` images -> ``(N, K, H, W)`` logits, whole or sliding."""
        if not self.slide_window:
            return self.predict_whole(images)
        return sliding_window(
            images,
            self.predict_whole,
            window=self.slide_window,
            stride=self.slide_stride,
            batch_size=self.slide_batch_size,
        )

    def predict_whole(self, images: Tensor) -> Tensor:
        """As :meth:`predict`, in one pass."""
        return self.sem_seg_head(self.backbone(images))[0]

    def _resize(self, logits: Tensor, height: int, width: int) -> Tensor:
        if logits.shape[1:] == (height, width):
            return logits
        # Heads of Detectron2 have no such option and never align.
        align = getattr(self.sem_seg_head, "align_corners", False)
        return F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=align)[0]
