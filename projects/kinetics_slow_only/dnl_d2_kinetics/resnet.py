"""The slow-only ResNet: a ResNet of frames whose late stages also look along time."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.residual import Residual, Stem

STAGES = ("res2", "res3", "res4", "res5")
_DEPTHS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3),
}  # fmt: skip


class SlowOnlyResNet(nn.Module):
    """Slow pathway of SlowFast networks (arXiv 1812.03982, table 1), with context blocks.

    Time has no stride anywhere. Names of parameters are those of Detectron2's ResNet, so that
    weights of images fill it: their convolutions are repeated along time.

    Args:
        depth: 18, 34, 50, 101 or 152.
        temporal_kernels: length along time of the first convolution in each block of res2 to res5.
        stem_out_channels: of the stem.
        res2_out_channels: of res2, doubled in each stage after it; default 64 with depth 18 and
            34, else 256.
        stride_in_1x1: whether a bottleneck's first convolution strides (Caffe) or its 3x3 one.
        norm: as :func:`dnl_d2.layers.get_norm` takes it.
        context: the block to insert, as :func:`dnl_d2.layers.build_context_block` takes it.
        inserts: stage -> numbers of the residual blocks, from 0, that a context block comes after;
            negative ones count from the end.

    Raises:
        UsageError: an argument out of range, or an insert where there is no block.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        temporal_kernels: Sequence[int] = (1, 1, 3, 3),
        stem_out_channels: int = 64,
        res2_out_channels: int | None = None,
        stride_in_1x1: bool = False,
        norm: str = "BN",
        context: Mapping[str, Any] | str | None = None,
        inserts: Mapping[str, Sequence[int]] | None = None,
    ):
        super().__init__()
        _check(depth, temporal_kernels)
        placed = _placed(depth, context, inserts or {})
        bottleneck = depth >= 50
        self.stem = Stem(stem_out_channels, norm)
        channels, width = stem_out_channels, res2_out_channels or (256 if bottleneck else 64)
        for number, (stage, time) in enumerate(zip(STAGES, temporal_kernels, strict=True)):
            blocks = nn.Sequential()
            for block in range(_DEPTHS[depth][number]):
                residual = Residual(
                    channels,
                    width,
                    bottleneck=bottleneck,
                    time=time,
                    stride=2 if number and not block else 1,
                    stride_in_1x1=stride_in_1x1,
                    norm=norm,
                    context=context if block in placed.get(stage, ()) else None,
                )
                blocks.append(residual)
                channels = width
            self.add_module(stage, blocks)
            width *= 2
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Normalised clips ``(N, 3, T, H, W)`` -> ``(N, C, T, H / 32, W / 32)``."""
        x = self.stem(x)
        for stage in STAGES:
            x = getattr(self, stage)(x)
        return x


def _check(depth: int, temporal_kernels: Sequence[int]) -> None:
    if depth not in _DEPTHS:
        raise UsageError(f"slow-only ResNet: depth {depth}; use {', '.join(map(str, _DEPTHS))}")
    odd = all(isinstance(k, int) and k > 0 and k % 2 for k in temporal_kernels)
    if len(temporal_kernels) != len(STAGES) or not odd:
        raise UsageError(
            f"slow-only ResNet: temporal_kernels {list(temporal_kernels)}; give four odd lengths, "
            f"of {', '.join(STAGES)}"
        )


def _placed(
    depth: int, context: object, inserts: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Stage -> numbers of blocks from 0."""
    if bool(context) != any(inserts.values()):
        lacking = "inserts" if context else "context"
        raise UsageError(
            f"slow-only ResNet: {lacking} is empty: context says which block, inserts after which "
            "residual blocks; set both or neither"
        )
    placed = {}
    counts = dict(zip(STAGES, _DEPTHS[depth], strict=True))
    for stage, numbers in inserts.items():
        count = counts.get(stage, 0)
        wrong = next((n for n in numbers if not -count <= n < count), None)
        if not count or wrong is not None:
            has = f"{stage} has blocks 0 to {count - 1}" if count else f"use {', '.join(STAGES)}"
            what = f"no block {wrong}" if count else "no such stage"
            raise UsageError(f"slow-only ResNet: inserts.{stage}: {what}; {has}")
        placed[stage] = [n % count for n in numbers]
    return placed
