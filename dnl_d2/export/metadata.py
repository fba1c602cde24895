"""What goes along with an exported model, so that it can be used without this library."""

from typing import Any

import torch
from detectron2.data import transforms as T

import dnl_d2
from dnl_d2.data.resize import RandomResize
from dnl_d2.errors import UsageError
from dnl_d2.export.graph import Graph
from dnl_d2.prediction import Predictor
from dnl_d2.visualization import class_colors

_OUTPUTS = {
    "logits": "of every class at every pixel of the input; the class is that of the largest",
    "boxes": "left, top, right, bottom in pixels of the input",
    "scores": "0 to 1, the highest first",
    "classes": "numbers of classes",
    "masks": "probabilities inside the box, to be resized to it",
    "keypoints": "x, y in pixels of the input, score",
}


def describe(predictor: Predictor, graph: Graph) -> dict[str, Any]:
    """The metadata of an exported model; every value can be written as JSON.

    Returns:
        ``task``; ``classes`` (names) and ``colors`` (RGB); ``channel_order`` of the input (``RGB``
        or ``BGR``); ``resize``, see :func:`resize_rule`; ``align_corners``, how logits are resized
        back; ``input`` and ``outputs`` in words; ``made_by``.
    """
    classes = predictor.classes
    kind = "stuff_colors" if graph.task == "segmentation" else "thing_colors"
    return {
        "task": graph.task,
        "classes": classes,
        "colors": class_colors(len(classes), predictor.metadata.get(kind, None)),
        "channel_order": predictor.mapper.image_format,
        "resize": resize_rule(predictor.mapper),
        "align_corners": getattr(
            getattr(predictor.model, "sem_seg_head", None), "align_corners", False
        ),
        "input": f"{graph.input_name}: {input_shape(graph)}, 0 to 255, not normalised",
        "outputs": {name: _OUTPUTS[name] for name in graph.outputs},
        "made_by": f"dnl_d2 {dnl_d2.__version__}, PyTorch {torch.__version__}",
    }


def require_single_scale(predictor: Predictor) -> None:
    """Raises :class:`UsageError` if pictures are predicted at several scales."""
    if predictor.multi_scale:
        key = predictor.multi_scale.key
        raise UsageError(f"a graph predicts at one scale: switch {key} off")


def input_shape(graph: Graph) -> str:
    """Dtype and shape of the input, such as ``uint8 (number, 3, height, width)``."""
    sides = [graph.axes.get(axis, str(n)) for axis, n in enumerate(graph.example.shape)]
    return f"{str(graph.example.dtype).removeprefix('torch.')} ({', '.join(sides)})"


def resize_rule(mapper: Any) -> dict[str, Any]:
    """How the evaluation resizes pictures.

    Returns:
        ``{}``: not at all; ``{"fit": [long, short]}``: to the largest size that fits, bilinear;
        ``{"short": s, "long": l}``: the shorter side to s, but the longer one to l at most,
        bilinear with antialiasing.

    Raises:
        UsageError: the rule is another one.
    """
    rule: dict[str, Any] = {}
    for step in getattr(mapper.augmentations, "augs", [mapper.augmentations]):
        if isinstance(step, RandomResize) and step.ratio_range == (1.0, 1.0):
            rule = {"fit": list(step.base_size)} if step.base_size else {}
        elif isinstance(step, T.ResizeShortestEdge) and len({*step.short_edge_length}) == 1:
            short, long = step.short_edge_length[0], step.max_size
            rule = {"short": short, "long": min(long, 2**31)} if short else {}
        elif not isinstance(step, T.NoOpTransform):
            raise UsageError(
                f"the test resizes by {type(step).__name__}, which the metadata cannot tell: "
                "export the model itself (dnl_d2.export_segmentor)"
            )
    return rule
