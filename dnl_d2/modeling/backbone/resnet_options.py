"""The options of a ResNet, their checks, and where its context blocks go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import check_count
from dnl_d2.modeling.backbone.stem import STEMS

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
# (strides, dilations) of res2 to res5 by output stride.
_STRIDES = {
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}
STAGES = ("res2", "res3", "res4", "res5")


@dataclass(frozen=True, kw_only=True)
class ResNetOptions:
    """A ResNet or ResNeXt with context blocks in any of its residual blocks.

    Attributes:
        depth: 18, 34, 50, 101 or 152.
        in_channels: channels of the input image.
        stem: ``basic`` (7x7), ``v1c`` (three 3x3 convolutions; also ``deeplab``) or ``v1c-ceil``
            (its max-pool rounds sizes up, as in the authors' segmentation repositories).
        stem_out_channels: channels after the stem.
        res2_out_channels: channels of res2, doubled at each stage; default 64 or, from depth 50
            on, 256.
        num_groups, width_per_group: ResNeXt's cardinality and width.
        stride_in_1x1: where bottlenecks stride (True: MSRA models, False: all others).
        output_stride: 32, 16 or 8; res4 and res5 are dilated in place of striding.
        halve_first_dilation: the first block of a dilated stage uses half its dilation (the
            mmsegmentation convention); False: all of it (PaddleSeg, and "DC5").
        multi_grid: factors of the dilations of res5's blocks, such as ``(1, 2, 4)`` (DeepLab,
            arXiv 1706.05587); empty for none.
        shortcut: what strides in a shortcut: ``conv``, the 1x1 convolution, or ``avg_pool``,
            average pooling before it. With the ``v1c`` stem that is ResNet-D, -V1d or -vd.
        deform_on: stages whose 3x3 convolutions are deformable, such as ``("res4", "res5")``;
            from depth 50 on.
        deform_modulated: whether deformable convolutions weigh their samples (version 2).
        deform_num_groups: groups of channels with offsets of their own.
        norm: any norm Detectron2 knows, or ``fixBN``
            (:class:`~dnl_d2.layers.FixedBatchNorm2d`), for all convolutions of the ResNet.
        out_features: feature maps to return; stages after the last one are not built.
        freeze_at: number of stages to freeze, the stem being the first.
        context: what :func:`dnl_d2.layers.build_context_block` takes; None for a plain ResNet.
        inserts: where the blocks go, such as ``{"res4": [-2], "res5": "all"}``.
        position: ``after_conv3`` or ``after_add``.
        mask_padding, padded_to: see :class:`ContextResNet`. Without a mask padding takes part in
            the attention, as in the published networks. Needs a pixel mean that is no whole number
            in some channel (:mod:`dnl_d2.modeling.backbone.padding`).

    Raises:
        UsageError: an option out of range, or an insert where there is no block.
    """

    depth: int
    in_channels: int = 3
    stem: str = "basic"
    stem_out_channels: int = 64
    res2_out_channels: int | None = None
    num_groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    output_stride: int = 32
    halve_first_dilation: bool = True
    multi_grid: Sequence[int] = ()
    shortcut: str = "conv"
    deform_on: Sequence[str] = ()
    deform_modulated: bool = False
    deform_num_groups: int = 1
    norm: str = "BN"
    out_features: Sequence[str] = ("res5",)
    freeze_at: int = 0
    context: Mapping[str, Any] | None = None
    inserts: Mapping[str, Sequence[int] | str] | None = None
    position: str = "after_conv3"
    mask_padding: bool = True
    padded_to: int = 1

    def __post_init__(self) -> None:
        for name, known in (("depth", _BLOCKS), ("stem", STEMS), ("output_stride", _STRIDES)):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(
                    f"ResNet {name} {value!r}: use one of {', '.join(map(str, known))}"
                )
        self._check_inserts()
        if self.basic and self.num_groups != 1:
            raise UsageError(
                f"ResNet-{self.depth} has no groups; num_groups must be 1, got {self.num_groups}"
            )
        if self.basic and self.deform_on:
            raise UsageError(
                f"ResNet-{self.depth} has no deformable convolutions; use depth 50 or more"
            )
        self._check_deform()
        self._check_multi_grid()

    def _check_inserts(self) -> None:
        placed = self.placed
        if any(placed.values()) and self.context is None:
            raise UsageError(f"context blocks are placed at {', '.join(placed)}, but none is named")
        if self.context is not None and not any(placed.values()):
            raise UsageError("a context block is named for the backbone, but no stage to put it in")
        for number, stage in enumerate(self.num_blocks, start=2):
            if self.freeze_at >= number and placed.get(stage):
                raise UsageError(
                    f"{stage} is frozen (freeze_at={self.freeze_at}) but holds a new context "
                    f"block, which could not learn; use freeze_at={number - 1} or less"
                )

    def _check_deform(self) -> None:
        on, groups, stages = self.deform_on, self.deform_num_groups, self.num_blocks
        check_count(deform_num_groups=groups)
        channels = self.num_groups * self.width_per_group
        if on and channels % groups:
            raise UsageError(
                f"deform_num_groups {groups} does not divide the {channels} channels of res2's 3x3 "
                "convolutions"
            )
        if isinstance(on, str):
            raise UsageError(f"deform_on takes a list of stages, got {on!r}")
        for stage in on:
            if stage not in stages:
                raise UsageError(f"deform_on: {stage!r} is none of the stages {', '.join(stages)}")

    def _check_multi_grid(self) -> None:
        factors, blocks = self.multi_grid, self.num_blocks.get("res5")
        if factors and blocks is not None and len(factors) != blocks:
            raise UsageError(
                f"multi_grid {list(factors)}: res5 has {blocks} blocks, one factor each"
            )
        check_count(**{f"multi_grid[{i}]": factor for i, factor in enumerate(factors)})

    @property
    def basic(self) -> bool:
        """Whether blocks are two 3x3 convolutions, not bottlenecks."""
        return self.depth < 50

    @property
    def num_blocks(self) -> dict[str, int]:
        """Residual blocks by stage, of the stages that are built."""
        stages = built_stages(self.out_features)
        return dict(zip(stages, _BLOCKS[self.depth], strict=False))

    @property
    def placed(self) -> dict[str, set[int]]:
        """The residual blocks, by stage, that get a context block."""
        return expand_inserts(self.inserts or {}, self.num_blocks)

    def stride(self, stage: str) -> int:
        """The stride of the first block of a stage; the others have 1."""
        return _STRIDES[self.output_stride][0][STAGES.index(stage)]

    def dilations(self, stage: str) -> list[int]:
        """The dilation of each block of a stage."""
        dilation = _STRIDES[self.output_stride][1][STAGES.index(stage)]
        first = dilation // 2 if self.halve_first_dilation and dilation > 1 else dilation
        spread = [first] + [dilation] * (self.num_blocks[stage] - 1)
        if stage == "res5" and self.multi_grid:
            return [d * factor for d, factor in zip(spread, self.multi_grid, strict=True)]
        return spread


def expand_inserts(
    inserts: Mapping[str, Sequence[int] | str], num_blocks: Mapping[str, int]
) -> dict[str, set[int]]:
    """Turns ``{"res4": [-2], "res5": "all"}`` into block indices by stage.

    Args:
        inserts: stage name to block indices; negative ones count from the end of the stage.
        num_blocks: number of blocks of every stage that is built.

    Raises:
        UsageError: a stage or index that the backbone does not have, or no such mapping.
    """
    if not isinstance(inserts, Mapping):
        raise UsageError(f"inserts {inserts!r}: write them like {{'res4': [-2], 'res5': 'all'}}")
    expanded: dict[str, set[int]] = {}
    for stage, indices in inserts.items():
        if stage not in num_blocks:
            later = "; res5 of a C4 detector is part of its RoI heads" if stage == "res5" else ""
            raise UsageError(
                f"context block at stage {stage!r}: this backbone has {', '.join(num_blocks)}, "
                f"as its out_features say{later}"
            )
        count = num_blocks[stage]
        listed = [indices] if isinstance(indices, str) else indices
        if not isinstance(listed, Sequence) or (isinstance(indices, str) and indices != "all"):
            raise UsageError(f"context block at {stage}: {indices!r} is not a list or 'all'")
        if list(listed) == ["all"]:
            indices = range(count)
        expanded[stage] = set()
        for index in indices:
            if isinstance(index, bool) or not isinstance(index, int) or not -count <= index < count:
                raise UsageError(
                    f"context block at {stage}[{index}]: {stage} has {count} blocks, "
                    f"use {-count} to {count - 1}"
                )
            expanded[stage].add(index % count)
    return expanded


def built_stages(out_features: Sequence[str]) -> tuple[str, ...]:
    """The stages up to the last feature map that is asked for.

    Raises:
        UsageError: no feature map, or one that a ResNet does not have.
    """
    for feature in out_features:
        if feature not in ("stem", *STAGES):
            raise UsageError(f"out_features: {feature!r} is none of stem, {', '.join(STAGES)}")
    if not out_features:
        raise UsageError("out_features must name at least one feature map")
    last = max((STAGES.index(f) + 1 for f in out_features if f != "stem"), default=1)
    return STAGES[:last]
