"""The ResNet whose context blocks know which positions are padding."""

from collections.abc import Sequence

import torch
from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.modeling.backbone.padding import content_sizes, padding_mask


class ContextResNet(ResNet):
    """Detectron2's ResNet whose context blocks know which positions are padding.

    Args:
        stem, stages, out_features, freeze_at: as in the base class.
        mask_padding: whether positions that stand for padding stay out of every context block. In
            evaluation images of different sizes then do not meet in any layer either: each has
            the feature maps that it has alone, and zeros behind them (a compiled or exported model
            only keeps padding out of the blocks).
        padded_to: the model pads the sides of an image that is alone to a multiple of this: 1, or
            the ``size_divisibility`` of the FPN on top (32).
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Sequence[nn.Module]],
        *,
        out_features: Sequence[str],
        freeze_at: int = 0,
        mask_padding: bool = True,
        padded_to: int = 1,
    ):
        super().__init__(stem, stages, out_features=list(out_features), freeze_at=freeze_at)
        self.mask_padding = mask_padding
        self.padded_to = padded_to
        self._with_blocks = {
            name
            for name, stage in zip(self.stage_names, self.stages, strict=True)
            if any(block.context is not None for block in stage)
        }

    @property
    def masks_padding(self) -> bool:
        """Whether there are context blocks, with padding kept out of them."""
        return self.mask_padding and bool(self._with_blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` images, normalised and padded with zeros -> feature maps by name.

        The images themselves are among them, as ``"input"``: a head can then resize to their exact
        size, which a stride does not tell (769 = 8 * 97 - 7).
        """
        if x.dim() != 4:
            raise UsageError(f"a ResNet takes images (N, C, H, W), got {tuple(x.shape)}")
        if not self.masks_padding:
            return {"input": x, **self._features(x, None)}
        sizes = content_sizes(x)
        # In training batch norm needs the whole batch; a graph cannot depend on what it is fed.
        graph = torch.jit.is_tracing() or torch.compiler.is_compiling()
        whole = self.training or graph or x.shape[0] < 2
        return {"input": x, **(self._features if whole else self._by_size)(x, sizes)}

    def _by_size(self, x: Tensor, sizes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The features of each image as if only images of its size were in the batch."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, extent in enumerate(zip(*(s.tolist() for s in sizes), strict=True)):
            alone = (-(-side // self.padded_to) * self.padded_to for side in extent)
            groups.setdefault(tuple(map(min, alone, x.shape[-2:])), []).append(index)
        if len(groups) == 1:
            return self._features(x, sizes)
        parts: dict[str, list[tuple[list[int], Tensor]]] = {}
        for (height, width), indices in groups.items():
            extents = tuple(s[indices] for s in sizes)
            part = self._features(x[indices, :, :height, :width], extents)
            for name, features in part.items():
                parts.setdefault(name, []).append((indices, features))
        return {name: _assemble(of_name, len(x)) for name, of_name in parts.items()}

    def _features(self, x: Tensor, sizes: Sequence[Tensor] | None) -> dict[str, Tensor]:
        outputs = {}
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        stride = self.stem.stride
        for name, stage in zip(self.stage_names, self.stages, strict=True):
            mask, before = None, stride
            stride = self._out_feature_strides[name]
            if sizes is not None and name in self._with_blocks:
                size = [-(-side * before // stride) for side in x.shape[-2:]]
                mask = padding_mask(sizes, size, stride)
            for block in stage:
                x = block(x, mask)
            if name in self._out_features:
                outputs[name] = x
        return outputs


def _assemble(parts: Sequence[tuple[list[int], Tensor]], count: int) -> Tensor:
    """Feature maps of some images each -> those of all, with zeros behind the smaller ones."""
    shapes = [features.shape[1:] for _, features in parts]
    size = [max(lengths) for lengths in zip(*shapes, strict=True)]
    whole = parts[0][1].new_zeros(count, *size)
    for indices, features in parts:
        whole[indices, :, : features.shape[2], : features.shape[3]] = features
    return whole
