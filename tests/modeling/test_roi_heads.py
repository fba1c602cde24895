"""Cascades that are trained and averaged as by MMDetection.

Their detections: tests/checkpoint/test_mmdet.py; their losses: test_cascade_training.py.
"""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_roi_heads
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

import dnl_d2.modeling.roi_heads  # noqa: F401
from dnl_d2.errors import UsageError
from tests.modeling.configs import defaults

_SHAPES = {"p2": ShapeSpec(channels=8, stride=4), "p3": ShapeSpec(channels=8, stride=8)}


_KEYS = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NAME": "MeanCascadeROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": list(_SHAPES),
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 1.0,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NAME": "MeanMaskHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
}


@pytest.fixture
def heads():
    torch.manual_seed(0)
    heads = build_roi_heads(defaults(_KEYS), _SHAPES)
    for name, parameter in heads.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if "bbox_pred" in name:  # boxes keep still: every stage then sees the same ones
            torch.nn.init.zeros_(parameter)
    return heads


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {"p2": torch.randn(1, 8, 16, 16), "p3": torch.randn(1, 8, 8, 8)}


def _proposals():
    boxes = Boxes(torch.tensor([[2.0, 3.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]]))
    return [Instances((64, 64), proposal_boxes=boxes, objectness_logits=torch.zeros(2))]


def test_names(heads):
    names = {name.partition(".")[2].split(".")[0] for name, _ in heads.mask_head.named_parameters()}
    assert names == {"mask_fcn1", "deconv", "predictor"}
    assert [name for name, _ in heads.mask_head.named_children()] == ["0", "1", "2"]


def test_scores_are_the_softmax_of_mean_logits(heads, features):
    heads.eval()
    with torch.no_grad():
        found, _ = heads(None, features, _proposals())
        pooled = heads.box_pooler(list(features.values()), [_proposals()[0].proposal_boxes])
        logits = [p(h(pooled))[0] for h, p in zip(heads.box_head, heads.box_predictor, strict=True)]
        wanted = (sum(logits) / 3).softmax(1)[:, :3].flatten().sort(descending=True).values
        torch.testing.assert_close(found[0].scores, wanted)
        others = CascadeROIHeads._forward_box(heads, features, _proposals())[0].scores
        assert (others - wanted).abs().max() > 0.01

        pooled = heads.mask_pooler(list(features.values()), [found[0].pred_boxes])
        masks = [head.layers(pooled).sigmoid() for head in heads.mask_head]
        of_class = (sum(masks) / 3)[torch.arange(len(found[0])), found[0].pred_classes]
        torch.testing.assert_close(found[0].pred_masks[:, 0], of_class)


def _target(objects=1):
    """A picture's ground truth: one object, or none."""
    return Instances(
        (64, 64),
        gt_boxes=Boxes(torch.tensor([[2.0, 4.0, 30.0, 41.0]])),
        gt_classes=torch.tensor([1]),
        gt_masks=BitMasks(torch.ones(1, 64, 64, dtype=torch.bool)),
    )[:objects]


def _train(heads, features, targets):
    images = ImageList(torch.zeros(len(targets), 3, 64, 64), [(64, 64)] * len(targets))
    proposals = [p for _ in targets for p in _proposals()]
    with EventStorage():
        return heads.train()(images, features, proposals, targets)


def test_training_reaches_every_head(heads, features):
    sampled, losses = _train(heads, features, [_target()])
    assert len(sampled[0]) == 3  # the ground truth is among them
    kinds = ("cls", "box_reg", "mask")
    assert losses.keys() == {f"loss_{kind}_stage{k}" for kind in kinds for k in range(3)}
    sum(losses.values()).backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        # The class predictors' weights see all, whatever the boxes are.
        if name.endswith(("cls_score.weight", "predictor.weight", "bbox_pred.weight")):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("objects", [[0], [0, 0]], ids=str)
def test_images_without_objects_train(heads, features, objects):
    maps = {name: torch.cat([f] * len(objects)) for name, f in features.items()}
    _, losses = _train(heads, maps, [_target(n) for n in objects])
    total = sum(losses.values())
    assert torch.isfinite(total) and total > 0
    total.backward()
    assert all(losses[f"loss_mask_stage{k}"] == 0 for k in range(3))


def test_stages_weigh_as_told(heads, features):
    _, whole = _train(heads, features, [_target()])
    heads.stage_loss_weights = (1.0, 1.0, 1.0)
    _, equal = _train(heads, features, [_target()])
    for name, loss in whole.items():
        weight = (1.0, 0.5, 0.25)[int(name[-1])]
        torch.testing.assert_close(loss, equal[name] * weight)


def test_one_mask_head_learns_from_every_stage(heads, features):
    heads.mask_head = heads.mask_head[0]
    _, losses = _train(heads, features, [_target()])
    sum(loss for name, loss in losses.items() if "mask" in name).backward()
    assert all(p.grad.abs().sum() > 0 for p in heads.mask_head.parameters())


def test_a_mask_head_that_pools_by_itself_trains(heads, features):
    class Pools(nn.Module):
        def forward(self, maps, instances):
            assert set(maps) == set(features) and all(i.has("gt_masks") for i in instances)
            return {"loss_mask": maps["p2"].mean()}

    heads.mask_pooler, heads.mask_head = None, Pools()
    _, losses = _train(heads, features, [_target()])
    torch.testing.assert_close(losses["loss_mask_stage1"], features["p2"].mean() / 2)


def test_keypoints_learn_from_the_first_stage(heads, features):
    heads.keypoint_on = True
    heads._forward_keypoint = lambda maps, sampled: {"loss_keypoint": torch.tensor(len(sampled[0]))}
    sampled, losses = _train(heads, features, [_target()])
    assert losses["loss_keypoint"] == len(sampled[0])


def test_a_weight_for_each_stage_is_needed():
    cfg = defaults(_KEYS | {"MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS": [1.0, 0.5]})
    with pytest.raises(UsageError, match=r"STAGE_LOSS_WEIGHTS \[1\.0, 0\.5\]: .* the 3 stages"):
        build_roi_heads(cfg, _SHAPES)


def test_mask_loss_is_the_mean_of_the_heads(heads):
    x = torch.randn(1, 8, 14, 14)
    instances = Instances((64, 64), proposal_boxes=Boxes(torch.tensor([[2.0, 3.0, 30.0, 40.0]])))
    instances.gt_classes = torch.tensor([2])
    instances.gt_masks = BitMasks(torch.rand(1, 64, 64) > 0.5)
    with EventStorage():
        found = heads.mask_head.train()(x, [instances])
        alone = [head(x, [instances])["loss_mask"] for head in heads.mask_head]
    assert found.keys() == {"loss_mask"}
    torch.testing.assert_close(found["loss_mask"], sum(alone) / 3)
