"""A detector as one graph, from a picture to boxes, scores, classes and masks."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.structures import Instances
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.export.formats.quiet import quiet
from dnl_d2.export.graph import EXAMPLE_SIZE, Graph
from dnl_d2.export.pictures import picture
from dnl_d2.export.segmentor import check_size

# Detectron2's fields in the order of the graph's outputs, and their names there.
_OUTPUTS = {
    "pred_boxes": "boxes",
    "scores": "scores",
    "pred_classes": "classes",
    "pred_masks": "masks",
    "pred_keypoints": "keypoints",
}


def detector_graph(
    model: nn.Module, *, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
) -> Graph:
    """The graph of one of Detectron2's detectors, to be traced.

    It takes one ``image`` ``(C, H, W)`` as the model's mapper gives it (0 to 255), and returns for
    its n objects ``boxes`` ``(n, 4)`` (left, top, right, bottom, in pixels of that image),
    ``scores`` ``(n,)``, the highest first, ``classes`` ``(n,)`` and, if the model has them,
    ``masks`` ``(n, 1, 28, 28)``, probabilities inside the box, and ``keypoints`` ``(n, P, 3)``.

    Args:
        model: in evaluation mode.
        size: (height, width) of every image; default any.
        dtype: of the image.

    Raises:
        UsageError: a model that predicts no instances, or a size that is none.
    """
    if size is not None:
        check_size(size)
    shape = tuple(size or EXAMPLE_SIZE)
    example = picture(shape).to(dtype).to(next(model.parameters()).device)
    with quiet(), torch.no_grad():
        found = _instances(model, [{"image": example}])
    fields = [name for name in _OUTPUTS if found.has(name)]

    def outputs(model: nn.Module, inputs: list[dict[str, Tensor]]) -> tuple[Tensor, ...]:
        instances = _instances(model, inputs)
        return tuple(_tensor(instances.get(name)) for name in fields)

    module = TracingAdapter(model, [{"image": example}], outputs).eval()
    axes = {} if size else {1: "height", 2: "width"}
    names = {_OUTPUTS[name]: {0: "objects"} for name in fields}
    return Graph("detection", module, example, "image", axes, names)


def _instances(model: nn.Module, inputs: list[dict[str, Tensor]]) -> Instances:
    if isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN):
        return model.inference(inputs, do_postprocess=False)[0]  # masks stay in their boxes
    (found,) = model(inputs)
    if {*found} != {"instances"}:
        raise UsageError(
            f"{type(model).__name__} predicts {', '.join(found)}: only a ContextSegmentor and "
            "detectors are exported"
        )
    return found["instances"]


def _tensor(field: Any) -> Tensor:
    return getattr(field, "tensor", field)  # of Boxes
