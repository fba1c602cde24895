"""An analysis as a table and as JSON."""

import json
from typing import Any

from tabulate import tabulate

from dnl_d2.analysis.counting import Count
from dnl_d2.analysis.measure import Analysis, by_x
from dnl_d2.analysis.parts import Parameters, Part

# Of every count; what depends on the model is in Analysis.notes.
RULES = (
    "one image or clip, in inference; 1 FLOP is one multiply-add",
    "counted: convolutions (deformable ones without their interpolated samples), transposed "
    "convolutions, linear layers and products of matrices, both of attention among them, in the "
    "order in which they are computed",
    "activations: numbers in the results of these, the attention map included even if it is "
    "never held",
    "not counted: norms, activation functions, softmax, sums, pooling, resizing, RoIAlign, boxes "
    "(decoding, suppression)",
    "norm buffers: weights and biases of frozen batch norms, which published totals count as "
    "parameters",
)
_HEADERS = ("part", "trainable", "frozen", "norm buffers", "GFLOPs", "activations (M)")


def as_text(analysis: Analysis) -> str:
    """The table of parts, the totals, and under it what was assumed."""
    rows = [
        _row(_label(part), analysis.parameters.get(part), analysis.operations.get(part))
        for part in analysis.parts
    ]
    parameters, operations = _totals(analysis)
    rows.append(_row("total", parameters, operations))
    table = tabulate(rows, _HEADERS, tablefmt="github", disable_numparse=True, colalign=_ALIGN)
    size, padded = map(by_x, (analysis.size, analysis.padded))
    if padded != size:
        size += f", padded to {padded}"
    what = "image (height x width)" if len(analysis.size) == 2 else "clip (frames x height x width)"
    lines = [
        f"{what}: {size}",
        "",
        table,
        "",
        f"{parameters.total / 1e6:.2f} M parameters, {operations.multiply_adds / 1e9:.1f} GFLOPs, "
        f"{operations.activations / 1e6:.1f} M activations",
        "",
        *(f"- {note}" for note in (*RULES, *analysis.notes)),
    ]
    return "\n".join(lines)


_ALIGN = ("left", *["right"] * (len(_HEADERS) - 1))


def as_json(analysis: Analysis, **more: Any) -> str:
    """The same with all digits.

    Args:
        analysis: what to write.
        more: further entries of the top level, such as the config file.
    """
    parts = [
        {"part": part.name, "block": part.block or None}
        | _entry(analysis.parameters.get(part), analysis.operations.get(part))
        for part in analysis.parts
    ]
    found = {
        **more,
        "size": list(analysis.size),
        "padded_size": list(analysis.padded),
        "total": _entry(*_totals(analysis)),
        "parts": parts,
        "notes": [*RULES, *analysis.notes],
    }
    return json.dumps(found, indent=2) + "\n"


def _totals(analysis: Analysis) -> tuple[Parameters, Count]:
    columns = zip(*analysis.parameters.values(), strict=True)
    parameters = Parameters(*map(sum, columns))
    return parameters, sum(analysis.operations.values(), Count())


def _entry(parameters: Parameters | None, count: Count | None) -> dict[str, Any]:
    parameters = parameters or Parameters()
    return {
        "parameters": parameters._asdict() | {"total": parameters.total},
        **(count or Count())._asdict(),
    }


def _label(part: Part) -> str:
    return f"{part.name}: {part.block}" if part.block else part.name


def _row(label: str, parameters: Parameters | None, count: Count | None) -> list[str]:
    count = count or Count()
    numbers = (f"{number:,}" for number in parameters or Parameters())
    return [label, *numbers, f"{count.multiply_adds / 1e9:.3f}", f"{count.activations / 1e6:.2f}"]
