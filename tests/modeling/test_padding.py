"""Images of a batch do not depend on each other's sizes."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from torch import nn

from dnl_d2.layers import CONTEXT_BLOCKS
from dnl_d2.modeling import SameSizeBatches
from dnl_d2.modeling.backbone.padding import (
    content_sizes,
    mask_only_visible_padding,
    padding_mask,
)
from dnl_d2.modeling.backbone.residual import POSITIONS
from tests.modeling.configs import config, small_resnet
from tests.modeling.detectors import FPN_ANCHORS, zoo_config

BLOCKS = [name for name in CONTEXT_BLOCKS if name != "afnb"]  # that one takes two maps
LEVELS = ["res2", "res3", "res4", "res5"]
R18 = {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "OUT_FEATURES": LEVELS}
GC = {"CONTEXT.NAME": "gc", "CONTEXT_STAGES.RES4": [-1]}


def backbone(block, *, norm="FrozenBN", **options):
    """A narrow ResNet-18 in float64 whose parameters are all random, norms and blocks included."""
    torch.manual_seed(0)
    if block == "gc":  # its layer norm knows no more than signs where it has two channels
        block = {"name": "gc", "ratio": 0.5}
    model = small_resnet(
        norm=norm,
        out_features=LEVELS,
        context=block,
        **{"inserts": {"res3": "all", "res4": [-1]}, "padded_to": 1} | options,
    )
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 1.5)
        elif ".norm." in name or ".context." in name:
            tensor.normal_(0, 0.3) if tensor.is_floating_point() else None
    return model.double()


def pictures(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return [torch.randn(3, *size, **options) for size in sizes]


def batch(images, size=None):
    """Padded with zeros to the largest, or to ``size``."""
    height, width = size or (max(s) for s in zip(*(i.shape[1:] for i in images), strict=True))
    padded = torch.zeros(len(images), 3, height, width, dtype=torch.float64)
    for target, image in zip(padded, images, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    return padded


def test_where_the_padding_is():
    images = pictures((5, 9), (7, 4), (7, 9))
    images[0][:, 1] = 0.0  # zeros inside an image are content
    images[0][:2, :, -1] = 0.0  # so is a last column in which one channel is not zero
    sizes = content_sizes(batch(images, (8, 12)))
    assert [s.tolist() for s in sizes] == [[5, 7, 7], [9, 4, 9]]
    for stride, size in ((1, (8, 12)), (2, (4, 6)), (4, (2, 3)), (8, (1, 2))):
        mask = padding_mask(sizes, size, stride)
        expected = [
            [[row * stride >= h or column * stride >= w for column in range(size[1])]
             for row in range(size[0])]
            for h, w in ((5, 9), (7, 4), (7, 9))
        ]  # fmt: skip
        assert mask.tolist() == expected


def test_a_picture_of_zeros_is_no_padding():
    assert [s.tolist() for s in content_sizes(torch.zeros(2, 3, 4, 6))] == [[4, 4], [6, 6]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("block", [b for b in BLOCKS if b != "apnb"])  # its grid spans the batch
def test_masks_reach_every_block(block, position, training):
    model = backbone(block, position=position).train(training)
    seen = []
    contexts = [m for m in model.modules() if getattr(m, "context", None) is not None]
    assert len(contexts) == 3
    for module in contexts:
        module.context.register_forward_hook(lambda m, args, out: seen.append((m, args, out)))
    images = pictures((40, 64), (64, 37))
    with torch.no_grad():
        model(batch(images) if training else batch(images[:1], (64, 64)))
    assert len(seen) == 3
    for context, (x, mask), out in seen:
        stride = 64 // x.shape[-2]
        height, width = -(-40 // stride), 64 // stride
        # The block on the picture's own positions alone says what to expect of these.
        with torch.no_grad():
            alone = context.transform(x[:1, :, :height, :width], None)
        torch.testing.assert_close(out[:1, :, :height, :width], alone)
        assert (~mask)[0].sum() == height * width


@torch.no_grad()
def assert_as_alone(model, images):
    """Each has the features that it has alone, and zeros behind them; returns those of all."""
    together = model(batch(images))
    for index, image in enumerate(images):
        for name, alone in model(image[None]).items():
            rows, columns = alone.shape[-2:]
            in_batch = together[name][index]
            torch.testing.assert_close(in_batch[:, :rows, :columns], alone[0])
            assert (in_batch[:, rows:] == 0).all() and (in_batch[:, :, columns:] == 0).all()
    return together


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("block", BLOCKS)
def test_features_alone_and_in_a_batch(block, position):
    model = backbone(block, norm="BN", position=position).eval()
    assert_as_alone(model, pictures((33, 64), (50, 41), (33, 64), (64, 95)))


@pytest.mark.parametrize(
    "options", [{"output_stride": 8}, {"output_stride": 16, "halve_first_dilation": False}]
)
def test_features_of_dilated_stages(options):
    model = backbone("gc", inserts={"res5": "all"}, **options).eval()
    assert_as_alone(model, pictures((40, 56), (65, 49)))


@pytest.mark.parametrize("stem", ["basic", "v1c", "v1c-ceil"])
@pytest.mark.parametrize("sizes", [((64, 64), (64, 64)), ((64, 96), (80, 64))])
def test_features_behind_every_stem(stem, sizes):
    model = backbone("gc", stem=stem).eval()
    images = pictures(*sizes)
    together = assert_as_alone(model, images)
    with torch.no_grad():
        whole = model._features(batch(images), None)
    for name, features in whole.items():
        assert together[name].shape == features.shape


def test_a_batch_without_images():
    assert backbone("gc").eval()(torch.zeros(0, 3, 64, 64).double())["res5"].shape[0] == 0


def test_padding_to_a_multiple_is_part_of_an_image_alone():
    model = backbone("nl", padded_to=32).eval()
    images = pictures((40, 56), (90, 49))
    with torch.no_grad():
        alone = model(batch(images[:1], (64, 64)))["res4"][0]
        in_batch = model(batch(images, (96, 64)))["res4"][0]
        torch.testing.assert_close(in_batch[:, :4, :4], alone)
        # Where the batch ends before the multiple, so does the image.
        cut = model(batch(pictures((40, 56), (90, 60))))["res4"]
    assert cut.shape[-2:] == (6, 4)


def test_gradients_pass_through_a_batch_of_sizes():
    model = backbone("gc").eval()
    model(batch(pictures((40, 56), (64, 33))))["res5"].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.res4[-1].context.parameters())


@pytest.mark.parametrize("block", ["nl", "gc"])
def test_published_networks_let_padding_take_part(block):
    images = pictures((40, 64), (64, 64))
    with torch.no_grad():
        model = backbone(block, mask_padding=False).eval()
        alone, together = model(images[0][None])["res4"][0], model(batch(images))["res4"][0]
        masked = backbone(block).eval()(batch(images[:1], (64, 64)))["res4"][0]
        plain = model(batch(images[:1], (64, 64)))["res4"][0]
    assert (alone - together[:, :3]).abs().max() > 0.01
    assert (masked - plain).abs().max() > 0.01


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_network_masks_too(strict):
    model = backbone("gc").eval()
    images = batch(pictures((40, 56), (64, 33)))
    exported = torch.export.export(model, (images,), strict=strict).module()
    with torch.no_grad():
        found = exported(images.flip(0))["res4"]
        expected = model._features(images.flip(0), content_sizes(images.flip(0)))["res4"]
    torch.testing.assert_close(found, expected)


def test_yaml_keys():
    cfg = config("build_context_resnet_fpn_backbone", **R18, **GC)
    cfg.MODEL.FPN.IN_FEATURES = LEVELS
    resnet = build_backbone(cfg, ShapeSpec(channels=3)).bottom_up
    assert (resnet.mask_padding, resnet.padded_to) == (True, 32)
    cfg.MODEL.RESNETS.CONTEXT_MASK_PADDING = False
    assert build_backbone(cfg, ShapeSpec(channels=3)).bottom_up.mask_padding is False


@pytest.mark.parametrize(("mean", "masked"), [((0, 0, 0), False), ((0, 0, 0.5), True)])
def test_colours_that_look_like_padding(mean, masked, caplog):
    def build(**block):
        cfg = config(**R18, **block)
        cfg.MODEL.PIXEL_MEAN = mean
        return build_backbone(cfg, ShapeSpec(channels=3))

    build()
    assert not caplog.records  # without a block it makes no difference
    assert build(**GC).masks_padding is masked
    assert ("MODEL.PIXEL_MEAN has whole numbers only" in caplog.text) is not masked


@pytest.mark.parametrize(("mean", "block"), [(115.0, "gc"), (115.5, "gc"), (115.0, None)])
def test_models_whose_padding_looks_like_pixels(mean, block, caplog):
    model = nn.Module()
    model.backbone = backbone(block, **({} if block else {"inserts": None}))
    model.pixel_mean = torch.full((3, 1, 1), mean)
    mask_only_visible_padding(model, "model.pixel_mean")
    hidden = bool(block) and mean == 115.0
    assert model.backbone.mask_padding is not hidden
    assert caplog.text.count("model.pixel_mean has whole numbers only") == hidden
    mask_only_visible_padding(model, "model.pixel_mean")
    assert len(caplog.records) == hidden  # once


def test_what_an_image_alone_is_padded_to():
    cfg = config(**R18)
    assert build_backbone(cfg, ShapeSpec(channels=3)).padded_to == 1
    cfg.MODEL.META_ARCHITECTURE = "PanopticDeepLab"
    cfg.MODEL.PANOPTIC_DEEPLAB = CfgNode({"SIZE_DIVISIBILITY": 640})
    assert build_backbone(cfg, ShapeSpec(channels=3)).padded_to == 640
    cfg.MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY = -1
    assert build_backbone(cfg, ShapeSpec(channels=3)).padded_to == 1
    cfg.MODEL.BACKBONE.NAME = "build_context_resnet_fpn_backbone"
    for levels, multiple in ((LEVELS, 32), (LEVELS[:-1], 16)):
        cfg.MODEL.FPN.IN_FEATURES = levels
        assert build_backbone(cfg, ShapeSpec(channels=3)).bottom_up.padded_to == multiple


@pytest.fixture(scope="module")
def detector():
    """Mask R-CNN with NL blocks, random weights, some detections in every picture."""
    block = {"CONTEXT.NAME": "nl", "CONTEXT_STAGES.RES4": ["all"], "DEPTH": 18}
    cfg = zoo_config(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        {f"MODEL.RESNETS.{key}": value for key, value in block.items()},
        FPN_ANCHORS | {"TEST.DETECTIONS_PER_IMAGE": 10},
    )
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if ".context." in name or "cls_score" in name or "objectness" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def test_detections_alone_and_in_a_batch(detector):
    images = [(i.float() * 60 + 110).clamp(0, 255) for i in pictures((50, 70), (96, 64), (50, 70))]
    inputs = [{"image": i, "height": 2 * i.shape[1], "width": i.shape[2]} for i in images]
    with torch.no_grad():
        together = SameSizeBatches(detector)(inputs)
        for one, result in zip(inputs, together, strict=True):
            alone, found = detector([one])[0]["instances"], result["instances"]
            assert len(alone) == 10 and found.image_size == (one["height"], one["width"])
            boxes = found.pred_boxes.tensor
            torch.testing.assert_close(boxes, alone.pred_boxes.tensor, rtol=0, atol=1e-3)
            torch.testing.assert_close(found.scores, alone.scores)
            assert found.pred_classes.tolist() == alone.pred_classes.tolist()
            assert (found.pred_masks != alone.pred_masks).float().mean() < 1e-3


def test_one_picture_at_several_scales_is_a_group_of_its_own():
    class Counts(nn.Module):
        def forward(self, inputs):
            return [len(inputs)] * len(inputs)

    inputs = [{"images": []}, {"image": torch.zeros(3, 4, 4)}, {"images": []}]
    assert SameSizeBatches(Counts().eval())(inputs) == [1, 1, 1]


def test_batches_in_training_stay_whole():
    class Losses(nn.Module):
        def forward(self, inputs):
            return {"loss": torch.tensor(len(inputs))}

    inputs = [{"image": i} for i in pictures((4, 4), (5, 5), (4, 4))]
    assert SameSizeBatches(Losses().train())(inputs) == {"loss": torch.tensor(3)}
