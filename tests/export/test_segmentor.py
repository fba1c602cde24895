"""Segmentors as graphs of torch.export."""

import io

import pytest
import torch
from detectron2.export import TracingAdapter
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling import Backbone, SemanticSegmentor
from detectron2.modeling.backbone import FPN
from torch.export import Dim

from dnl_d2 import export_segmentor
from dnl_d2.errors import UsageError
from dnl_d2.modeling import AsymmetricHead, ContextHead, ContextSegmentor
from tests.modeling.configs import small_resnet

SIZES = ((1, 61, 77), (3, 97, 33), (2, 128, 160))


class SmallBackbone(Backbone):
    """Two convolutions of stride 4 and 2: quick to trace, and no size is a multiple of 8 alone."""

    def __init__(self):
        super().__init__()
        self.res4 = Conv2d(3, 8, 5, stride=4, padding=2)
        self.res5 = Conv2d(8, 16, 3, stride=2, padding=1, norm=get_norm("BN", 16))
        self._out_features = ["res4", "res5"]
        self._out_feature_channels = {"res4": 8, "res5": 16}
        self._out_feature_strides = {"res4": 4, "res5": 8}

    def forward(self, x):
        res4 = self.res4(x)
        return {"res4": res4, "res5": self.res5(res4)}


def segmentor(head="dnl", *, backbone=None, align_corners=False, **options):
    """Random everywhere, so that no block is an identity."""
    torch.manual_seed(0)
    backbone = SmallBackbone() if backbone is None else backbone
    shape = backbone.output_shape()
    common = {"channels": 16, "norm": "BN", "num_classes": 5, "align_corners": align_corners}
    if head == "ann":
        features = ["res4", "res5"]
        decoder = AsymmetricHead(shape, in_features=features, project_channels=8, **common)
    else:
        decoder = ContextHead(shape, in_features=[list(shape)[-1]], context_block=head, **common)
    for parameter in (*backbone.parameters(), *decoder.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    parts = {"backbone": backbone, "sem_seg_head": decoder}
    mean, std = [120.5, 115.0, 100.0], [60.0] * 3
    return ContextSegmentor(**parts, pixel_mean=mean, pixel_std=std, **options).eval()


def resnet():
    block = {"name": "gc", "ratio": 0.5}
    return small_resnet(output_stride=8, context=block, inserts={"res5": [-1]})


def pictures(number, height, width):
    return torch.randint(0, 256, (number, 3, height, width)).float()


def check_same(program, model, sizes=SIZES):
    graph = program.module()
    for size in sizes:
        images = pictures(*size)
        with torch.no_grad():
            expected = torch.stack([r["sem_seg"] for r in model([{"image": i} for i in images])])
            found = graph(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_one_program_serves_every_number_and_size():
    model = segmentor()  # of other heads, and optimised: test_formats.py
    check_same(export_segmentor(model), model)


@pytest.mark.parametrize(
    ("backbone", "align_corners"),
    [(resnet, False), (lambda: FPN(SmallBackbone(), ["res4", "res5"], 8), True)],
    ids=["resnet", "fpn"],
)
def test_backbones_that_mask_or_ask_for_padding(backbone, align_corners):
    model = segmentor(backbone=backbone(), align_corners=align_corners)
    check_same(export_segmentor(model), model)


def test_a_program_is_the_same_after_loading():
    model, file = segmentor(), io.BytesIO()
    torch.export.save(export_segmentor(model, dtype=torch.uint8), file)
    file.seek(0)
    images = pictures(1, 61, 77).byte()
    with torch.no_grad():
        found = torch.export.load(file).module()(images)
        torch.testing.assert_close(found, model.logits(images))


def test_windows_slide_over_pictures_of_one_size():
    model = segmentor(slide_window=(48, 64), slide_stride=(32, 40))
    check_same(export_segmentor(model, size=(70, 131)), model, [(1, 70, 131)])
    with pytest.raises(UsageError, match="give the export its size"):
        export_segmentor(model)


def test_a_program_of_one_size():
    model = segmentor()
    program = export_segmentor(model, size=(61, 77))
    check_same(program, model, [(1, 61, 77), (3, 61, 77)])
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(pictures(1, 61, 78))


def test_the_model_itself_exports():
    model, inputs = segmentor(), [{"image": pictures(1, 203, 317)[0]}]
    free = ([{"image": {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}}],)
    with torch.no_grad():
        program = torch.export.export(model, (inputs,), dynamic_shapes=free, strict=False)
        other = [{"image": pictures(1, 61, 77)[0]}]
        found, expected = program.module()(other)[0]["sem_seg"], model(other)[0]["sem_seg"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_detectron2s_adapter_exports_the_model():
    model, image = segmentor(), pictures(1, 64, 80)[0]
    adapter = TracingAdapter(model, [{"image": image}])
    with torch.no_grad():
        program = torch.export.export(adapter, (image,), strict=False)
        (found,) = program.module()(image)
        torch.testing.assert_close(found, model([{"image": image}])[0]["sem_seg"])


def test_models_that_it_does_not_take():
    model = segmentor()
    with pytest.raises(UsageError, match=r"call model.eval\(\) first"):
        export_segmentor(model.train())
    parts = {"backbone": model.backbone, "sem_seg_head": model.sem_seg_head}
    other = SemanticSegmentor(**parts, pixel_mean=[0.5], pixel_std=[1.0])
    with pytest.raises(UsageError, match=r"got SemanticSegmentor: set MODEL\.META"):
        export_segmentor(other)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((0, 5), "height must be a positive integer, got 0"),
        (5, r"size is \(height, width\), not 5"),
        ((48,), r"size is \(height, width\), not \(48,\)"),
    ],
)
def test_sizes_that_are_none(size, message):
    with pytest.raises(UsageError, match=message):
        export_segmentor(segmentor(), size=size)
