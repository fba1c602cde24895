"""Blocks in every detector of Detectron2: one step, and one evaluation, of each."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import DatasetCatalog, build_detection_train_loader
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.deeplab.resnet import build_resnet_deeplab_backbone
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.utils.events import EventStorage

from dnl_d2 import add_dnl_config
from dnl_d2.engine import Trainer
from dnl_d2.errors import UsageError
from dnl_d2.evaluation import SemSegEvaluator, build_evaluator
from dnl_d2.layers import ContextBlock
from dnl_d2.modeling import build_context_resnet
from tests.modeling import detectors
from tests.modeling.configs import assert_same_features, defaults
from tests.modeling.detectors import DATASET, FPN_ANCHORS, INSERT, SEMANTIC, zoo_config

ANCHORS = {"MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32]]}
SEGMENTS = {"DATASETS.TRAIN": (SEMANTIC,), "DATASETS.TEST": (SEMANTIC,)}
BOXES, MASKS, KEYPOINTS = {"bbox"}, {"bbox", "segm"}, {"bbox", "keypoints"}
PANOPTIC = MASKS | {"sem_seg"}
# Zoo config, more keys, what is evaluated.
DETECTORS = {
    "faster_rcnn_fpn": ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", FPN_ANCHORS, BOXES),
    "faster_rcnn_c4": ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", ANCHORS, BOXES),
    "faster_rcnn_dc5": ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", ANCHORS, BOXES),
    "mask_rcnn_fpn": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", FPN_ANCHORS, MASKS),
    "mask_rcnn_c4": ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", ANCHORS, MASKS),
    "mask_rcnn_dc5": ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml", ANCHORS, MASKS),
    "cascade": ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", FPN_ANCHORS, MASKS),
    "keypoint_rcnn": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", FPN_ANCHORS, KEYPOINTS),
    "retinanet": ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {}, BOXES),
    "panoptic_fpn": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", FPN_ANCHORS, PANOPTIC),
}


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    detectors.write_pictures(folder)
    detectors.register_pictures(folder)
    yield folder
    detectors.remove_pictures()


def step(model, optimizer, batch) -> dict[str, float]:
    """One step of training in which every weight of the one block must take part."""
    (block,) = (m for m in model.modules() if isinstance(m, ContextBlock))
    before = {name: p.detach().clone() for name, p in block.named_parameters()}
    with EventStorage():
        losses = model.train()(batch)
    assert losses and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    optimizer.step()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.endswith("weight"):  # of a bias, softmax may take no notice
            assert parameter.grad.abs().sum() > 0, name
            assert not torch.equal(parameter, before[name]), name
    return {name: loss.item() for name, loss in losses.items()}


def build(cfg):
    torch.manual_seed(0)
    return detectors.randomised(Trainer.build_model(cfg))


def train_and_test(cfg, evaluator, model=None, loader=None):
    """Losses of one step, and figures of the evaluation after it."""
    model = build(cfg) if model is None else model
    optimizer = Trainer.build_optimizer(cfg, model)
    batch = next(iter(Trainer.build_train_loader(cfg) if loader is None else loader))
    assert len(batch) == 2
    losses = step(model, optimizer, batch)
    return losses, Trainer.test(cfg, model, [evaluator])


@pytest.mark.parametrize("name", DETECTORS)
def test_zoo_config(name, tmp_path):
    path, settings, tasks = DETECTORS[name]
    cfg = zoo_config(path, INSERT, settings)
    evaluator = build_evaluator(DATASET, str(tmp_path))
    if "sem_seg" in tasks:  # the panoptic figure itself needs panopticapi
        evaluator = DatasetEvaluators([SemSegEvaluator(DATASET), evaluator])
    losses, results = train_and_test(cfg, evaluator)
    assert set(results) == tasks
    heads = {"segm": "mask", "keypoints": "keypoint", "sem_seg": "sem_seg"}
    assert all(any(heads[t] in loss for loss in losses) for t in tasks - {"bbox"})
    if "sem_seg" in tasks:
        assert 0 <= results["sem_seg"]["mIoU"] <= 100


def test_fcos_as_lazy_config(tmp_path):
    cfg = detectors.lazy_fcos(context={"name": "dnl"}, inserts={"res4": [-1]})
    torch.manual_seed(0)
    model = detectors.randomised(instantiate(cfg.model))
    cfg.optimizer.params.model = model
    batch = next(iter(instantiate(cfg.dataloader.train)))
    losses = step(model, instantiate(cfg.optimizer), batch)
    assert set(losses) == {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"}
    evaluator = build_evaluator(DATASET, str(tmp_path))
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), evaluator)
    assert set(results) == BOXES


POINT_REND = {
    **FPN_ANCHORS,
    "MODEL.MASK_ON": True,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "",
    "MODEL.ROI_MASK_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
    "MODEL.POINT_HEAD.NUM_CLASSES": 2,
    "MODEL.POINT_HEAD.FC_DIM": 16,
    "INPUT.MASK_FORMAT": "bitmask",
}
POINT_REND_HEADS = {
    "explicit": {
        "MODEL.ROI_HEADS.NAME": "PointRendROIHeads",
        "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead",
        "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 2,
    },
    "implicit": {
        "MODEL.ROI_MASK_HEAD.NAME": "ImplicitPointRendMaskHead",
        "MODEL.POINT_HEAD.NAME": "ImplicitPointHead",
        "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 3,
        "MODEL.IMPLICIT_POINTREND.POS_ENC_ENABLED": False,
    },
}


@pytest.mark.parametrize("head", POINT_REND_HEADS)
def test_point_rend_instances(head, tmp_path):
    cfg = zoo_config(
        "Base-RCNN-FPN.yaml",
        INSERT,
        POINT_REND,
        POINT_REND_HEADS[head],
        add=(add_pointrend_config, add_dnl_config),
    )
    losses, results = train_and_test(cfg, build_evaluator(DATASET, str(tmp_path)))
    assert "loss_mask_point" in losses and set(results) == MASKS


SEMANTIC_PROJECTS = {
    "point_rend": (
        "Base-RCNN-FPN.yaml",
        add_pointrend_config,
        {
            "MODEL.SEM_SEG_HEAD.NAME": "PointRendSemSegHead",
            "MODEL.POINT_HEAD.NUM_CLASSES": 3,
            "MODEL.POINT_HEAD.FC_DIM": 16,
            "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 16,
            "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 1,
            "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 16,
        },
    ),
    "deeplab": (
        "Base-RCNN-DilatedC5.yaml",
        add_deeplab_config,
        {
            "MODEL.RESNETS.DEPTH": 50,
            "MODEL.RESNETS.OUT_FEATURES": ["res2", "res5"],
            "MODEL.SEM_SEG_HEAD.NAME": "DeepLabV3PlusHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res5"],
            "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [8],
            "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 8,
            "MODEL.SEM_SEG_HEAD.NORM": "BN",
            "INPUT.CROP.ENABLED": True,
            "INPUT.CROP.TYPE": "absolute",
            "INPUT.CROP.SIZE": (32, 32),
        },
    ),
}


@pytest.mark.parametrize("name", SEMANTIC_PROJECTS)
def test_semantic_projects(name, tmp_path):
    path, add, settings = SEMANTIC_PROJECTS[name]
    shared = {"MODEL.META_ARCHITECTURE": "SemanticSegmentor", "MODEL.BACKBONE.FREEZE_AT": 0}
    cfg = zoo_config(path, INSERT, SEGMENTS, shared, settings, add=(add, add_dnl_config))
    _, results = train_and_test(cfg, build_evaluator(SEMANTIC, str(tmp_path)))
    assert 0 <= results["sem_seg"]["mIoU"] <= 100


# Base-PanopticDeepLab-OS16 and the COCO config upon it, which no wheel of Detectron2 carries.
PANOPTIC_DEEPLAB = {
    "MODEL.META_ARCHITECTURE": "PanopticDeepLab",
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res5"],
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
    "MODEL.RESNETS.STEM_TYPE": "deeplab",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.SEM_SEG_HEAD.NAME": "PanopticDeepLabSemSegHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res5"],
    "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": ["res2", "res3"],
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": [8, 8],
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.HEAD_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": True,
    "MODEL.INS_EMBED_HEAD.PROJECT_CHANNELS": [8, 8],
    "MODEL.INS_EMBED_HEAD.ASPP_CHANNELS": 8,
    "MODEL.INS_EMBED_HEAD.HEAD_CHANNELS": 8,
    "MODEL.INS_EMBED_HEAD.CONVS_DIM": 8,
    "MODEL.INS_EMBED_HEAD.NORM": "BN",
    "MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY": 96,
    "MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD": -100.0,
    "MODEL.PANOPTIC_DEEPLAB.USE_DEPTHWISE_SEPARABLE_CONV": True,
}


def panoptic_config(project, *settings):
    add = (project.add_panoptic_deeplab_config, add_dnl_config)
    return zoo_config("", PANOPTIC_DEEPLAB, *settings, add=add)


def test_panoptic_deeplab(tmp_path):
    DatasetCatalog.get(DATASET)  # Detectron2 notes its classes as it is loaded
    project = detectors.panoptic_deeplab()
    block = {k: v for k, v in INSERT.items() if not k.endswith("DEPTH")}
    cfg = panoptic_config(project, block)
    loader = build_detection_train_loader(cfg, mapper=project.PanopticDeeplabDatasetMapper(cfg))
    model = build(cfg)
    model.sem_seg_head.predictor.bias.data[0] = 1.0  # untrained, yet it must find instances
    cfg.SOLVER.OPTIMIZER = "SGD"  # a step of Adam, the project's, is too small for any
    losses, results = train_and_test(cfg, build_evaluator(DATASET, str(tmp_path)), model, loader)
    assert set(losses) == {"loss_sem_seg", "loss_center", "loss_offset"}
    assert set(results) == MASKS


@pytest.mark.parametrize("dilation", [(1, 2), (2, 4)])
def test_multi_grid_is_deeplabs(dilation):
    keys = {
        "MODEL.RESNETS.RES4_DILATION": dilation[0],
        "MODEL.RESNETS.RES5_DILATION": dilation[1],
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    }
    cfg = panoptic_config(detectors.panoptic_deeplab(), keys)
    image = ShapeSpec(channels=3)
    theirs = detectors.randomised(build_resnet_deeplab_backbone(cfg, image))
    ours = build_backbone(cfg, image)
    assert_same_features(ours, theirs, rtol=0, atol=0)
    assert [b.conv2.dilation[0] for b in ours.res5] == [dilation[1] * d for d in (1, 2, 4)]


def test_multi_grid_stays_out_of_our_own_strides():
    """DeepLab's default factors must not change a network that says OUTPUT_STRIDE."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_dnl_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_context_resnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.OUTPUT_STRIDE = 8
    with torch.device("meta"):
        model = build_backbone(cfg, ShapeSpec(channels=3))
    assert [b.conv2.dilation[0] for b in model.res5] == [2, 4, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multi_grid": (1, 2)}, "res5 has 3 blocks"),
        ({"multi_grid": (1, 0, 2)}, r"multi_grid\[1\] must be a positive integer"),
    ],
)
def test_bad_multi_grid(options, message):
    with pytest.raises(UsageError, match=message), torch.device("meta"):
        build_context_resnet(depth=50, output_stride=16, **options)


@pytest.mark.parametrize("ours_first", [False, True])
def test_keys_in_either_order(ours_first):
    """Keys that both libraries have keep DeepLab's values, whose configs rely on them."""
    add = [add_deeplab_config, add_pointrend_config, add_dnl_config]
    cfg = get_cfg()
    for function in reversed(add) if ours_first else add:
        function(cfg)
    assert cfg.MODEL.RESNETS.STEM_TYPE == "deeplab"
    assert cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA == 1.0
    assert cfg.MODEL.RESNETS.RES5_MULTI_GRID == [1, 2, 4]
    assert cfg.MODEL.RESNETS.CONTEXT.NAME == "" and cfg.SOLVER.POLY_LR_POWER == 0.9


def test_adding_keys_again_changes_nothing():
    cfg = defaults({"MODEL.RESNETS.CONTEXT.NAME": "gc", "INPUT.RESIZE.BASE_SIZE": (64, 32)})
    before = cfg.clone()
    add_dnl_config(cfg)
    assert cfg == before and isinstance(cfg, CfgNode)


FROZEN = {"MODEL.BACKBONE.FREEZE_AT": 4}
AT_RES5 = {"MODEL.RESNETS.CONTEXT_STAGES.RES4": [], "MODEL.RESNETS.CONTEXT_STAGES.RES5": [-1]}
NO_RES5 = {"MODEL.RESNETS.OUT_FEATURES": ["res3", "res4"], "MODEL.FPN.IN_FEATURES": ["res3"]}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mask_rcnn_c4", AT_RES5, "'res5': this backbone has res2, res3, res4, .*RoI heads"),
        ("mask_rcnn_fpn", FROZEN, r"res4 is frozen \(freeze_at=4\).*use freeze_at=3 or less"),
        ("retinanet", NO_RES5, "OUT_FEATURES: RetinaNet's FPN needs res5"),
    ],
)
def test_a_block_where_none_can_be_is_one_clear_line(name, settings, message):
    path, anchors, _ = DETECTORS[name]
    with pytest.raises(UsageError, match=message) as error:
        Trainer.build_model(zoo_config(path, INSERT, anchors, settings))
    assert "\n" not in str(error.value)
