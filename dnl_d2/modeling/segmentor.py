"""The model of the segmentation recipes: Detectron2's, with sliding windows and scales."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from torch import Tensor

from dnl_d2.config.rules import require_device
from dnl_d2.data.resize import MultiScaleFlip
from dnl_d2.errors import UsageError
from dnl_d2.modeling.batches import cropped, padded_for, padded_size, stacked
from dnl_d2.modeling.inference import average_probabilities, check_window, sliding_window

_logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class ContextSegmentor(SemanticSegmentor):
    """:class:`detectron2.modeling.SemanticSegmentor` that trains and predicts as mmsegmentation.

    It can slide a window over the image and average over scales and mirror images, and it resizes
    logits to the size asked for with the head's ``align_corners`` (Detectron2: never aligned).
    In training it pads to the size of the crop, so that a picture smaller than it does not change
    the size of a batch.

    A picture as it is stored may be resized by the model itself, so that it is tested as in the
    evaluation by whoever predicts it, Detectron2's ``DefaultPredictor`` for instance.

    Args:
        multi_scale_flip: what becomes of a stored picture, which is one that comes with its own
            size as "height" and "width"; None: nothing.
        slide_window, slide_stride: (height, width); both empty for the whole image at once.
            Published: 769 and 513 for the 769x769 rows, 480 and 320 for PASCAL Context.
        slide_batch_size: windows that are predicted together.
        slide_sum_on_cpu: keep the logits of a whole image in main memory.
        pad_size: (height, width) that training pads to at least, images with zeros after
            normalisation and labels with the ignored value; None or empty: as far as the largest
            of the batch.
        options: backbone, sem_seg_head, pixel_mean and pixel_std, as in the base class.
    """

    @configurable
    def __init__(
        self,
        *,
        slide_window: Sequence[int] = (),
        slide_stride: Sequence[int] = (),
        slide_batch_size: int = 4,
        slide_sum_on_cpu: bool = False,
        pad_size: Sequence[int] | None = None,
        multi_scale_flip: MultiScaleFlip | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if len(slide_window) or len(slide_stride):
            check_window(slide_window, slide_stride, slide_batch_size)
        if pad_size and (len(pad_size) != 2 or min(pad_size) < 1):
            raise UsageError(f"pad size {tuple(pad_size)} must be (height, width) in whole pixels")
        self.slide_window = tuple(slide_window)
        self.slide_stride = tuple(slide_stride)
        self.slide_batch_size = slide_batch_size
        self.slide_sum_on_cpu = slide_sum_on_cpu
        self.pad_size = tuple(int(side) for side in pad_size or (0, 0))
        self.multi_scale_flip = multi_scale_flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        require_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")  # where build_model will move it
        slide, crop = cfg.TEST.SLIDE, cfg.INPUT.CROP
        if cfg.INPUT.MIN_SIZE_TEST:
            _logger.warning(
                f"INPUT.MIN_SIZE_TEST is {cfg.INPUT.MIN_SIZE_TEST}, to which Detectron2's "
                "DefaultPredictor resizes pictures, the evaluation does not: set it to 0 for the "
                "same predictions"
            )
        # The data mapper reports a crop size that is wrong or missing.
        cropped = crop.ENABLED and crop.TYPE == "absolute" and min(crop.SIZE) >= 1
        return super().from_config(cfg) | {
            "slide_window": slide.WINDOW,
            "slide_stride": slide.STRIDE,
            "slide_batch_size": slide.BATCH_SIZE,
            "slide_sum_on_cpu": slide.SUM_ON_CPU,
            "pad_size": crop.SIZE if cropped else None,
            "multi_scale_flip": MultiScaleFlip(cfg),
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, otherwise the logits or probabilities of every image.

        Args:
            batched_inputs: "image" ``(C, H, W)``, in training "sem_seg" ``(H, W)``; "height" and
                "width" of the result, if not the image's. Or "images", one picture at several
                scales, with "flip", "height" and "width".

        Returns:
            ``{"sem_seg": (K, height, width)}`` per image: logits, or for "images" the mean of
            their probabilities.
        """
        if self.training:
            return self._losses(batched_inputs)
        batched_inputs = [self._as_tested(x) for x in batched_inputs]
        if any("images" in x for x in batched_inputs) or any(
            x["image"].shape != batched_inputs[0]["image"].shape for x in batched_inputs[1:]
        ):
            # Each by itself: padding to a common size would take part in the attention.
            return [{"sem_seg": self._predict_alone(x)} for x in batched_inputs]
        sizes = [(x.get("height"), x.get("width")) for x in batched_inputs]
        results = self._predict_alike([x["image"] for x in batched_inputs], sizes)
        return [{"sem_seg": result} for result in results]

    def logits(self, images: Tensor) -> Tensor:
        """Pictures of one size as the mapper gives them -> logits of that size.

        ``(N, C, H, W)`` -> ``(N, K, H, W)``, from tensors and sizes alone:
        :mod:`torch.export` makes one graph of it for every size.
        """
        padded = padded_for(self.backbone, self._normalised(images))
        return cropped(self.predict(padded), images.shape[-2:])

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
            sum_on_cpu=self.slide_sum_on_cpu,
        )

    def predict_whole(self, images: Tensor) -> Tensor:
        """As :meth:`predict`, in one pass."""
        return self.sem_seg_head(self.backbone(images))[0]

    def _losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        # Not waited for: pinned memory is read while the CPU goes on.
        images, labels = (
            [x[key].to(self.device, non_blocking=True) for x in batched_inputs]
            for key in ("image", "sem_seg")
        )
        sides = zip(self.pad_size, *(image.shape[-2:] for image in images), strict=True)
        size = padded_size(self.backbone, [max(side) for side in sides])
        batch = self._normalised(stacked(images, size, 0))
        for image, whole in zip(images, batch, strict=True):  # what was padded is no black picture
            height, width = image.shape[-2:]
            if (height, width) != size:
                whole[:, height:].zero_()
                whole[:, :, width:].zero_()
        targets = stacked(labels, size, self.sem_seg_head.ignore_value)
        return self.sem_seg_head(self.backbone(batch), targets)[1]

    def _as_tested(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A stored picture as the evaluation reads it; whatever else as it is."""
        views, size = self.multi_scale_flip, (inputs.get("height"), inputs.get("width"))
        if views is None or None in size or "images" in inputs:
            return inputs
        image = inputs["image"]
        if tuple(image.shape[1:]) != size:
            return inputs
        whole = image.to(torch.uint8)  # DefaultPredictor has floats, which resize otherwise
        image = whole if torch.equal(whole.to(image.dtype), image) else image
        return inputs | views.model_inputs(image.cpu().numpy().transpose(1, 2, 0))

    def _predict_alone(self, inputs: dict[str, Any]) -> Tensor:
        size = inputs.get("height"), inputs.get("width")
        if "images" not in inputs:
            return self._predict_alike([inputs["image"]], [size])[0]
        return average_probabilities(
            inputs["images"],
            lambda image: self._predict_alike([image], [size])[0],
            flip=inputs["flip"],
        )

    def _predict_alike(
        self, images: list[Tensor], sizes: list[tuple[int | None, int | None]]
    ) -> list[Tensor]:
        """Logits of images of one size, each resized to its (height, width), None for its own."""
        height, width = images[0].shape[-2:]
        return [
            self._resize(part, height if h is None else h, width if w is None else w)
            for part, (h, w) in zip(self.logits(torch.stack(images)), sizes, strict=True)
        ]

    def _normalised(self, image: Tensor) -> Tensor:
        return (image.to(self.device) - self.pixel_mean) / self.pixel_std

    def _resize(self, logits: Tensor, height: int, width: int) -> Tensor:
        if logits.shape[1:] == (height, width):
            return logits
        # Heads of Detectron2 have no such option and never align.
        align = getattr(self.sem_seg_head, "align_corners", False)
        return F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=align)[0]
