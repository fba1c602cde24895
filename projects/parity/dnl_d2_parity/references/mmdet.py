"""MMDetection's own models (3.x) with random weights, run by its own code.

Models come from the published config files, which the package brings along.
"""

import os

import mmdet
import mmdet.models
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from dnl_d2_parity.references import weights

GC = "gcnet/mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco.py"
_GC_CASCADE = "gcnet/cascade-mask-rcnn_x101-32x4d-syncbn-r4-gcb-c3-c5_fpn_1x_coco.py"
PROPOSALS = dict(nms_pre=60, max_per_img=40)
DETECTIONS = 20
NON_LOCAL_C4 = dict(
    cfg=dict(type="NonLocal2d", reduction=2),
    stages=(False, False, True, False),
    position="after_conv3",
)


def published_config(path: str) -> Config:
    """The model part of a published config, such as ``gcnet/mask-rcnn_r50....py``."""
    folder = os.path.join(os.path.dirname(mmdet.__file__), ".mim", "configs")
    return Config.fromfile(os.path.join(folder, path)).model


def gc_cascade() -> Config:
    """The published X-101 cascade, with the blocks of a ResNet-50 for speed."""
    config = published_config(_GC_CASCADE)
    config.backbone.depth = 50
    return config


def conv_head(config: Config) -> None:
    """4conv1fc with norms in neck and heads, as in the tables of GCNet and DNL."""
    norm = dict(type="BN")
    config.neck.norm_cfg = config.roi_head.mask_head.norm_cfg = norm
    config.roi_head.bbox_head.update(
        type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm
    )


def shrink(config: Config, *, num_classes: int = 5, width: int = 64) -> None:
    """Fewer classes and proposals, narrower heads, BN for SyncBN, torchvision's RoIAlign."""
    config.test_cfg.rpn.update(PROPOSALS)
    config.test_cfg.rcnn.max_per_img = DETECTIONS
    for part in (config.backbone, *_heads(config)):
        part.pop("init_cfg", None)
        if part.get("norm_cfg"):
            part.norm_cfg = dict(type="BN")
        if "num_classes" in part:
            part.num_classes = num_classes
        if "fc_out_channels" in part:
            part.fc_out_channels = width
        if "roi_layer" in part:
            part.roi_layer.use_torchvision = True


def _heads(config: Config) -> list[Config]:
    roi = config.roi_head
    heads = [roi.bbox_roi_extractor, roi.mask_roi_extractor]
    for head in (roi.bbox_head, roi.mask_head):
        heads += head if isinstance(head, list) else [head]
    return heads


def build(config: Config, *, seed: int = 0) -> torch.nn.Module:
    """The model in evaluation mode, with :func:`random_state`."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config)
    model.load_state_dict(random_state(model, seed=seed))
    return model.eval()


def random_state(model: torch.nn.Module, *, seed: int) -> dict[str, Tensor]:
    """Random values for every key, none zero.

    Feature maps are of order one, and scores and boxes spread as in trained networks, so that some
    boxes win clearly.
    """
    return weights.random_state(model, seed=seed, small="bn3", scales=_SCALES)


_SCALES = {
    "lateral_convs": 0.05,
    "rpn_reg": 0.2,
    "fc_reg": 0.3,
    "fc_cls": 1.5,
    "conv_mask": 0.2,
    "theta": 0.2,
    "conv_logits": 0.3,
}


def features(model: torch.nn.Module, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...], dict]:
    """``(3, H, W)`` RGB image -> the network's input, the levels of its FPN, and what it says
    about the image (sizes).
    """
    height, width = image.shape[-2:]
    sample = DetDataSample(
        metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
    )
    batch = {"inputs": [image.flip(0)], "data_samples": [sample]}  # files are read as BGR
    batch = model.data_preprocessor(batch, training=False)
    with torch.no_grad():
        return batch["inputs"], model.extract_feat(batch["inputs"]), batch["data_samples"]


def detect(model: torch.nn.Module, image: Tensor):
    """Boxes, scores, labels and masks of one image."""
    inputs, _, samples = features(model, image)
    with torch.no_grad():
        (result,) = model.predict(inputs, samples)
    return result.pred_instances
