"""Every COCO recipe trains: one step of its own optimiser on a narrow copy of its network."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from dnl_d2.engine import Trainer
from tests.configs.coco import LEAVES, NAME, yaml_config
from tests.engine.runs import as_yaml

NARROW = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
}
SIZE = (64, 96)


def narrow(name):
    width = 1 if "x101" in name else 8
    return yaml_config(name, *as_yaml(NARROW, MODEL__RESNETS__WIDTH_PER_GROUP=width))


def batch():
    """Two images of different sizes with one and no object."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for count, (height, width) in enumerate([(48, 96), SIZE]):
        target = Instances((height, width))
        target.gt_boxes = Boxes(torch.tensor([[5.0, 8.0, 50.0, 40.0]])[:count])
        target.gt_classes = torch.tensor([3])[:count]
        target.gt_masks = BitMasks(torch.ones(count, height, width, dtype=torch.bool))
        shape = (3, height, width)
        image = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        pictures.append({"image": image, "instances": target})
    return pictures


@pytest.mark.parametrize("name", LEAVES)
def test_a_step_changes_every_trained_part(name):
    torch.manual_seed(0)
    parts, cfg = NAME.fullmatch(name), narrow(name)
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.02, 1e-4, 0.9)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with EventStorage():
        losses = model(batch())
    assert all(torch.isfinite(loss) for loss in losses.values())
    stages = [f"_stage{k}" for k in range(3)] if parts["cascade"] else [""]
    heads = {f"loss_{kind}{k}" for kind in ("cls", "box_reg", "mask") for k in stages}
    assert set(losses) == heads | {"loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    optimizer.step()
    changed = {k for k, value in model.state_dict().items() if not torch.equal(value, before[k])}

    backbone = "backbone.bottom_up"
    assert not [key for key in changed if key.startswith((f"{backbone}.stem", f"{backbone}.res2"))]
    for stage in ("res3", "res4", "res5"):
        assert f"{backbone}.{stage}.1.conv2.weight" in changed
        assert f"{backbone}.{stage}.1.conv2.norm.weight" in changed
        statistics = f"{backbone}.{stage}.1.conv2.norm.running_mean" in changed
        assert statistics == (parts["norm"] == "syncbn")
        deformed = f"{backbone}.{stage}.1.conv2_offset.weight" in changed
        assert deformed == bool(parts["deform"])
    blocks = {key.partition(".context.")[0] for key in before if ".context." in key}
    assert blocks == {key.partition(".context.")[0] for key in changed if ".context." in key}
    assert bool(blocks) == bool(parts["block"])
    places = [f".{k}" for k in range(3)] if parts["cascade"] else [""]
    for head in ("box_predictor{}.cls_score", "box_predictor{}.bbox_pred", "mask_head{}.predictor"):
        for place in places:
            assert f"roi_heads.{head.format(place)}.weight" in changed
