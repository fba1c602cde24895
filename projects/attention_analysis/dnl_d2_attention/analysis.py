"""Statistics of the context blocks of a model over the pictures, or clips, of a dataset."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import (
    ContextBlock,
    DisentangledNonLocalBlock,
    GlobalContextBlock,
    NonLocalBlock,
    SimplifiedNonLocalBlock,
)
from dnl_d2_attention.maps import map_statistics
from dnl_d2_attention.truth import Frame, at_cells
from dnl_d2_attention.vectors import logit_shares, mean_cosine_distance
from dnl_d2_attention.watching import Call, watching

# Of these z_i = x_i + (what the block adds).
_ADDING = (DisentangledNonLocalBlock, GlobalContextBlock, NonLocalBlock, SimplifiedNonLocalBlock)
# What is added is known from the difference of output and input: to this share of the input.
_SMALLEST = 1e-4
_NO_DIRECTION = "fewer than two positions have a direction, or some are not finite"


@dataclass(frozen=True)
class Figure:
    """One statistic of one block in one picture.

    Attributes:
        picture: its name.
        block: name of the block in the model.
        term: ``input``, ``output``, ``logits``, ``uniform``, or a term of the attention.
        statistic: its name.
        value: in the unit that :func:`dnl_d2_attention.maps.map_statistics` gives.
    """

    picture: str
    block: str
    term: str
    statistic: str
    value: float


@dataclass
class Analysis:
    """What :func:`analyze` finds.

    Attributes:
        figures: of each picture.
        blocks: class and size of the map, of each block, in the first picture.
        left_out: what there is no figure of, with the reason and in how many pictures.
        unreadable: pictures that could not be read, or on which no block ran, with the reason.
    """

    figures: list[Figure] = field(default_factory=list)
    blocks: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Pictures to look at.

    Attributes:
        records: each with a ``file_name``.
        mapper: from a record to what the model reads.
        truth: the regions of a record's pixels, ``(H, W)``; None where nothing is known.
    """

    records: Iterable[dict[str, Any]]
    mapper: Callable[[dict[str, Any]], dict[str, Any]]
    truth: Callable[[dict[str, Any]], np.ndarray | None]


@torch.no_grad()
def analyze(
    model: nn.Module, source: Source, *, only: str | None = None, queries: int | None = None
) -> Analysis:
    """Runs a model on one picture after another, and describes what its blocks attend to.

    Args:
        model: in evaluation mode.
        source: the pictures; one that cannot be read is noted and left out.
        only: the name of one block; None for all.
        queries: of each map at most so many; see :func:`map_statistics`.

    Raises:
        UsageError: there is no such block, or not one picture could be read.
    """
    blocks = [name for name, m in model.named_modules() if isinstance(m, ContextBlock)]
    if not blocks:
        raise UsageError(
            f"the {type(model).__name__} of this config has no context block: take a config with "
            "one, or name it in an override"
        )
    if only not in (None, *blocks):
        raise UsageError(
            f"the {type(model).__name__} has no context block {only!r}; it has: {', '.join(blocks)}"
        )
    found = Analysis()
    for record in source.records:
        name = str(record["file_name"])
        try:
            inputs = source.mapper(dict(record))
            truth = source.truth(record)
        except UsageError as error:
            found.unreadable.append(str(error))
            continue
        with watching(model, only) as seen:
            model([inputs])
        if not seen.calls:
            found.unreadable.append(f"{name}: the model runs no context block on it")
        regions = [_regions(call, truth, inputs, seen.padded) for call in seen.calls]
        _describe(found, name, seen.calls, regions, queries)
    if not found.figures:
        reasons = found.unreadable or [*found.left_out]
        why = f", the first because: {reasons[0]}" if reasons else ""
        raise UsageError(f"nothing could be analysed{why}")
    return found


def _regions(
    call: Call,
    truth: np.ndarray | None,
    inputs: Mapping[str, Any],
    padded: tuple[int, int] | None,
) -> Tensor | None:
    """The regions of a map's cells; None where there is no telling."""
    if truth is None or padded is None or call.x.dim() != 4 or len(call.x) != 1:
        return None
    height, width = truth.shape
    resized = tuple(inputs["image"].shape[-2:])
    frame = Frame((height, width), (resized[0], resized[1]), padded)
    return at_cells(truth, frame, (call.x.shape[2], call.x.shape[3]))


def _describe(
    found: Analysis,
    picture: str,
    calls: Sequence[Call],
    regions: Sequence[Tensor | None],
    queries: int | None,
) -> None:
    """Adds a picture's figures: means over a block's runs and over what it read at once."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    left_out: dict[str, None] = {}
    for call, region in zip(calls, regions, strict=True):
        size = "x".join(map(str, call.x.shape[2:]))
        what = f"{type(call.block).__name__}, {call.x.shape[1]} x {size}"
        found.blocks.setdefault(call.name, what)
        for sample in range(len(call.x)):
            for term, statistic, value in _of_sample(left_out, call, sample, region, queries):
                values[call.name, term, statistic].append(value)
    for key, numbers in values.items():
        found.figures.append(Figure(picture, *key, sum(numbers) / len(numbers)))
    for reason in left_out:
        found.left_out[reason] += 1


def _of_sample(
    left_out: dict[str, None],
    call: Call,
    sample: int,
    regions: Tensor | None,
    queries: int | None,
) -> Iterator[tuple[str, str, float]]:
    """Terms, statistics and values; ``left_out`` gets what there is no figure of, and why."""
    x, block = call.x[sample, None], call.block
    inputs = {name: value[sample, None] for name, value in call.inputs.items()}
    mask = inputs.pop("key_padding_mask", None)
    tokens = _tokens(x, mask)
    name = call.name

    def vectors(term: str, value: float | None, why: str) -> Iterator[tuple[str, str, float]]:
        if value is None:
            left_out[f"{name}: {term}: {why}"] = None
        else:
            yield term, "cosine_distance", value

    yield from vectors("input", mean_cosine_distance(tokens), _NO_DIRECTION)
    added = _tokens(call.out[sample, None], mask).double()
    if isinstance(block, _ADDING) and getattr(block, "channel_mul", None) is None:
        added = added - tokens.double()
        why = "what the block adds is nothing, too small beside its input, or not finite"
        large = float(added.norm()) > _SMALLEST * float(tokens.double().norm())
        yield from vectors("output", mean_cosine_distance(added) if large else None, why)
    else:  # there is no sum of which the input could be taken off
        yield from vectors("output", mean_cosine_distance(added), _NO_DIRECTION)
    yield from _shares(left_out, call, x, mask)
    try:
        by_term = map_statistics(
            block, x, mask=mask, inputs=inputs, regions=regions, queries=queries
        )
    except UsageError as error:
        left_out[f"{name}: maps: {error}"] = None
        return
    for term, statistics in by_term.items():
        for statistic, value in statistics.items():
            yield term, statistic, value


def _shares(
    left_out: dict[str, None], call: Call, x: Tensor, mask: Tensor | None
) -> Iterator[tuple[str, str, float]]:
    """What of the logits is pairwise and what unary; of a block without such logits nothing."""
    operands = call.block.query_key(x)
    if operands is None:
        return
    if mask is not None:
        why = "some positions are padding, which has queries and keys too"
        left_out[f"{call.name}: logits: {why}"] = None
        return
    shares = logit_shares(operands[0][0], operands[1][0])
    if shares is None:
        left_out[f"{call.name}: logits: they are all equal, or not finite"] = None
    for term, share in (shares or {}).items():
        yield "logits", f"{term}_share", share


def _tokens(x: Tensor, mask: Tensor | None) -> Tensor:
    """``(1, C, *S)`` -> ``(L, C)``, without padding."""
    tokens = x.flatten(2)[0].t().cpu()
    return tokens if mask is None else tokens[~mask.flatten().cpu()]
