# ruff: noqa: SIM300 (config keys in capitals are no constants)
"""COCO recipes against MMDetection's configs (3.x) of the same rows."""

import copy
import functools
import importlib.util
import pathlib

import pytest
import torch
from torch import nn

from dnl_d2.checkpoint.convert import convert, fit_backbone
from dnl_d2.checkpoint.sources import mmdet as source
from dnl_d2.layers import FixedBatchNorm2d
from tests.configs.coco import LEAVES, NAME, meta_model, yaml_config
from tests.configs.networks import geometry, shapes


def reference_file(name):
    """MMDetection's config file of a row, or None where it has none."""
    parts = NAME.fullmatch(name)
    if parts["conv_head"] or parts["where"] not in (None, "c3-c5"):
        return None
    block = "-" + parts["block"].removeprefix("gc_") if parts["block"] else ""
    if block:
        block = f"{block}-gcb-c3-c5" if parts["cascade"] else f"-gcb{block}-c3-c5"
    plain = not block and parts["norm"] == "fixbn"
    file = (
        f"{'mask_rcnn' if plain else 'gcnet'}/{'cascade-' if parts['cascade'] else ''}mask-rcnn_"
        f"{parts['backbone']}{'-syncbn' if parts['norm'] == 'syncbn' else ''}"
        f"{'-dconv-c3-c5' if parts['deform'] else ''}{block}_fpn_{parts['schedule']}x_coco.py"
    )
    spec = importlib.util.find_spec("mmdet")
    path = pathlib.Path(spec.submodule_search_locations[0]) / ".mim" / "configs" / file
    return path if path.is_file() else None


WITH_REFERENCE = [name for name in LEAVES if reference_file(name)]


@functools.cache
def reference(name):
    """MMDetection's config of a row, for all tests: not to be changed."""
    from mmengine import Config

    return Config.fromfile(str(reference_file(name)))


def build_theirs(config):
    from dnl_d2_parity.references.mmdet import MODELS, DefaultScope

    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    model.backbone.norm_cfg.type = "BN"
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        return MODELS.build(model)


def test_enough_rows_have_a_reference():
    assert len(WITH_REFERENCE) == 22


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_parameters_and_layers_are_the_reference_frameworks(name):
    theirs, ours = build_theirs(reference(name)), meta_model(name)
    state = theirs.state_dict(keep_vars=True)
    public = {id(value): key for key, value in state.items()}
    converted = convert(state, source.SOURCE)
    assert not converted.unexpected and not converted.dropped
    state = fit_backbone(converted.state, ours.state_dict())

    assert shapes(state) == shapes(ours.state_dict())
    trained = {key for key, value in state.items() if value.requires_grad}
    assert {key for key, p in ours.named_parameters() if p.requires_grad} == trained
    assert not any(
        key.startswith(("backbone.bottom_up.stem", "backbone.bottom_up.res2")) for key in trained
    )
    modules = dict(theirs.named_modules())
    norm = {"fixbn": FixedBatchNorm2d, "syncbn": nn.BatchNorm2d}[NAME.fullmatch(name)["norm"]]
    compared = norms = 0
    for key, module in ours.named_modules():
        if f"{key}.weight" not in state:
            continue
        other = modules[public[id(state[f"{key}.weight"])].rpartition(".")[0]]
        if hasattr(module, "kernel_size"):
            assert geometry(module) == geometry(other), key
            compared += 1
        elif isinstance(other, nn.BatchNorm2d):
            assert module.eps == other.eps, key
            if f"{key}.weight" in trained:
                assert isinstance(module, norm | nn.SyncBatchNorm), key
                assert module.momentum == other.momentum, key
                norms += 1
    assert compared > 60 and norms > 40


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_blocks_and_norms_are_the_reference_frameworks(name):
    parts, cfg = NAME.fullmatch(name), yaml_config(name)
    backbone = reference(name).model.backbone
    assert cfg.MODEL.BACKBONE.FREEZE_AT == backbone.frozen_stages + 1
    assert backbone.style == "pytorch" and not cfg.MODEL.RESNETS.STRIDE_IN_1X1
    assert backbone.norm_cfg.requires_grad
    kind, fixed = backbone.norm_cfg.type, backbone.norm_eval
    assert (kind, fixed) == {"fixBN": ("BN", True), "SyncBN": ("SyncBN", False)}[
        cfg.MODEL.RESNETS.NORM
    ]
    deform = backbone.get("stage_with_dcn", (False,) * 4)
    assert tuple(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE) == deform
    assert not any(deform) or backbone.dcn == {
        "type": "DCN",
        "deform_groups": cfg.MODEL.RESNETS.DEFORM_NUM_GROUPS,
        "fallback_on_stride": False,
    }
    if not parts["block"]:
        assert "plugins" not in backbone
        return
    (plugin,) = backbone.plugins
    assert plugin.cfg == {"type": "ContextBlock", "ratio": cfg.MODEL.RESNETS.CONTEXT.RATIO}
    assert plugin.position == cfg.MODEL.RESNETS.CONTEXT_POSITION
    stages = [bool(cfg.MODEL.RESNETS.CONTEXT_STAGES[f"RES{k}"]) for k in (2, 3, 4, 5)]
    assert tuple(stages) == plugin.stages


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_the_recipe_is_the_reference_frameworks(name):
    """Where MMDetection 3.x agrees with 1.x, with which the rows were trained."""
    theirs, cfg = reference(name), yaml_config(name)
    model, solver, train = theirs.model, cfg.SOLVER, theirs.model.train_cfg
    cascade = bool(NAME.fullmatch(name)["cascade"])
    # The optimiser and its schedule.
    assert theirs.optim_wrapper.optimizer == {
        "type": "SGD",
        "lr": solver.BASE_LR,
        "momentum": solver.MOMENTUM,
        "weight_decay": solver.WEIGHT_DECAY,
    }
    assert solver.WEIGHT_DECAY_NORM == solver.WEIGHT_DECAY and solver.GAMMA == 0.1
    warmup, steps = theirs.param_scheduler
    assert (warmup.type, warmup.begin, warmup.end) == ("LinearLR", 0, solver.WARMUP_ITERS)
    assert (steps.type, steps.gamma, steps.end) == ("MultiStepLR", 0.1, theirs.train_cfg.max_epochs)
    assert solver.MAX_ITER == 7500 * steps.end
    # Detectron2's 1x steps down at 8 and 10 2/3 of 12 epochs, theirs at 8 and 11.
    assert [step / 7500 for step in solver.STEPS] == [
        steps.milestones[0],
        pytest.approx(steps.milestones[1], rel=0.031),
    ]
    assert theirs.auto_scale_lr.base_batch_size == solver.IMS_PER_BATCH
    # Images.
    transforms = {step.type: step for step in theirs.train_pipeline}
    assert transforms["Resize"].scale == (cfg.INPUT.MAX_SIZE_TRAIN, *cfg.INPUT.MIN_SIZE_TRAIN)
    assert transforms["Resize"].scale == (cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST)
    assert transforms["RandomFlip"].prob == 0.5 and cfg.INPUT.RANDOM_FLIP == "horizontal"
    assert model.data_preprocessor.mean == list(cfg.MODEL.PIXEL_MEAN)
    assert model.data_preprocessor.std == list(cfg.MODEL.PIXEL_STD)
    assert model.data_preprocessor.bgr_to_rgb and cfg.INPUT.FORMAT == "RGB"
    loader = theirs.train_dataloader
    assert loader.dataset.filter_cfg.filter_empty_gt == cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert loader.batch_sampler.type.startswith("AspectRatio")
    assert cfg.DATALOADER.ASPECT_RATIO_GROUPING
    # Proposals.
    rpn, ours = train.rpn, cfg.MODEL.RPN
    assert (rpn.assigner.neg_iou_thr, rpn.assigner.pos_iou_thr) == tuple(ours.IOU_THRESHOLDS)
    assert rpn.sampler.num == ours.BATCH_SIZE_PER_IMAGE
    assert rpn.sampler.pos_fraction == ours.POSITIVE_FRACTION
    assert train.rpn_proposal.nms_pre == ours.PRE_NMS_TOPK_TRAIN
    assert train.rpn_proposal.nms.iou_threshold == ours.NMS_THRESH
    assert model.test_cfg.rpn.nms_pre == ours.PRE_NMS_TOPK_TEST
    assert model.test_cfg.rpn.max_per_img == ours.POST_NMS_TOPK_TEST
    generator = model.rpn_head.anchor_generator
    sizes = [[8 * stride] for stride in generator.strides]
    assert generator.scales == [8] and list(cfg.MODEL.ANCHOR_GENERATOR.SIZES) == sizes
    assert [generator.ratios] == list(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS)
    # Heads.
    heads, stages = cfg.MODEL.ROI_HEADS, train.rcnn if cascade else [train.rcnn]
    for stage in stages:
        assert stage.sampler.num == heads.BATCH_SIZE_PER_IMAGE
        assert stage.sampler.pos_fraction == heads.POSITIVE_FRACTION
        assert stage.sampler.add_gt_as_proposals == heads.PROPOSAL_APPEND_GT
    overlaps = cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS if cascade else heads.IOU_THRESHOLDS
    assert [stage.assigner.pos_iou_thr for stage in stages] == list(overlaps)
    assert [stage.assigner.neg_iou_thr for stage in stages] == list(overlaps)
    if cascade:
        weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS
        assert model.roi_head.stage_loss_weights == list(weights)
    test = model.test_cfg.rcnn
    assert test.score_thr == heads.SCORE_THRESH_TEST
    assert test.nms.iou_threshold == heads.NMS_THRESH_TEST
    assert test.max_per_img == cfg.TEST.DETECTIONS_PER_IMAGE


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_where_the_reference_framework_has_changed(name):
    """What 1.x and 3.x do differently, all of it: ours is 1.x (configs/gcnet of xvjiarui/GCNet)."""
    theirs, cfg = reference(name), yaml_config(name)
    model, roi = theirs.model, theirs.model.roi_head
    cascade = bool(NAME.fullmatch(name)["cascade"])
    box = roi.bbox_head[0] if cascade else roi.bbox_head
    pooling = roi.bbox_roi_extractor.roi_layer
    changed = {  # ours, theirs
        "warm-up starts at": (cfg.SOLVER.WARMUP_FACTOR, theirs.param_scheduler[0].start_factor),
        "limit of the gradients": (
            cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE,
            theirs.optim_wrapper.get("clip_grad"),
        ),
        "samples per bin": (cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO, pooling.sampling_ratio),
        "half a pixel": (cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE, pooling.get("aligned", True)),
        "anchors": (cfg.MODEL.ANCHOR_GENERATOR.NAME, model.rpn_head.anchor_generator.type),
    }
    assert changed == {
        "warm-up starts at": (1 / 3, 0.001),
        "limit of the gradients": (35.0, None),
        "samples per bin": (2, 0),
        "half a pixel": ("ROIAlign", True),
        "anchors": ("LegacyAnchorGenerator", "AnchorGenerator"),
    }
    # In its cascades the rest has stayed.
    since = {
        "anchors over the border": (
            cfg.MODEL.RPN.BOUNDARY_THRESH,
            model.train_cfg.rpn.allowed_border,
        ),
        "proposals in training": (
            cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN,
            model.train_cfg.rpn_proposal.max_per_img,
        ),
        "RPN loss": (cfg.MODEL.RPN.SMOOTH_L1_BETA, model.rpn_head.loss_bbox.get("beta", 0)),
        "box loss": (cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA, box.loss_bbox.get("beta", 0)),
    }
    old = dict(zip(since, (0, 2000, 1 / 9, 1.0), strict=True))
    new = old if cascade else dict(zip(since, (-1, 1000, 0, 0), strict=True))
    assert since == {key: (old[key], new[key]) for key in since}
