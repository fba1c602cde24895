"""Runs the parts of a model one after another, the heads for regions on stated numbers of them.

Which boxes there are depends on what the image shows, so decoding and suppressing them is left out.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from dnl_d2.analysis.counting import OperationCounter
from dnl_d2.errors import UsageError

# A module of Detectron2, which has attributes of more types than nn.Module declares.
_Model = Any


class Regions(NamedTuple):
    """How many boxes a detector's heads get, which depends on the image.

    Attributes:
        proposals: boxes that each stage of the box head classifies.
        detections: boxes that get a mask or keypoints.
    """

    proposals: int = 1000
    detections: int = 100


class _Run(NamedTuple):
    """What the functions for single parts share."""

    features: Mapping[str, Tensor]
    size: tuple[int, int]
    regions: Regions

    def boxes(self, number: int) -> Instances:
        device = next(iter(self.features.values())).device
        instances = Instances(self.size)
        instances.pred_boxes = Boxes(torch.zeros(number, 4, device=device))
        instances.pred_classes = torch.zeros(number, dtype=torch.long, device=device)
        return instances


def run_parts(
    model: _Model, counter: OperationCounter, size: tuple[int, int], regions: Regions
) -> tuple[tuple[int, ...], list[str]]:
    """Runs the backbone and the heads of a model, inside the counter's context.

    Args:
        model: in evaluation mode, with a backbone and some of the heads in ``HEADS``.
        counter: made for this model.
        size: (height, width) of the image.
        regions: how many the heads of a detector get.

    Returns:
        (height, width) with the padding that the model adds, and what was assumed.

    Raises:
        UsageError: heads for regions of an unknown class.
    """
    backbone = model.backbone
    image = torch.zeros(len(model.pixel_mean), *size, device=model.pixel_mean.device)
    batch = ImageList.from_tensors(
        [image],
        getattr(model, "size_divisibility", 0) or backbone.size_divisibility,
        padding_constraints=backbone.padding_constraints,
    )
    notes = []
    with counter, _any_regions(model):
        run = _Run(backbone(batch.tensor), size, regions)
        for name, count in HEADS.items():
            if getattr(model, name, None) is not None:
                notes += count(run, model)
    return tuple(batch.tensor.shape[-2:]), notes


def _proposals(run: _Run, model: _Model) -> list[str]:
    generator = model.proposal_generator
    if hasattr(generator, "rpn_head"):  # else boxes come with the data
        generator.rpn_head([run.features[f] for f in generator.in_features])
    return []


def _dense(run: _Run, model: _Model) -> list[str]:
    model.head([run.features[f] for f in model.head_in_features])
    return []


def _segmentation(run: _Run, model: _Model) -> list[str]:
    model.sem_seg_head(run.features)
    if not getattr(model, "slide_window", ()):
        return []
    height, width = model.slide_window
    return [
        f"the whole image in one pass; the model predicts in windows: --size {height} {width} "
        "counts one of them"
    ]


def _embedding(run: _Run, model: _Model) -> list[str]:
    model.ins_embed_head(run.features)
    return []


def _regions(run: _Run, model: _Model) -> list[str]:
    heads = model.roi_heads
    count = next((c for kind, c in _REGION_HEADS.items() if isinstance(heads, kind)), None)
    if count is None:
        raise UsageError(
            f"roi_heads of class {type(heads).__name__}: only "
            f"{' and '.join(kind.__name__ for kind in _REGION_HEADS)}, and what derives from them, "
            "can be counted"
        )
    count(run, heads)
    stages = getattr(heads, "num_cascade_stages", 1)
    notes = [f"{run.regions.proposals} proposals" + (f" in each of {stages} stages" * (stages > 1))]
    tasks = [task for task in ("mask", "keypoint") if getattr(heads, f"{task}_on", False)]
    return notes + [f"{run.regions.detections} detections with {task}s" for task in tasks]


def _standard_heads(run: _Run, heads: StandardROIHeads) -> None:
    proposals, detections = (run.boxes(number) for number in run.regions)
    pooled = _pooled(run, heads.box_pooler, heads.box_in_features, proposals)
    several = isinstance(heads.box_head, nn.ModuleList)  # a cascade
    stages = zip(heads.box_head, heads.box_predictor, strict=True) if several else None
    for head, predictor in stages or [(heads.box_head, heads.box_predictor)]:
        predictor(head(pooled))
    for task in ("mask", "keypoint"):
        if getattr(heads, f"{task}_on"):
            features = getattr(heads, f"{task}_in_features")
            pooler = getattr(heads, f"{task}_pooler")
            pooled = _pooled(run, pooler, features, detections)
            _predict(getattr(heads, f"{task}_head"), pooled, detections)


def _res5_heads(run: _Run, heads: Res5ROIHeads) -> None:
    proposals, detections = (run.boxes(number) for number in run.regions)
    features = heads.in_features
    pooled = heads.res5(_pooled(run, heads.pooler, features, proposals))
    heads.box_predictor(pooled.mean(dim=(2, 3)))
    if heads.mask_on:
        pooled = heads.res5(_pooled(run, heads.pooler, features, detections))
        _predict(heads.mask_head, pooled, detections)


def _pooled(
    run: _Run, pooler: nn.Module | None, in_features: list[str], boxes: Instances
) -> Tensor | dict[str, Tensor]:
    """What a head for regions reads; without a pooler the features themselves."""
    if pooler is None:
        return {name: run.features[name] for name in in_features}
    return pooler([run.features[name] for name in in_features], [boxes.pred_boxes])


def _predict(head: _Model, pooled: Tensor | dict[str, Tensor], boxes: Instances) -> None:
    if hasattr(head, "layers"):  # without turning heat maps into points, which looks at values
        head.layers(pooled)
    else:
        head(pooled, [boxes])


# By the attribute that a meta-architecture keeps the part in.
HEADS: dict[str, Callable[[_Run, _Model], list[str]]] = {
    "proposal_generator": _proposals,
    "roi_heads": _regions,
    "head": _dense,
    "sem_seg_head": _segmentation,
    "ins_embed_head": _embedding,
}
_REGION_HEADS: dict[type, Callable[[_Run, _Model], None]] = {
    StandardROIHeads: _standard_heads,
    Res5ROIHeads: _res5_heads,
}


@contextlib.contextmanager
def _any_regions(model: nn.Module) -> Iterator[None]:
    """Makes poolers return maps of the right shape without looking at the values of boxes."""
    poolers = [module for module in model.modules() if isinstance(module, ROIPooler)]
    for pooler in poolers:
        pooler.forward = partial(_region_maps, pooler.output_size)
    try:
        yield
    finally:
        for pooler in poolers:
            del pooler.forward


def _region_maps(size: tuple[int, int], features: list[Tensor], boxes: list[Boxes]) -> Tensor:
    return features[0].new_zeros(sum(map(len, boxes)), features[0].shape[1], *size)
