"""What the detection repositories of GCNet and DNL compute, restated: blocks, boxes, files.

Both build on MMDetection 1.x, which no longer installs. Layers that did not change since are
MMDetection 3.x's; what is different is written here, from the equations.
"""

import itertools
import math
import types

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn import ContextBlock, NonLocal2d
from torch import Tensor, nn

from dnl_d2_parity.references.dnl_seg import AuthorsBlock, scaled

# Blocks of DNL's repository, under the names of their submodules. In the published models NL has
# reduction 4, GC and DNL ratio 1/4.


def _disentangled(channels: int) -> nn.Module:
    inter = channels // 4
    return AuthorsBlock(channels, inter, divide=scaled(0.05)(inter))


class SimplifiedBlock(nn.Module):
    """x + one shared attention over values without bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_value = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv_mask = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        v, m = self.conv_value(x).flatten(2), self.conv_mask(x).flatten(2)
        return x + torch.einsum("nuj,ncj->ncu", m.softmax(2), v)[..., None]


BLOCKS = {
    "dnl": ("nl_gc_block", _disentangled),
    "snl": ("context_block", SimplifiedBlock),
    "gc": ("context_block", lambda channels: ContextBlock(channels, ratio=1 / 4)),
    "nl": ("nonlocal_block", lambda channels: NonLocal2d(channels, reduction=4)),
}


class InPlaceABN(nn.BatchNorm2d):
    """In-Place ABN with identity activation: scales by |weight| + eps, counts no batches."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__(norm.num_features)
        self.load_state_dict(norm.state_dict())
        del self.num_batches_tracked

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.abs() + self.eps
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, self.bias, False, 0.0, self.eps
        )


def insert_after_add(backbone: nn.Module, kind: str, places: list[tuple[int, int]]) -> None:
    """Puts blocks into residual blocks ``(layer, index)``, after the sum with the shortcut."""
    name, make = BLOCKS[kind]
    for layer, index in places:
        residual = getattr(backbone, f"layer{layer}")[index]
        residual.add_module(name, make(residual.conv3.out_channels))
        residual.inserted = name
        residual.forward = types.MethodType(_forward_after_add, residual)


def _forward_after_add(self, x: Tensor) -> Tensor:
    out = F.relu(self.norm1(self.conv1(x)))
    out = F.relu(self.norm2(self.conv2(out)))
    out = self.norm3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x))
    return F.relu(getattr(self, self.inserted)(out))


def use_abn(module: nn.Module) -> None:
    """In-Place ABN for every batch norm, some with negative weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, InPlaceABN(child))
            with torch.no_grad():
                getattr(module, name).weight[::3] *= -1
        else:
            use_abn(child)


def old_file(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A state dict of MMDetection 3.x as 1.x would have written it.

    No ``roi_head.``; the background is class 0 and has regressors, which are never used.
    """
    generator = torch.Generator().manual_seed(seed)
    old = {}
    for key, value in state.items():
        layer = key.split(".")[-2]
        if layer == "fc_cls":
            value = torch.stack([value[-1], *value[:-1]])
        elif layer == "conv_logits" or (layer == "fc_reg" and len(value) > 4):
            rows = 1 if layer == "conv_logits" else 4
            unused = torch.randn(rows, *value.shape[1:], generator=generator)
            value = torch.cat([unused, value])
        old[key.removeprefix("roi_head.")] = value
    return old


# Boxes of MMDetection 1.x are (x1, y1, x2, y2) with the last pixel inside: width x2 - x1 + 1.


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    """The box of that size around a place."""
    return [x - (width - 1) / 2, y - (height - 1) / 2, x + (width - 1) / 2, y + (height - 1) / 2]


def anchors(size: tuple[int, int], stride: int, scale: float, ratios: list[float]) -> np.ndarray:
    """``(H * W * A, 4)``, row-major, then by ratio (height / width)."""
    found = []
    for y, x, ratio in itertools.product(range(size[0]), range(size[1]), ratios):
        width, height = stride * scale / math.sqrt(ratio), stride * scale * math.sqrt(ratio)
        middle = (stride - 1) / 2
        corners = map(round, _corners(middle, middle, width, height))
        found.append([c + s * stride for c, s in zip(corners, (x, y, x, y), strict=True)])
    return np.array(found, dtype=float)


def decode(box: np.ndarray, delta: np.ndarray, stds: tuple[float, ...]) -> np.ndarray:
    """One box moved and scaled by one normalised delta."""
    dx, dy, dw, dh = delta * np.array(stds)
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    x, y = (box[0] + box[2]) / 2 + width * dx, (box[1] + box[3]) / 2 + height * dy
    width, height = width * math.exp(dw), height * math.exp(dh)
    return np.array(_corners(x, y, width, height))


def roi_align(feature: np.ndarray, box: np.ndarray, scale: float, size: int) -> np.ndarray:
    """``(H, W)`` map and one box in the image -> ``(size, size)`` means of 2x2 samples."""
    x, y = box[0] * scale, box[1] * scale
    step_x, step_y = (((box[i + 2] + 1) * scale - box[i] * scale) / size for i in (0, 1))
    out = np.zeros((size, size))
    for i, j, a, b in itertools.product(range(size), range(size), (0.25, 0.75), (0.25, 0.75)):
        out[i, j] += _bilinear(feature, y + (i + a) * step_y, x + (j + b) * step_x) / 4
    return out


def _bilinear(feature: np.ndarray, y: float, x: float) -> float:
    height, width = feature.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = feature[top, left] * (1 - fx) + feature[top, right] * fx
    lower = feature[bottom, left] * (1 - fx) + feature[bottom, right] * fx
    return upper * (1 - fy) + lower * fy
