"""A backbone, the mean over positions, and a linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import Tensor, nn

from dnl_d2.errors import UsageError


class ImageClassifier(nn.Module):
    """Gives each class a score for a whole image.

    Its parameters are those of ``backbone``, under the names that segmentors and detectors have
    them, and of ``classifier``.

    Args:
        backbone: of Detectron2 or this library.
        feature: the feature map whose mean is classified.
        num_classes: K.
        pixel_mean, pixel_std: by channel, in the order of the images' channels.
        label_smoothing: share of the target that all classes get (arXiv 1512.00567, section 7).

    Raises:
        UsageError: the backbone does not have the feature map.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        feature: str = "res5",
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.backbone = backbone
        self.feature = feature
        self.label_smoothing = label_smoothing
        shapes = backbone.output_shape()
        if feature not in shapes:
            raise UsageError(
                f"the backbone has no feature {feature!r}, but {', '.join(shapes)}: set "
                "model.feature to one of them, or model.backbone.out_features"
            )
        self.classifier = nn.Linear(shapes[feature].channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict]:
        """Classifies images of one size.

        Args:
            batched_inputs: each with ``image``, ``(C, H, W)`` of 0 to 255, and in training
                ``category_id``. In evaluation one alone may have no image: all its scores are 0.

        Returns:
            In training ``{"loss_classification": ...}``, otherwise ``{"scores": (K,)}`` of each.

        Raises:
            UsageError: images of several sizes, or a class that there is not.
        """
        if not self.training and not any("image" in inputs for inputs in batched_inputs):
            return [{"scores": torch.zeros_like(self.classifier.bias)} for _ in batched_inputs]
        images = [inputs["image"] for inputs in batched_inputs]
        if len({image.shape for image in images}) > 1:
            raise UsageError("images of several sizes in a batch: the mapper must crop them to one")
        pixels = torch.stack(images).to(self.pixel_mean.device)
        features = self.backbone((pixels - self.pixel_mean) / self.pixel_std)[self.feature]
        logits = self.classifier(features.mean((2, 3)))
        if not self.training:
            return [{"scores": scores} for scores in logits]
        labels = torch.tensor([inputs["category_id"] for inputs in batched_inputs])
        wrong = [n for n in labels.tolist() if not 0 <= n < logits.shape[1]]
        if wrong:
            raise UsageError(
                f"a training image has class {wrong[0]}, and the model has classes 0 to "
                f"{logits.shape[1] - 1}: set model.num_classes, or number the classes from 0"
            )
        smoothing = self.label_smoothing
        loss = F.cross_entropy(logits, labels.to(logits.device), label_smoothing=smoothing)
        return {"loss_classification": loss}

    def example_inputs(self, size: Sequence[int]) -> list[dict[str, Any]]:
        """What :func:`dnl_d2.analysis.analyze` runs it on: one image of (height, width)."""
        if len(size) != 2:
            raise UsageError("the classifier reads images, not clips: leave the frames out")
        mean = self.pixel_mean
        return [{"image": torch.zeros(len(mean), *size, device=mean.device)}]
