"""The analysis of a model: parameters and operations, by part."""

from typing import NamedTuple

import torch
from torch import nn

from dnl_d2.analysis.counting import Count, OperationCounter
from dnl_d2.analysis.parts import Parameters, Part, PartNames, count_parameters
from dnl_d2.analysis.running import HEADS, Regions, run_parts
from dnl_d2.errors import UsageError


class Analysis(NamedTuple):
    """What :func:`analyze` finds.

    Attributes:
        size, padded: (height, width) of the image, without and with the padding the model adds.
        parts: all parts, in the order of the model.
        parameters, operations: by part; parts without any are left out.
        notes: what was assumed and what is not counted, a sentence each.
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    parts: list[Part]
    parameters: dict[Part, Parameters]
    operations: dict[Part, Count]
    notes: list[str]


def analyze(model: nn.Module, size: tuple[int, int], regions: Regions | None = None) -> Analysis:
    """Counts parameters, multiply-adds and activations of a model in inference, by part.

    Args:
        model: of Detectron2 or this library: a backbone with any of the heads in
            :data:`dnl_d2.analysis.running.HEADS`. Built on the ``meta`` device it needs neither
            memory nor time. It is left in evaluation mode.
        size: (height, width) of the image.
        regions: how many the heads of a detector get; default 1000 and 100.

    Raises:
        UsageError: another kind of model, or one that cannot process an image of that size.
    """
    regions = regions or Regions()
    for name, number in {"height": size[0], "width": size[1], **regions._asdict()}.items():
        if number < 1:
            raise UsageError(f"{name} must be 1 or more, got {number}")
    if not hasattr(model, "backbone") or not any(hasattr(model, name) for name in HEADS):
        raise UsageError(
            f"{type(model).__name__}: a model to analyse has a backbone and one of "
            f"{', '.join(HEADS)}"
        )
    model.eval()
    counter = OperationCounter(model)
    try:
        with torch.no_grad():
            padded, notes = run_parts(model, counter, size, regions)
    except UsageError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{type(model).__name__} cannot be run on an image of {size[0]}x{size[1]}: {reason}"
        ) from error
    return _by_part(model, counter, Analysis(size, padded, [], {}, {}, notes))


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
