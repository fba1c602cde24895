"""The model: a backbone of clips, pooled over space and time, and a linear classifier."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError


class VideoClassifier(nn.Module):
    """Names the class of videos from clips of them.

    Args:
        backbone: ``(N, 3, T, H, W)`` -> ``(N, C, T, H', W')``, with ``out_channels``.
        num_classes: K.
        dropout: share of the pooled features that training sets to zero.
        pixel_mean, pixel_std: of the red, green and blue of pixels from 0 to 255.
        views_per_pass: in evaluation, clips that go through the network at once: the views of a
            video take no more memory than these.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Any,
        num_classes: int,
        dropout: float = 0.5,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        views_per_pass: int = 6,
    ):
        super().__init__()
        if num_classes < 2 or views_per_pass < 1:
            raise UsageError(
                f"model.num_classes {num_classes} must be 2 or more, model.views_per_pass "
                f"{views_per_pass} 1 or more"
            )
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.out_channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.views_per_pass = views_per_pass
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            numbers = torch.tensor([float(v) for v in values]).view(3, 1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Loss in training, otherwise the scores of each video.

        Args:
            inputs: ``"clips"``, uint8 ``(V, 3, T, H, W)`` of V views, of one size in training;
                and in training ``"category_id"``.

        Returns:
            ``{"loss_classification": ...}``; or for each video ``{"scores": (K,)}``, the mean over
            its views of the softmax. A video without views has no favourite: all scores are 0.

        Raises:
            UsageError: a class beyond ``num_classes``.
        """
        if not self.training:
            return [{"scores": self._scores(video["clips"])} for video in inputs]
        logits = self._logits(torch.cat([video["clips"] for video in inputs]))
        return {"loss_classification": F.cross_entropy(logits.float(), self._labels(inputs))}

    def example_inputs(self, size: Sequence[int]) -> list[dict[str, Any]]:
        """One view of one video, for :func:`dnl_d2.analysis.analyze`.

        Args:
            size: (frames, height, width).

        Raises:
            UsageError: another number of lengths.
        """
        if len(size) != 3:
            raise UsageError("VideoClassifier reads clips: say how many frames (--frames)")
        clips = torch.zeros(1, 3, *size, dtype=torch.uint8, device=self.pixel_mean.device)
        return [{"clips": clips, "category_id": 0}]

    def _scores(self, clips: Tensor) -> Tensor:
        total = torch.zeros(self.classifier.out_features, device=self.pixel_mean.device)
        for part in clips.split(self.views_per_pass) if len(clips) else ():
            total = total + self._logits(part).float().softmax(1).sum(0)
        return total / max(len(clips), 1)

    def _logits(self, clips: Tensor) -> Tensor:
        clips = clips.to(self.pixel_mean.device, non_blocking=True)
        clips = (clips.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        pooled = self.backbone(clips).mean((2, 3, 4))
        return self.classifier(self.dropout(pooled))

    def _labels(self, inputs: list[dict[str, Any]]) -> Tensor:
        labels = []
        for video in inputs:
            label = video["category_id"]
            if not 0 <= label < self.classifier.out_features:
                raise UsageError(
                    f"{video.get('file_name', 'a video')} has class {label}, and model.num_classes "
                    f"is {self.classifier.out_features}: set it to the number of classes"
                )
            labels += [label] * len(video["clips"])
        return torch.tensor(labels, device=self.pixel_mean.device)
