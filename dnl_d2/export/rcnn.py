"""Faster and Mask R-CNN for torch.export, which cannot follow Detectron2's own inference.

The same networks and the same steps, but without questions to tensors whose size depends on the
picture, such as whether any box is left.
"""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.export.detector import detector_graph
from dnl_d2.export.graph import Graph
from dnl_d2.modeling.batches import padded_for


def rcnn_graph(
    model: nn.Module, *, size: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
) -> Graph:
    """As :func:`~dnl_d2.export.detector.detector_graph`, for torch.export.

    Raises:
        UsageError: as there, or a detector that is no Faster or Mask R-CNN of standard parts.
    """
    traced = detector_graph(model, size=size, dtype=dtype)
    if not _is_standard(model):
        raise UsageError(
            "torch-export holds detectors that are Faster or Mask R-CNN of Detectron2's standard "
            "RPN, StandardROIHeads and box predictor, without keypoints: use onnx or torchscript"
        )
    module = RCNNObjects(model, masks="masks" in traced.outputs).eval()
    return Graph("detection", module, traced.example, "image", traced.axes, traced.outputs)


def _is_standard(model: Any) -> bool:
    return (
        type(model) is GeneralizedRCNN
        and type(model.proposal_generator) is RPN
        and type(model.roi_heads) is StandardROIHeads
        and type(model.roi_heads.box_predictor) is FastRCNNOutputLayers
        and not model.roi_heads.keypoint_on
    )


class RCNNObjects(nn.Module):
    """The objects of one image.

    Args:
        model: in evaluation mode.
        masks: whether to return masks as well.
    """

    def __init__(self, model: GeneralizedRCNN, *, masks: bool):
        super().__init__()
        self.model = model
        self.masks = masks

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(C, H, W)`` -> boxes ``(n, 4)``, scores, classes ``(n,)``, masks ``(n, 1, M, M)``."""
        model, size = self.model, image.shape[-2:]
        normalised = (image - model.pixel_mean) / model.pixel_std
        features = model.backbone(padded_for(model.backbone, normalised[None]))
        boxes, scores, classes = self._objects(features, self._proposals(features, size), size)
        if not self.masks:
            return boxes, scores, classes
        return boxes, scores, classes, self._masks(features, boxes, classes)

    def _proposals(self, features: dict[str, Tensor], size: Sequence[int]) -> Tensor:
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        boxes, scores, levels = [], [], []
        outputs = zip(rpn.anchor_generator(maps), *rpn.rpn_head(maps), strict=True)
        for level, (anchors, logits, deltas) in enumerate(outputs):
            deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            logits = logits.permute(0, 2, 3, 1).flatten()
            best, index = logits.topk(torch.sym_min(length_of(logits), rpn.pre_nms_topk[False]))
            boxes.append(rpn.box2box_transform.apply_deltas(deltas[index], anchors.tensor[index]))
            scores.append(best)
            levels.append(torch.full_like(best, level))
        clipped = _clipped(torch.cat(boxes), size)
        least = rpn.min_box_size
        there = (clipped[:, 2:] - clipped[:, :2] > least).all(1)
        clipped, best, groups = clipped[there], torch.cat(scores)[there], torch.cat(levels)[there]
        return clipped[_nms(clipped, best, groups, rpn.nms_thresh)[: rpn.post_nms_topk[False]]]

    def _objects(
        self, features: dict[str, Tensor], proposals: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.model.roi_heads
        last = heads.box_predictor
        maps = [features[name] for name in heads.box_in_features]
        logits, deltas = last(heads.box_head(_pooled(heads.box_pooler, maps, proposals)))
        scores = logits.softmax(-1)[:, :-1]
        boxes = last.box2box_transform.apply_deltas(deltas, proposals)
        kinds = boxes.shape[1] // 4  # a box for each class, or one for all
        boxes = _clipped(boxes.reshape(-1, 4), size).reshape(-1, kinds, 4)
        rows, classes = (scores > last.test_score_thresh).nonzero().unbind(1)
        boxes = boxes[rows, classes if kinds > 1 else torch.zeros_like(classes)]
        scores = scores[rows, classes]
        keep = _nms(boxes, scores, classes, last.test_nms_thresh)[: last.test_topk_per_image]
        return boxes[keep], scores[keep], classes[keep]

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.mask_in_features]
        logits = heads.mask_head.layers(_pooled(heads.mask_pooler, maps, boxes))
        if logits.shape[1] > 1:  # a mask for each class
            logits = logits[torch.arange(length_of(logits), device=logits.device), classes][:, None]
        return logits.sigmoid()


def length_of(x: Tensor) -> int:
    """The length of the first axis, which ``len`` would make a number of this picture."""
    return x.shape[0]


def _clipped(boxes: Tensor, size: Sequence[int]) -> Tensor:
    height, width = (torch.full((), side, dtype=boxes.dtype, device=boxes.device) for side in size)
    limits = torch.stack([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def _nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that stay, the best first; boxes of two groups never overlap."""
    beyond = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    apart = boxes + (groups.to(boxes) * beyond)[:, None]
    return torch.ops.torchvision.nms(apart, scores, threshold)


def _pooled(pooler: ROIPooler, maps: list[Tensor], boxes: Tensor) -> Tensor:
    regions = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)  # all of picture 0
    if len(maps) == 1:
        return pooler.level_poolers[0](maps[0], regions)
    levels = assign_boxes_to_levels(
        [Boxes(boxes)],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
    out = maps[0].new_zeros(length_of(boxes), maps[0].shape[1], *pooler.output_size)
    for level, (features, pool) in enumerate(zip(maps, pooler.level_poolers, strict=True)):
        index = (levels == level).nonzero()[:, 0]
        out = out.index_put((index,), pool(features, regions[index]))
    return out
