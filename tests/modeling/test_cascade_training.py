"""The cascade's losses are MMDetection's (3.x; 1.x trains its cascades in the same way)."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from dnl_d2.checkpoint.convert import convert, fit_backbone
from dnl_d2.checkpoint.sources.mmdet import SOURCE
from dnl_d2_parity.references import mmdet as reference
from tests.checkpoint.detectors import GC_CASCADE, build

SIZE = (96, 128)
# Polygons, class and image: the second image has one object, the third none.
OBJECTS = [
    ([10.0, 12.0, 60.0, 15.0, 55.0, 70.0, 8.0, 60.0], 1, 0),
    ([70.0, 20.0, 120.0, 20.0, 120.0, 90.0, 75.0, 88.0], 3, 0),
    ([30.0, 30.0, 90.0, 34.0, 62.0, 80.0], 0, 1),
]
STRIDES = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def pair():
    """RoI heads of both, with the same weights."""
    config = reference.gc_cascade()
    reference.shrink(config)
    theirs = reference.build(config, seed=1)
    ours = build(SOURCE, GC_CASCADE, {"MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0})
    converted = convert(theirs.state_dict(), SOURCE)
    ours.load_state_dict(fit_backbone(converted.state, ours.state_dict()))
    return theirs.roi_head.train(), ours.roi_heads.train()


def polygons_of(image):
    return [(np.array(polygon), label) for polygon, label, of in OBJECTS if of == image]


def boxes_of(image):
    corners = [polygon.reshape(-1, 2) for polygon, _ in polygons_of(image)]
    rows = [[*points.min(0), *points.max(0)] for points in corners]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def labels_of(image):
    return torch.tensor([label for _, label in polygons_of(image)], dtype=torch.long)


def proposals_of(image):
    """Boxes around the objects and elsewhere, of every overlap."""
    generator = torch.Generator().manual_seed(image)
    near = [
        box + torch.randn(4, generator=generator) * s
        for box in boxes_of(image)
        for s in range(1, 9)
    ]
    corner = torch.rand(20, 2, generator=generator) * 60
    size = torch.rand(20, 2, generator=generator) * 30 + 4
    boxes = Boxes(torch.stack([*near, *torch.cat([corner, corner + size], 1)]))
    boxes.clip(SIZE)
    return boxes.tensor


def their_losses(head, features, images):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import PolygonMasks as TheirPolygons
    from mmengine.structures import InstanceData

    samples, results = [], []
    for image in images:
        sample = DetDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
        sample.gt_instances = InstanceData(
            bboxes=boxes_of(image),
            labels=labels_of(image),
            masks=TheirPolygons([[polygon] for polygon, _ in polygons_of(image)], *SIZE),
        )
        samples.append(sample)
        results.append(InstanceData(bboxes=proposals_of(image)))
    return head.loss(features, results, samples)


def our_losses(heads, features, images):
    targets, proposals = [], []
    for image in images:
        target = Instances(SIZE, gt_boxes=Boxes(boxes_of(image)), gt_classes=labels_of(image))
        target.gt_masks = PolygonMasks([[polygon] for polygon, _ in polygons_of(image)])
        targets.append(target)
        boxes = Boxes(proposals_of(image))
        logits = torch.zeros(len(boxes))
        proposals.append(Instances(SIZE, proposal_boxes=boxes, objectness_logits=logits))
    maps = {f"p{k}": f for k, f in enumerate(features, start=2)}
    padded = ImageList(torch.zeros(len(images), 3, *SIZE), [SIZE] * len(images))
    with EventStorage():
        return heads(padded, maps, proposals, targets)[1]


@pytest.mark.parametrize("images", [[0, 1], [2, 0]], ids=str)
def test_losses_and_their_gradients(pair, images):
    generator = torch.Generator().manual_seed(5)
    features = [
        torch.randn(len(images), 256, SIZE[0] // s, SIZE[1] // s, generator=generator)
        for s in STRIDES
    ]
    found, gradients = [], []
    for losses, head in zip((their_losses, our_losses), pair, strict=True):
        leaves = [f.clone().requires_grad_() for f in features]
        found.append(losses(head, tuple(leaves), images))
        total = sum(v for k, v in found[-1].items() if "loss" in k)
        gradients.append(torch.autograd.grad(total, leaves))
    names = {"cls": "loss_cls", "box_reg": "loss_bbox", "mask": "loss_mask"}
    theirs, ours = found
    assert len(ours) == 9
    for stage in range(3):
        for mine, other in names.items():
            loss = ours[f"loss_{mine}_stage{stage}"]
            wanted = theirs[f"s{stage}.{other}"].squeeze()
            torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-6)
            assert loss > 0
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
