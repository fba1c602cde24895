"""What ``tools/replay_step.py`` does."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.structures import Instances

from dnl_d2.engine.nonfinite.examine import examine
from dnl_d2.engine.nonfinite.finding import NonFinite, first_cause
from dnl_d2.engine.nonfinite.repro_file import Repro, build_repro_model, read_repro
from dnl_d2.errors import UsageError


def replay(
    path: str,
    *,
    device: str = "cpu",
    double: bool = False,
    rows: int = 20,
    trust_config: bool = False,
) -> str:
    """Computes the step of a file once more.

    Args:
        path: see :func:`dnl_d2.engine.nonfinite.repro_file.write_repro`.
        device: to compute on.
        double: in float64, where what float32, bfloat16 or float16 cannot hold is finite.
        rows: of the table at most.
        trust_config: see :func:`dnl_d2.engine.nonfinite.repro_file.build_repro_model`.

    Returns:
        What the run found, and a table of what is not finite now.

    Raises:
        UsageError: the file cannot be read, or its model not be built or computed so.
    """
    repro = read_repro(path)
    model = build_repro_model(repro, device=device, trust_config=trust_config)
    batch = repro.batch
    if double:
        model, batch = model.double(), replace(batch, inputs=_double(batch.inputs), dtype=None)
    try:
        found = examine(model, batch)
    except Exception as error:  # a file of another's may hold any batch
        reason = " ".join(str(error).split())[:200]
        how = " in float64" if double else ""
        raise UsageError(f"{path}: cannot be computed{how} on {device}: {reason}") from error
    kind = torch.float64 if double else batch.dtype or torch.float32
    precision = str(kind).removeprefix("torch.")
    here = f"here, on {device} in {precision}:"
    return "\n".join([_heading(path, repro), here, _told(found, rows)])


def _heading(path: str, repro: Repro) -> str:
    pictures = f"\n  pictures  {repro.batch.files(10**6)}" if repro.batch.files() else ""
    return f"{os.path.basename(path)}: iteration {repro.batch.iteration}, {repro.reason}{pictures}"


def _told(found: Sequence[NonFinite], rows: int) -> str:
    cause = first_cause(found)
    if cause is None:
        return "  all is finite, the gradients too"
    lines = [("", "", "", "not finite", "of", "least", "greatest")]
    lines += [
        ("->" if f is cause else "", f.what, f"{f.name or '(the model)'} {f.kind}".rstrip(),
         str(f.count), str(f.size), f"{f.low:.4g}", f"{f.high:.4g}")
        for f in found[:rows]
    ]  # fmt: skip
    if len(found) > rows:
        lines.append(("", "", f"and {len(found) - rows} more", "", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 3  # columns of text
    aligned = [
        [*map(str.ljust, line[:left], widths), *map(str.rjust, line[left:], widths[left:])]
        for line in lines
    ]
    made = "made from finite numbers" if cause.made_here else "not finite before"
    table = "\n".join("  ".join(line).rstrip() for line in aligned)
    return f"{table}\n  ->  the first, {made}; least and greatest are those of the finite values"


def _double(value: Any) -> Any:
    """A batch with its floating-point tensors in float64, those in structures included."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _double(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_double(part) for part in value]
    if isinstance(value, Instances):
        return Instances(value.image_size, **_double(value.get_fields()))
    if isinstance(getattr(value, "tensor", None), torch.Tensor):
        changed = copy.copy(value)
        changed.tensor = _double(value.tensor)
        return changed
    return value
