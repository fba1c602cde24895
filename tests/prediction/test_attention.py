"""Attention of whole models: what the blocks read, and where its cells lie on the picture."""

import threading

import numpy as np
import pytest
import torch
from detectron2.modeling import FPN, GeneralizedRCNN, SemanticSegmentor

import dnl_d2
from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock
from dnl_d2.modeling import (
    AsymmetricHead,
    ContextHead,
    ContextSegmentor,
    build_context_resnet,
)
from dnl_d2.prediction import Detections, Segmentation
from dnl_d2.prediction.attention import _watching, look
from tests.engine.runs import (  # noqa: F401
    SMALL_DETECTOR,
    STEM,
    YAML_OPTIONS,
    as_yaml,
    environment,
)
from tests.layers.test_attention_rows import OnlyMaps
from tests.prediction.test_predictor import AUGMENT, DETECTOR, SLIDE, save_weights


class Hidden(ContextBlock):
    """One that shows no maps."""

    def transform(self, x, mask):
        return x


def segmentor(block="dnl", *, head=None, fpn=False, **backbone):
    torch.manual_seed(0)
    resnet = build_context_resnet(
        depth=18,
        stem_out_channels=8,
        res2_out_channels=8,
        out_features=["res2", "res3", "res4", "res5"],
        **backbone,
    )
    features = ["res3"]
    if fpn:
        resnet, features = FPN(resnet, ["res2", "res3", "res4", "res5"], 16), ["p4"]
    shape, common = resnet.output_shape(), {"channels": 16, "norm": "BN", "num_classes": 3}
    if head == "ann":
        part = AsymmetricHead(shape, in_features=["res2", "res3"], project_channels=8, **common)
    else:
        part = ContextHead(shape, in_features=features, context_block=block, **common)
    return SemanticSegmentor(
        backbone=resnet, sem_seg_head=part, pixel_mean=[100.5] * 3, pixel_std=[50.0] * 3
    ).eval()


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def looked_at(model, image, resized=None):
    """``look`` at a picture that the model sees at another size."""
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()
    if resized:
        tensor = torch.nn.functional.interpolate(tensor[None], resized)[0]
    return look(model, image, {"image": tensor, "height": len(image), "width": image.shape[1]})


@pytest.mark.parametrize("fpn", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize(
    ("size", "resized"), [((64, 96), None), ((60, 50), (90, 75)), ((131, 93), (65, 47))]
)
def test_a_block_that_looks_at_itself_lights_up_at_the_pixel(size, resized, fpn):
    seen = looked_at(segmentor(OnlyMaps(16), fpn=fpn), picture(*size), resized)
    block, stride = "sem_seg_head.context_block", 16 if fpn else 8
    seen_size = resized or size
    shape = tuple(-(-side // stride) for side in seen_size)
    cells = np.full(shape, False)
    for row in (*range(0, size[0], 3), size[0] - 1):
        for column in (*range(0, size[1], 3), size[1] - 1):
            weights = seen.map(block, "pairwise", (row, column))
            assert weights.shape == shape and weights.dtype == np.float32
            lit = np.unravel_index(weights.argmax(), shape)
            cells[lit] = True
            for at, cell, cells_, side, whole in zip(
                (row, column), lit, shape, seen_size, size, strict=True
            ):
                pitch = stride if fpn else side / cells_  # of cells, in pixels that the model sees
                assert cell * pitch <= (at + 0.5) * side / whole <= (cell + 1) * pitch
    assert cells.all()  # also those in the corners and at the far borders


@pytest.mark.parametrize("fpn", [False, True], ids=["unpadded", "padded"])
def test_overlays_light_up_there_too(fpn):
    image = np.zeros((70, 100, 3), np.uint8)
    seen = looked_at(segmentor(OnlyMaps(16), fpn=fpn), image)
    for pixel in ((0, 0), (0, 99), (69, 0), (69, 99), (35, 42)):
        drawn = seen.overlay("sem_seg_head.context_block", "pairwise", pixel).astype(int)
        red = drawn[..., 0] - drawn[..., 2]
        lit = np.argwhere(red == red.max()).mean(0)
        assert np.abs(lit - pixel).max() <= (16 if fpn else 8)


def test_maps_are_of_what_the_forward_pass_reads():
    """In the head and in both places of a backbone's blocks, next to each other."""
    for position in ("after_conv3", "after_add"):
        model = segmentor(context="nl", inserts={"res3": [0, 1], "res4": [-1]}, position=position)
        names = ["backbone.res3.0.context", "backbone.res3.1.context", "backbone.res4.1.context"]
        names.append("sem_seg_head.context_block")
        read = {}
        for name in names:
            model.get_submodule(name).register_forward_pre_hook(
                lambda m, args, name=name, read=read: read.update({name: args})
            )
        seen = looked_at(model, picture(64, 96))
        assert list(seen.blocks) == names and seen.main_block == names[-1]
        for name in names[:3]:
            assert seen.blocks[name] == ("pairwise", "whitened", "unary")
        for name, (x, *mask) in read.items():
            stride = 64 // x.shape[2]
            rows = model.get_submodule(name).attention_rows(x, *mask)(
                [(20 // stride, 50 // stride)]
            )
            for term, weights in rows.items():
                right = weights[0, 0] if weights.dim() == 4 else weights[0]
                found = seen.map(name, term, (20, 50))
                np.testing.assert_allclose(found, right.numpy(), rtol=1e-5, atol=1e-9)
                assert found.sum() == pytest.approx(1, rel=1e-5)
        assert not any(len(m._forward_pre_hooks) > 1 for m in model.modules())


def test_an_asymmetric_head_has_both_of_its_blocks():
    model, read = segmentor(head="ann"), {}
    for name in ("fusion", "context"):
        model.sem_seg_head.get_submodule(name).register_forward_pre_hook(
            lambda m, args, kwargs, name=name: read.update({name: (args[0], kwargs)}),
            with_kwargs=True,
        )
    seen = looked_at(model, picture(64, 96))
    assert seen.blocks == {
        "sem_seg_head.fusion": ("pairwise",), "sem_seg_head.context": ("pairwise",)
    }  # fmt: skip
    shapes = {"fusion": (16, 24), "context": (8, 12)}  # of the keys; queries are 8x12 in both
    for name, (x, options) in read.items():
        block = model.sem_seg_head.get_submodule(name)
        right = block.attention(x, [(2, 6)], **options)["pairwise"][0, 0]
        found = seen.map(f"sem_seg_head.{name}", "pairwise", (20, 50))
        assert found.shape == shapes[name]
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-5, atol=1e-9)


def test_a_shared_map_needs_no_pixel():
    seen = looked_at(segmentor("gc"), picture(64, 96))
    block = seen.main_block
    assert seen.blocks[block] == ("unary",) and not seen.needs_pixel(block, "unary")
    np.testing.assert_array_equal(seen.map(block, "unary"), seen.map(block, "unary", (63, 95)))
    seen = looked_at(segmentor("dnl"), picture(64, 96))
    assert [seen.needs_pixel(block, term) for term in seen.blocks[block]] == [True, True, False]


def test_pooled_keys_are_as_fine_as_others():
    spec = {"name": "nl", "sub_sample": True}
    seen = looked_at(segmentor(spec), picture(72, 88))
    for term in seen.blocks[seen.main_block]:
        weights = seen.map(seen.main_block, term, (71, 87))
        assert weights.shape == (9, 11) and weights.sum() == pytest.approx(1, rel=1e-5)
        assert weights[8].max() == weights[:, 10].max() == 0 < weights[:8, :10].min()


def test_padding_is_cut_off():
    """70x100 pixels on 5x7 cells of 16; the padded picture has 96x128 of them."""
    model = segmentor("nl", fpn=True, context="gc", inserts={"res4": [-1]}, padded_to=32)
    seen = looked_at(model, picture(70, 100))
    assert [*seen.blocks] == ["backbone.bottom_up.res4.1.context", "sem_seg_head.context_block"]
    masked, blind = (seen.map(name, "unary") for name in seen.blocks)
    assert masked.shape == blind.shape == (5, 7)
    assert masked.sum() == pytest.approx(1, rel=1e-5)  # of the backbone's block, told of padding
    assert 0.3 < blind.sum() < 0.99  # of the head's, which is not


def test_copies_for_inference_have_the_same_maps():
    model = segmentor("apnb", context="dnl", inserts={"res3": [-1]})
    fast = dnl_d2.optimize_for_inference(model)
    seen, other = (looked_at(m, picture(64, 96)) for m in (model, fast))
    assert seen.blocks == other.blocks and len(seen.blocks) == 2
    for block, terms in seen.blocks.items():
        for term in terms:
            left, right = (s.map(block, term, (9, 90)) for s in (seen, other))
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-6)


def test_a_block_that_shows_nothing_is_left_out(caplog):
    model = segmentor(Hidden(16), context="nl", inserts={"res3": [-1]})
    assert list(looked_at(model, picture(64, 96)).blocks) == ["backbone.res3.1.context"]
    assert "sem_seg_head.context_block is left out: Hidden has no attention_maps" in caplog.text


def test_a_compiled_model_has_the_maps_of_what_was_compiled():
    model = segmentor()
    model.__class__ = ContextSegmentor
    model.slide_window, model.slide_stride, model.slide_batch_size = (32, 32), (16, 16), 4
    model.slide_sum_on_cpu, model.pad_size, model.multi_scale_flip = False, (0, 0), None
    compiled = torch.compile(model, backend="eager")
    left, right = (looked_at(m, picture(64, 96)) for m in (model, compiled))
    assert left.blocks == right.blocks
    block = left.main_block
    left, right = (seen.map(block, "unary") for seen in (left, right))
    assert left.shape == (8, 12)
    np.testing.assert_array_equal(left, right)


def test_other_threads_are_not_listened_to():
    model = segmentor()
    inputs = [{"image": torch.zeros(3, 64, 96)}]
    padded = []
    with _watching(model, padded) as blocks, torch.no_grad():
        other = threading.Thread(target=lambda: torch.no_grad()(model)(inputs))
        other.start()
        other.join()
        assert not blocks and not padded
        model(inputs)
        assert list(blocks) == ["sem_seg_head.context_block"] and padded == [(64, 96)]


def test_maps_of_a_diverged_model_are_refused():
    model = segmentor()
    model.sem_seg_head.context_block.query.bias.data[0] = float("nan")
    seen = looked_at(model, picture(64, 96))
    with pytest.raises(UsageError, match=r"whitened map of sem_seg_head\.\S+ is not finite"):
        seen.overlay(seen.main_block, "whitened", (0, 0))
    assert np.isfinite(seen.map(seen.main_block, "unary")).all()


def test_mistakes_are_one_line():
    with pytest.raises(UsageError, match="SemanticSegmentor runs no context block that has"):
        looked_at(segmentor(None), picture(64, 96))
    seen = looked_at(segmentor("nl"), picture(64, 96))
    block = seen.main_block
    for arguments, message in (
        (("sem_seg_head.context", "unary"), "did you mean 'sem_seg_head.context_block'"),
        ((block, "whitend", (0, 0)), "no 'whitend' map; did you mean 'whitened'"),
        ((block, "pairwise"), r"is that of a pixel: give \(row, column\)"),
        ((block, "pairwise", (64, 0)), "pixel 64,0 .* outside the picture of 64 rows and 96"),
        ((block, "unary", (0, -1)), "pixel 0,-1 "),
    ):
        with pytest.raises(UsageError, match=message) as error:
            seen.map(*arguments)
        assert "\n" not in str(error.value)


@pytest.fixture
def predictors(tmp_path, environment):  # noqa: F811
    """Returns ``predictors(**options)``: a Predictor of the small DNL, of the same weights."""
    overrides = as_yaml(YAML_OPTIONS)
    weights = save_weights(load_config(STEM + ".yaml", overrides), tmp_path / "weights.pth")

    def make(**options):
        words = [*overrides, *as_yaml({}, **options)]
        return dnl_d2.Predictor(STEM + ".yaml", weights=weights, device="cpu", overrides=words)

    return make


def test_windows_and_scales_are_left_aside(predictors):
    image = picture(90, 120)
    whole = predictors(INPUT__RESIZE__BASE_SIZE="(80,60)")
    maps = whole.attention(image)
    block = maps.main_block
    assert whole.attention_blocks() == maps.blocks == {block: ("pairwise", "whitened", "unary")}
    np.testing.assert_array_equal(maps.image, image)
    assert whole.is_whole and isinstance(maps.prediction, Segmentation)
    np.testing.assert_array_equal(maps.prediction.labels, whole(image).labels)
    for options in (SLIDE, AUGMENT, SLIDE | AUGMENT):
        predict = predictors(INPUT__RESIZE__BASE_SIZE="(80,60)", **options)
        assert not predict.is_whole
        before = predict(image).labels
        found = predict.attention(image)
        for term in maps.blocks[block]:
            left, right = (s.map(block, term, (89, 0)) for s in (found, maps))
            assert left.shape == (8, 10)
            np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(predict(image).labels, before)  # and are back


def test_detectors(tmp_path, environment):  # noqa: F811
    config = f"{DETECTOR}.yaml"
    small = as_yaml({k: v for k, v in SMALL_DETECTOR.items() if k.startswith("MODEL")})
    small += as_yaml({"MODEL.RESNETS.CONTEXT_MASK_PADDING": True})
    small += as_yaml({"MODEL.PIXEL_MEAN": "[115.5,115.0,115.0]"})
    cfg = load_config(dnl_d2.model_zoo.get_config_file(config), small)
    weights = save_weights(cfg, tmp_path / "weights.pth")
    for options in ({}, {"TEST__AUG__ENABLED": True}):
        words = [*small, *as_yaml({}, **options)]
        predict = dnl_d2.Predictor(config, weights=weights, device="cpu", overrides=words)
        assert predict.is_whole == (not options)
        seen = predict.attention(picture(60, 100))
        assert isinstance(seen.prediction, Detections) and isinstance(
            getattr(predict.model, "model", predict.model), GeneralizedRCNN
        )
        assert all(name.startswith("backbone.bottom_up.res") for name in seen.blocks)
        assert seen.main_block.startswith("backbone.bottom_up.res5")
        with pytest.raises(UsageError, match=r"1 rows and 5000 columns .*too narrow"):
            predict.attention(picture(1, 5000))
        for name in seen.blocks:
            weights_of = seen.map(name, "unary")
            assert weights_of.sum() == pytest.approx(1, rel=1e-4)
