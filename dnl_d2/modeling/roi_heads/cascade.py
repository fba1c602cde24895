"""Cascade R-CNN as MMDetection runs it, which is where its published weights come from."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead, MaskRCNNConvUpsampleHead
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from dnl_d2.errors import UsageError


@ROI_HEADS_REGISTRY.register()
class MeanCascadeROIHeads(CascadeROIHeads):
    """Cascade R-CNN that trains and tests as MMDetection's.

    Testing: the final scores are the softmax of the stages' mean logits (Detectron2's own cascade
    averages the probabilities). Training: every stage samples its RoIs anew, from the boxes of the
    stage before and the ground truth; a ``MeanMaskHead`` trains its head k on the RoIs of stage k;
    and losses are weighed by stage (Detectron2 samples once, trains the masks on the first stage's
    RoIs, adds up the losses and divides the gradients of features by the number of stages).

    Args:
        stage_loss_weights: factor of all losses of each stage.
        options: everything that ``CascadeROIHeads`` takes.

    Raises:
        UsageError: not one weight for each stage.
    """

    @configurable
    def __init__(self, *, stage_loss_weights: Sequence[float] = (1.0, 0.5, 0.25), **options: Any):
        super().__init__(**options)
        if len(stage_loss_weights) != self.num_cascade_stages:
            raise UsageError(
                f"MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS {list(stage_loss_weights)}: give "
                f"one weight for each of the {self.num_cascade_stages} stages"
            )
        self.stage_loss_weights = tuple(stage_loss_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS
        return {**super().from_config(cfg, input_shape), "stage_loss_weights": weights}

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """As any RoI heads of Detectron2: proposals and losses in training, else instances."""
        if not self.training:
            return super().forward(images, features, proposals, targets)
        losses: dict[str, Tensor] = {}
        for stage, weight in enumerate(self.stage_loss_weights):
            with get_event_storage().name_scope(f"stage{stage}"):
                of_stage, sampled, proposals = self._train_stage(
                    features, proposals, targets, stage
                )
            losses |= {f"{name}_stage{stage}": loss * weight for name, loss in of_stage.items()}
            if stage == 0:
                first = sampled
        return first, losses | self._forward_keypoint(features, first)

    def _train_stage(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None,
        stage: int,
    ) -> tuple[dict[str, Tensor], list[Instances], list[Instances]]:
        """Losses of a stage by name, its sample of the proposals, and those for the next stage."""
        self.proposal_matcher = self.proposal_matchers[stage]  # which the sampling reads
        sampled = self.label_and_sample_proposals(proposals, targets)
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in sampled])
        predictor = self.box_predictor[stage]
        predictions = predictor(self.box_head[stage](pooled))
        losses = predictor.losses(predictions, sampled)
        losses |= self._train_masks(features, sampled, stage)
        with torch.no_grad():
            boxes = predictor.predict_boxes(predictions, sampled)
        return losses, sampled, self._refined(sampled, boxes)

    def _train_masks(
        self, features: dict[str, Tensor], sampled: list[Instances], stage: int
    ) -> dict[str, Tensor]:
        if not (self.mask_on and isinstance(self.mask_head, MeanMaskHead)):
            return self._forward_mask(features, sampled)
        found, _ = select_foreground_proposals(sampled, self.num_classes)
        maps = [features[name] for name in self.mask_in_features]
        pooled = self.mask_pooler(maps, [p.proposal_boxes for p in found])
        return self.mask_head[stage](pooled, found)

    def _refined(self, sampled: list[Instances], boxes: list[Tensor]) -> list[Instances]:
        """The boxes predicted from a sample as proposals, without those from the ground truth."""
        kept = []
        for of_image, predicted in zip(sampled, boxes, strict=True):
            if of_image.has("gt_boxes"):  # ground truth was matched to itself
                moved = of_image.proposal_boxes.tensor != of_image.gt_boxes.tensor
                predicted = predicted[moved.any(1)]
            kept.append(predicted)
        refined = self._create_proposals_from_boxes(kept, [p.image_size for p in sampled])
        for of_image in refined:  # without objectness, ground truth cannot join them
            of_image.objectness_logits = of_image.proposal_boxes.tensor.new_zeros(len(of_image))
        return refined

    def _forward_box(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[Instances]:
        """The last stage's boxes with the mean scores; testing only."""
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

    ``MeanCascadeROIHeads`` trains head k on the RoIs of stage k, as MMDetection does. With other
    RoI heads of Detectron2 every head sees the same RoIs, and the loss is the mean of theirs.

    Args:
        heads: complete mask heads. From a config: one ``MaskRCNNConvUpsampleHead`` for each stage
            of the cascade.
    """

    @configurable
    def __init__(self, heads: Sequence[BaseMaskRCNNHead]):
        super().__init__(heads)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        stages = len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS)
        return {"heads": [MaskRCNNConvUpsampleHead(cfg, input_shape) for _ in range(stages)]}

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
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
