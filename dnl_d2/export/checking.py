"""Is what was exported the model? Its results beside the model's, at sizes of no pattern."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.export.graph import Graph
from dnl_d2.export.pictures import picture

Run = Callable[[Tensor], tuple[Tensor, ...]]
# (number of pictures, height, width): none is a multiple of a stride, or traced.
_SHAPES = ((1, 253, 187), (3, 131, 217), (2, 319, 241))
# Largest difference of values that span 1, by rounding in another order.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """The results of a file beside those of the model.

    Args:
        shapes: of the inputs.
        largest: difference of logits, or of scores, boxes (pixels) and what else there is.
        scale: the largest of the model's own logits; 1 for detectors.
        compared: pixels or objects.
        different: pixels of another class, or objects without a counterpart.
    """

    shapes: Sequence[tuple[int, ...]]
    largest: dict[str, float]
    scale: float
    compared: int
    different: int
    task: str

    def __str__(self) -> str:
        if not self.compared:
            return f"inputs {self._sizes}: the model found no object, there was nothing to compare"
        what = "labels" if self.task == "segmentation" else "objects"
        values = ", ".join(f"{value:.1e} of {name}" for name, value in self.largest.items())
        return (
            f"inputs {self._sizes}: largest difference {values or 'none'}; {self.different} of "
            f"{self.compared} {what} differ"
        )

    @property
    def _sizes(self) -> str:
        return ", ".join("x".join(map(str, shape)) for shape in self.shapes)


def inputs(graph: Graph, shapes: Sequence[tuple[int, ...]] = _SHAPES) -> list[Tensor]:
    """Drawn pictures of the sizes that a graph takes."""
    dtype, device = graph.example.dtype, graph.example.device
    batched = graph.example.dim() == 4
    made = []
    for seed, (number, *size) in enumerate(shapes, start=1):
        size = size if "height" in graph.axes.values() else list(graph.example.shape[-2:])
        number = number if 0 in graph.axes or not batched else 1
        pictures = [picture(size, 10 * seed + n) for n in range(number if batched else 1)]
        made.append((torch.stack(pictures) if batched else pictures[0]).to(dtype).to(device))
    distinct = {tuple(images.shape): images for images in made}
    return list(distinct.values())


def compare(graph: Graph, run: Run, images: Sequence[Tensor]) -> Comparison:
    """The results of ``run`` beside those of the graph's own module.

    Raises:
        UsageError: ``run`` does not take one of the inputs, or its results are others by more than
            rounding: it is not the model.
    """
    judge = _segmentation if graph.task == "segmentation" else _detection
    parts = [judge(graph, graph(x), _result(run, x), tuple(x.shape)) for x in images]
    largest: dict[str, float] = {}
    for part in parts:
        for name, value in part.largest.items():
            largest[name] = max(value, largest.get(name, 0.0))
    return Comparison(
        [shape for part in parts for shape in part.shapes],
        largest,
        max(part.scale for part in parts),
        sum(part.compared for part in parts),
        sum(part.different for part in parts),
        graph.task,
    )


def _result(run: Run, images: Tensor) -> tuple[Tensor, ...]:
    try:
        return tuple(output.cpu() for output in run(images))
    except Exception as error:  # of any runtime
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the exported model does not take an input of {tuple(images.shape)}: {reason}"
        ) from error


def _segmentation(
    graph: Graph, expected: tuple[Tensor, ...], found: tuple[Tensor, ...], shape: tuple[int, ...]
) -> Comparison:
    (wanted,), (logits,) = (tuple(t.cpu().float() for t in side) for side in (expected, found))
    if wanted.shape != logits.shape:
        raise _Other(f"logits of {tuple(logits.shape)} in place of {tuple(wanted.shape)}")
    largest, scale = (wanted - logits).abs().max().item(), wanted.abs().max().item()
    if not largest <= _TOLERANCE * scale:  # also for NaN
        raise _Other(f"logits differ by {largest:.2g}, where the largest is {scale:.2g}")
    different = (wanted.argmax(1) != logits.argmax(1)).sum().item()  # ties, then
    pixels = wanted[:, 0].numel()
    return Comparison([shape], {"logits": largest}, scale, pixels, int(different), graph.task)


def _detection(
    graph: Graph, expected: tuple[Tensor, ...], found: tuple[Tensor, ...], shape: tuple[int, ...]
) -> Comparison:
    names = list(graph.outputs)
    wanted, others = (
        dict(zip(names, (t.cpu().float() for t in side), strict=True)) for side in (expected, found)
    )
    pairs = _counterparts(wanted, others)
    count = max(len(wanted["scores"]), len(others["scores"]))
    unmatched = count - len(pairs)
    if unmatched and not _tied_at_the_limit(wanted["scores"], others["scores"], pairs):
        raise _Other(f"{unmatched} of {count} objects have no counterpart")
    largest = {
        name: (wanted[name][[i for i, _ in pairs]] - others[name][[j for _, j in pairs]])
        .abs().max().item()
        for name in names if pairs and name != "classes"
    }  # fmt: skip
    limits = {"boxes": _TOLERANCE * max(shape[-2:]), "keypoints": _TOLERANCE * max(shape[-2:])}
    for name, value in largest.items():
        if not value <= limits.get(name, 10 * _TOLERANCE):
            raise _Other(f"{name} differ by {value:.2g}")
    return Comparison([shape], largest, 1.0, count, unmatched, graph.task)


def _counterparts(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[tuple[int, int]]:
    """Pairs of objects of one class, score and box."""
    pairs, free = [], set(range(len(found["scores"])))
    for i in range(len(wanted["scores"])):
        apart = (found["boxes"] - wanted["boxes"][i]).abs().amax(1)
        apart = apart + 1e3 * (found["scores"] - wanted["scores"][i]).abs()
        near = [
            j for j in apart.argsort().tolist()[:20]
            if j in free and apart[j] < 1 and found["classes"][j] == wanted["classes"][i]
        ]  # fmt: skip
        if near:
            pairs.append((i, near[0]))
            free.discard(near[0])
    return pairs


def _tied_at_the_limit(wanted: Tensor, found: Tensor, pairs: list[tuple[int, int]]) -> bool:
    """Whether objects without a counterpart are the last of as many as are allowed.

    It is left to rounding which of several objects of one score these are. Most objects must have a
    counterpart nevertheless: otherwise nothing was compared.

    Args:
        wanted, found: scores.
        pairs: of their indices.
    """
    if len(wanted) != len(found) or 2 * len(pairs) < len(wanted):
        return False
    for scores, paired in zip((wanted, found), zip(*pairs, strict=True), strict=True):
        alone = [index for index in range(len(scores)) if index not in paired]
        if not (scores[alone] - scores.min() < _TOLERANCE).all():
            return False
    return True


class _Other(UsageError):
    """The exported model is not the model."""

    def __init__(self, reason: str):
        super().__init__(
            f"the exported model is not the model: {reason}; nothing was written. Another format "
            "may do, or another version of PyTorch"
        )
