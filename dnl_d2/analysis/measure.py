"""The analysis of a model: parameters and operations, by part."""

from typing import Any, NamedTuple

import torch
from torch import nn

from dnl_d2.analysis.counting import Count, OperationCounter
from dnl_d2.analysis.parts import Parameters, Part, PartNames, count_parameters
from dnl_d2.analysis.running import HEADS, Regions, run_parts
from dnl_d2.errors import UsageError


class Analysis(NamedTuple):
    """What :func:`analyze` finds.

    Attributes:
        size, padded: (height, width) of the image, or (frames, height, width) of the clip, without
            and with the padding that the model adds.
        parts: all parts, in the order of the model.
        parameters, operations: by part; parts without any are left out.
        notes: what was assumed and what is not counted, a sentence each.
    """

    size: tuple[int, ...]
    padded: tuple[int, ...]
    parts: list[Part]
    parameters: dict[Part, Parameters]
    operations: dict[Part, Count]
    notes: list[str]


def analyze(model: nn.Module, size: tuple[int, ...], regions: Regions | None = None) -> Analysis:
    """Counts parameters, multiply-adds and activations of a model in inference, by part.

    Args:
        model: of Detectron2 or this library: a backbone with any of the heads in
            :data:`dnl_d2.analysis.running.HEADS`; or any model with a method
            ``example_inputs(size)``, which is run whole on what that returns. Built on the
            ``meta`` device it needs neither memory nor time. It is left in evaluation mode.
        size: (height, width) of the image; with the frames before them of a clip.
        regions: how many the heads of a detector get; default 1000 and 100.

    Raises:
        UsageError: another kind of model, or one that cannot process an image of that size.
    """
    regions = regions or Regions()
    sides = dict(zip(("width", "height", "frames"), reversed(size), strict=False))
    for name, number in {**sides, **regions._asdict()}.items():
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    example_inputs: Any = getattr(model, "example_inputs", None)
    whole = example_inputs is not None
    if not whole and not (hasattr(model, "backbone") and any(hasattr(model, h) for h in HEADS)):
        raise UsageError(
            f"{type(model).__name__}: a model to analyse has a backbone and one of "
            f"{', '.join(HEADS)}, or example_inputs(size)"
        )
    if not whole and len(size) != 2:
        raise UsageError(f"{type(model).__name__} reads images, not clips: leave the frames out")
    model.eval()
    counter = OperationCounter(model)
    padded: tuple[int, ...] = size
    notes: list[str] = []
    try:
        with torch.no_grad():
            if whole:
                inputs = example_inputs(size)
                with counter:
                    model(inputs)
            else:
                padded, notes = run_parts(model, counter, (size[0], size[1]), regions)
    except UsageError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        what = "an image" if len(size) == 2 else "a clip"
        raise UsageError(
            f"{type(model).__name__} cannot be run on {what} of {by_x(size)}: {reason}"
        ) from error
    return _by_part(model, counter, Analysis(size, padded, [], {}, {}, notes))


def by_x(size: tuple[int, ...]) -> str:
    """Lengths of axes in words, such as ``800x1280``."""
    return "x".join(map(str, size))


def _by_part(model: nn.Module, counter: OperationCounter, found: Analysis) -> Analysis:
    names = PartNames(model)
    parameters = count_parameters(model, names)
    operations: dict[Part, Count] = {}
    for (module, _), count in counter.counts.items():
        part = names.part_of(module)
        operations[part] = operations.get(part, Count()) + count
    parts = [part for part in names.in_order(model) if part in parameters or part in operations]
    notes = list(found.notes)
    if idle := [part.name for part in parts if part not in operations]:
        notes.append(f"parameters that take no part in inference: {', '.join(idle)}")
    if counter.unknown:
        notes.append(f"not counted, no formula: {', '.join(sorted(counter.unknown))}")
    return found._replace(parts=parts, parameters=parameters, operations=operations, notes=notes)
