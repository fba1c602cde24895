"""Whole models: every part by hand, totals against PyTorch's own counter."""

import json

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dnl_d2.analysis import Analysis, Regions, analyze, as_json, as_text
from dnl_d2.analysis.parts import Part, PartNames, count_parameters
from dnl_d2.errors import UsageError
from tests.modeling.configs import config

SIZE = (64, 96)
REGIONS = Regions(proposals=10, detections=4)
POSITIONS = {"p2": 16 * 24, "p3": 8 * 12, "p4": 4 * 6, "p5": 2 * 3, "p6": 1 * 2}
RESNET = {
    "DEPTH": 18,
    "RES2_OUT_CHANNELS": 8,
    "STEM_OUT_CHANNELS": 8,
    "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
}
GC = ["MODEL.RESNETS.CONTEXT.NAME", "gc", "MODEL.RESNETS.CONTEXT.RATIO", 0.25]
GC += ["MODEL.RESNETS.CONTEXT_STAGES.RES4", ["all"], "MODEL.RESNETS.CONTEXT_STAGES.RES5", [-1]]


def detector(*overrides, meta_architecture: str = "GeneralizedRCNN") -> nn.Module:
    """Mask R-CNN of 3 classes, all of whose widths are 8, with two layers in each head."""
    cfg = config("build_context_resnet_fpn_backbone", **RESNET)
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.MASK_ON = True
    cfg.merge_from_list(
        [
            *("MODEL.FPN.IN_FEATURES", RESNET["OUT_FEATURES"], "MODEL.FPN.OUT_CHANNELS", 8),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
            *("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 3),
            *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 2),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
            *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
            *("MODEL.ROI_MASK_HEAD.NUM_CONV", 2, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8),
            *overrides,
        ]
    )
    return built(cfg)


def built(cfg: CfgNode) -> nn.Module:
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


def analyzed(*overrides) -> Analysis:
    """The analysis of such a detector."""
    return analyze(detector(*overrides), SIZE, REGIONS)


def reference(module: nn.Module, *inputs) -> int:
    """Multiply-adds as PyTorch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


def multiply_adds(found, name: str, block: str = "") -> int:
    return found.operations[Part(name, block)].multiply_adds


def total(found) -> int:
    return sum(count.multiply_adds for count in found.operations.values())


def test_mask_rcnn_by_hand():
    model = detector()
    found = analyze(model, SIZE, REGIONS)
    lateral = sum(POSITIONS[f"p{n}"] * 8 * 2 ** (n - 2) * 8 for n in range(2, 6))
    output = sum(POSITIONS[f"p{n}"] * 8 * 8 * 9 for n in range(2, 6))
    assert multiply_adds(found, "backbone.fpn") == lateral + output
    of_rpn = sum(POSITIONS.values()) * (8 * 8 * 9 + 8 * 3 * (1 + 4))  # 3 shapes of anchors
    assert multiply_adds(found, "proposal_generator") == of_rpn
    assert multiply_adds(found, "roi_heads.box_head") == 10 * (8 * 49 * 16 + 16 * 16)
    assert multiply_adds(found, "roi_heads.box_predictor") == 10 * 16 * (4 + 3 * 4)
    convolutions, transposed, logits = 2 * 196 * 8 * 8 * 9, 196 * 8 * 8 * 4, 784 * 8 * 3
    assert multiply_adds(found, "roi_heads.mask_head") == 4 * (convolutions + transposed + logits)
    stem = 32 * 48 * 8 * 3 * 49
    assert multiply_adds(found, "backbone.stem") == stem
    backbone = sum(c.multiply_adds for p, c in found.operations.items() if "backbone" in p.name)
    image = torch.zeros(1, 3, *SIZE, device="meta")
    assert backbone == reference(model.backbone, image)
    assert "10 proposals" in found.notes and "4 detections with masks" in found.notes
    mask = found.operations[Part("roi_heads.mask_head")]
    assert mask.activations == 4 * (2 * 196 * 8 + 784 * 8 + 784 * 3)


def test_parameters_of_every_part():
    model = detector(*GC)
    found = analyze(model, SIZE, REGIONS)
    # C to 1, C to C / 4 and back with biases, weight and bias of the norm between them.
    of_block = {c: c + 1 + 2 * c * (c // 4) + c // 4 + c + 2 * (c // 4) for c in (32, 64)}
    assert found.parameters[Part("backbone.res4", "GlobalContextBlock")].total == 2 * of_block[32]
    assert found.parameters[Part("backbone.res5", "GlobalContextBlock")].total == of_block[64]
    assert found.parameters[Part("roi_heads.box_head")] == (8 * 49 * 16 + 16 + 16 * 16 + 16, 0, 0)
    assert sum(sum(p) for p in found.parameters.values()) == sum(
        p.numel() for p in model.parameters()
    )


def test_shared_parameters_count_once():
    model = nn.ModuleDict({"first": nn.Linear(3, 3), "second": nn.Linear(3, 3)})
    model["second"].weight = model["first"].weight
    found = count_parameters(model, PartNames(model))
    assert found == {Part("first"): (12, 0, 0), Part("second"): (3, 0, 0)}


def test_frozen_norms_count_as_the_parameters_they_were():
    trained = analyzed().parameters
    frozen = analyzed("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.BACKBONE.FREEZE_AT", 2).parameters
    totals = [{part: p.total for part, p in each.items()} for each in (frozen, trained)]
    assert totals[0] == totals[1]
    assert frozen[Part("backbone.stem")] == (0, 3 * 8 * 49, 2 * 8)
    assert frozen[Part("backbone.res2")] == (0, 4 * 8 * 8 * 9, 4 * 2 * 8)
    assert frozen[Part("backbone.res3")].frozen == 0
    assert trained[Part("backbone.stem")] == (3 * 8 * 49 + 2 * 8, 0, 0)


def test_blocks_have_a_line_of_their_own():
    plain, found = analyzed(), analyzed(*GC)
    in_backbone = [f"backbone.{name}" for name in ("stem", *RESNET["OUT_FEATURES"], "fpn")]
    of_heads = [f"roi_heads.{name}" for name in ("box_head", "box_predictor", "mask_head")]
    assert [p.name for p in plain.parts] == [*in_backbone, "proposal_generator", *of_heads]
    stage = found.parts.index(Part("backbone.res4"))
    assert found.parts[stage + 1] == Part("backbone.res4", "GlobalContextBlock")
    assert [p for p in found.parts if not p.block] == plain.parts
    assert all(found.operations[part] == plain.operations[part] for part in plain.parts)
    pooling, bottleneck = 2 * POSITIONS["p4"] * 32, 2 * 32 * 8
    in_res4 = multiply_adds(found, "backbone.res4", "GlobalContextBlock")
    assert in_res4 == 2 * (pooling + bottleneck)


def test_attention_without_a_map_is_counted():
    inserted = ["MODEL.RESNETS.CONTEXT.NAME", "nl", "MODEL.RESNETS.CONTEXT_STAGES.RES2", [-1]]
    found = analyze(detector(*inserted), (256, 384), REGIONS)
    positions = 64 * 96  # a map of 38 million logits
    expected = 4 * positions * 8 * 4 + 2 * positions**2 * 4
    assert multiply_adds(found, "backbone.res2", "NonLocalBlock") == expected


def test_cascade_has_three_stages():
    plain = analyzed()
    cascade = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads")
    found = analyzed(*cascade, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    box_head = "roi_heads.box_head"
    assert multiply_adds(found, box_head) == 3 * multiply_adds(plain, box_head)
    assert multiply_adds(found, "roi_heads.box_predictor") == 3 * 10 * 16 * (4 + 4)
    assert "10 proposals in each of 3 stages" in found.notes


def test_shared_stage_of_a_c4_model_runs_for_proposals_and_detections():
    cfg = config(**RESNET | {"OUT_FEATURES": ["res4"], "DEPTH": 50, "RES2_OUT_CHANNELS": 32})
    cfg.merge_from_list(
        [
            *("MODEL.MASK_ON", True, "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
            *("MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14),
            *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
        ]
    )
    model = built(cfg)
    found = analyze(model, SIZE, REGIONS)
    pooled = torch.zeros(10 + 4, 128, 14, 14, device="meta")
    assert multiply_adds(found, "roi_heads.res5") == reference(model.roi_heads.res5, pooled)
    assert multiply_adds(found, "roi_heads.mask_head") == 4 * (49 * 256 * 256 * 4 + 196 * 256 * 3)


def test_dense_and_segmentation_heads():
    plain = analyzed()
    panoptic = detector(
        *("MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
        meta_architecture="PanopticFPN",
    )
    found = analyze(panoptic, SIZE, REGIONS)
    features = {
        name: torch.zeros(1, 8, SIZE[0] // 2**n, SIZE[1] // 2**n, device="meta")
        for n, name in enumerate(POSITIONS, start=2)
    }
    of_head = reference(panoptic.sem_seg_head, features)
    assert multiply_adds(found, "sem_seg_head") == of_head > 0
    assert total(found) == total(plain) + of_head
    retinanet = detector(
        *("MODEL.RETINANET.IN_FEATURES", ["p2", "p3"], "MODEL.RETINANET.NUM_CLASSES", 3),
        *("MODEL.RETINANET.NUM_CONVS", 1, "MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16]]),
        meta_architecture="RetinaNet",
    )
    outputs = 8 * 9 * (2 * 8 + 3 * (3 + 4))  # two towers, three anchors, classes and corners
    expected = (POSITIONS["p2"] + POSITIONS["p3"]) * outputs
    assert multiply_adds(analyze(retinanet, SIZE), "head") == expected


def segmentor(**slide) -> nn.Module:
    cfg = config(**RESNET | {"OUTPUT_STRIDE": 8, "OUT_FEATURES": ["res4", "res5"]})
    cfg.MODEL.META_ARCHITECTURE = "ContextSegmentor"
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.IN_FEATURES, head.CONVS_DIM = "ContextHead", ["res5"], 16
    head.NUM_CLASSES, head.CONTEXT.NAME, head.NORM = 5, "gc", "BN"
    head.AUXILIARY.IN_FEATURES, head.AUXILIARY.CONVS_DIM = ["res4"], 8
    head.AUXILIARY.LOSS_WEIGHT = 0.4
    for key, value in slide.items():
        cfg.TEST.SLIDE[key] = value
    return built(cfg)


def test_segmentor():
    model = segmentor()
    found = analyze(model, (65, 97))
    assert found.padded == (65, 97)
    image = torch.zeros(1, 3, 65, 97, device="meta")
    assert total(found) == reference(lambda x: model.predict_whole(x), image)
    assert Part("sem_seg_head", "GlobalContextBlock") in found.parts
    assert "parameters that take no part in inference: sem_seg_head.auxiliary" in found.notes
    assert found.parameters[Part("sem_seg_head.auxiliary")].total == sum(
        p.numel() for p in model.sem_seg_head.auxiliary.parameters()
    )
    sliding = analyze(segmentor(WINDOW=[33, 49], STRIDE=[16, 16]), (65, 97))
    assert total(sliding) == total(found)
    assert any("--size 33 49" in note for note in sliding.notes)


def test_an_image_is_padded_as_the_model_pads_it():
    found, whole = (analyze(detector(), size, REGIONS) for size in ((60, 90), SIZE))
    assert (found.size, found.padded) == ((60, 90), SIZE)
    assert found.operations == whole.operations
    assert "60x90, padded to 64x96" in as_text(found)
    assert "padded" not in as_text(whole)


def test_the_model_is_left_as_it_was():
    model = detector(*GC)
    assert total(analyze(model, SIZE, REGIONS)) == total(analyze(model, SIZE, REGIONS))
    for module in model.modules():
        assert not (module._forward_hooks or module._forward_pre_hooks)
        assert not isinstance(module, ROIPooler) or "forward" not in vars(module)


def test_table_and_json_hold_the_same():
    found = analyzed(*GC)
    written = json.loads(as_json(found, config="x.yaml"))
    assert written["config"] == "x.yaml" and written["size"] == list(SIZE)
    for key in ("multiply_adds", "activations"):
        assert written["total"][key] == sum(part[key] for part in written["parts"])
    assert written["total"]["multiply_adds"] == total(found)
    for key, value in written["total"]["parameters"].items():
        assert value == sum(part["parameters"][key] for part in written["parts"])
    lines = as_text(found).splitlines()
    for part in written["parts"]:
        name = part["part"] + (f": {part['block']}" if part["block"] else "")
        (line,) = [x for x in lines if x.startswith(f"| {name} ")]
        assert f"{part['parameters']['trainable']:,}" in line
        assert f"{part['multiply_adds'] / 1e9:.3f}" in line
    assert written["notes"][0].startswith("one image or clip, in inference; 1 FLOP")
    assert written["notes"][-len(found.notes) :] == found.notes != []
    assert all(f"- {note}" in lines for note in written["notes"])


@pytest.mark.parametrize(
    "size, regions, message",
    [
        ((0, 96), REGIONS, "height must be 1 or more, got 0"),
        ((64, -3), REGIONS, "width must be 1 or more, got -3"),
        (SIZE, Regions(0, 4), "proposals must be 1 or more, got 0"),
        (SIZE, Regions(10, -1), "detections must be 1 or more, got -1"),
    ],
)
def test_numbers_out_of_range(size, regions, message):
    with pytest.raises(UsageError, match=message):
        analyze(detector(), size, regions)


def test_other_models():
    with pytest.raises(UsageError, match="Linear: a model to analyse has a backbone and one of"):
        analyze(nn.Linear(3, 3), SIZE)
    model = detector()
    model.roi_heads = nn.Identity()
    with pytest.raises(UsageError, match="roi_heads of class Identity: only StandardROIHeads"):
        analyze(model, SIZE)
    model = detector()
    model.backbone.bottom_up.stem.conv1 = nn.Conv2d(3, 8, 99, device="meta")
    with pytest.raises(UsageError, match="GeneralizedRCNN cannot be run on an image of 64x96: "):
        analyze(model, SIZE)


class ClipModel(nn.Module):
    """Reads clips of three frames or more."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0))
        self.classifier = nn.Linear(4, 5)

    def example_inputs(self, size):
        if len(size) != 3:
            raise UsageError("reads clips: name the frames too")
        return [{"clips": torch.zeros(1, 3, *size, device=self.conv.weight.device)}]

    def forward(self, inputs):
        return self.classifier(self.conv(inputs[0]["clips"]).mean((2, 3, 4)))


def test_a_model_with_inputs_of_its_own_is_run_whole():
    with torch.device("meta"):
        model = ClipModel()
    found = analyze(model, (6, 5, 4))
    assert multiply_adds(found, "conv") == 6 * 5 * 4 * 4 * 3 * 3
    assert multiply_adds(found, "classifier") == 4 * 5
    assert found.size == found.padded == (6, 5, 4)
    assert as_text(found).startswith("clip (frames x height x width): 6x5x4\n")
    assert json.loads(as_json(found))["size"] == [6, 5, 4]
    with pytest.raises(UsageError, match="name the frames too"):
        analyze(model, (5, 4))
    with pytest.raises(UsageError, match="frames must be 1 or more"):
        analyze(model, (0, 5, 4))
    model.classifier = nn.Linear(3, 5, device="meta")
    with pytest.raises(UsageError, match="ClipModel cannot be run on a clip of 6x5x4: "):
        analyze(model, (6, 5, 4))
    with pytest.raises(UsageError, match="reads images, not clips: leave the frames out"):
        analyze(detector(), (3, *SIZE))
