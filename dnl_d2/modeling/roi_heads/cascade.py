"""Cascade R-CNN as MMDetection runs it, which is where its published weights come from."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from torch import Tensor, nn


@ROI_HEADS_REGISTRY.register()
class MeanCascadeROIHeads(CascadeROIHeads):
    """Cascade whose final scores are the softmax of the stages' mean logits.

    Detectron2's own cascade averages the probabilities. Training is Detectron2's.
    """

    def _forward_box(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> dict[str, Tensor] | list[Instances]:
        if self.training:
            return super()._forward_box(features, proposals, targets)
        maps = [features[name] for name in self.box_in_features]
        sizes = [p.image_size for p in proposals]
        total, boxes = 0, None
        for stage, predictor in enumerate(self.box_predictor):
            if boxes is not None:
                proposals = self._create_proposals_from_boxes(boxes, sizes)
            logits, deltas = self._run_stage(maps, proposals, stage)
            boxes = predictor.predict_boxes((logits, deltas), proposals)
            total = total + logits
        scores = (total / self.num_cascade_stages).softmax(-1)
        instances, _ = fast_rcnn_inference(
            boxes,
            scores.split([len(p) for p in proposals]),
            sizes,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return instances


@ROI_MASK_HEAD_REGISTRY.register()
class MeanMaskHead(nn.ModuleList):
    """Several mask heads whose probabilities are averaged in testing, named ``0``, ``1``, ...

    In training every head sees the same RoIs, those that Detectron2's cascade hands to its one mask
    head (the first stage's), and the loss is the mean of theirs. MMDetection trains head k on the
    RoIs of stage k.

    Args:
        heads: complete mask heads. From a config: one ``MaskRCNNConvUpsampleHead`` for each stage
            of the cascade.
    """

    @configurable
    def __init__(self, heads: Sequence[BaseMaskRCNNHead]):
        super().__init__(heads)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec):
        stages = len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS)
        return {"heads": [MaskRCNNConvUpsampleHead(cfg, input_shape) for _ in range(stages)]}

    def forward(self, x: Tensor, instances: list[Instances]):
        """As any mask head of Detectron2: losses in training, else instances with masks."""
        if self.training:
            losses = [head(x, instances)["loss_mask"] for head in self]
            return {"loss_mask": torch.stack(losses).mean()}
        masks = []
        for head in self:
            head(x, instances)
            masks.append([i.pred_masks for i in instances])
        for of_image, *probabilities in zip(instances, *masks, strict=True):
            of_image.pred_masks = torch.stack(probabilities).mean(0)
        return instances
