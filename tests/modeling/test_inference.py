"""Sliding windows against a loop over pixels, and the segmentor that uses them."""

import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor, build_model

from dnl_d2.engine import load_config
from dnl_d2.engine.from_yaml import is_segmentor
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor, inference
from dnl_d2.modeling.inference import sliding_window, window_starts
from tests.engine.runs import STEM
from tests.modeling.configs import defaults
from tests.modeling.segmentors import image, parts


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),  # the last one is pulled back
        (10, 4, 4, [0, 4, 6]),
        (5, 4, 4, [0, 1]),
        (4, 4, 3, [0]),
        (3, 4, 3, [0]),
        (1024, 769, 513, [0, 255]),
        (2048, 769, 513, [0, 513, 1026, 1279]),
    ],
)
def test_where_windows_start(size, window, stride, expected):
    assert window_starts(size, window, stride) == expected


def by_hand(image, predict, window, stride):
    """Every pixel: the mean over the windows that hold it."""
    _, _, height, width = image.shape
    results = []
    for y, x in itertools.product(*map(window_starts, (height, width), window, stride)):
        crop = image[:, :, y : y + window[0], x : x + window[1]]
        results.append((y, x, predict(crop)))
    classes = results[0][2].shape[1]
    out = torch.empty(len(image), classes, height, width, dtype=image.dtype)
    for i, j in itertools.product(range(height), range(width)):
        votes = [
            part[:, :, i - y, j - x]
            for y, x, part in results
            if 0 <= i - y < part.shape[2] and 0 <= j - x < part.shape[3]
        ]
        out[:, :, i, j] = torch.stack(votes).mean(0)
    return out


def context(crops):
    """A prediction that depends on the window, so that overlaps differ."""
    return torch.cat([crops, crops - crops.mean((2, 3), keepdim=True)], 1)


@pytest.mark.parametrize(
    ("window", "stride"),
    [((4, 5), (3, 2)), ((4, 5), (4, 5)), ((11, 13), (5, 5)), ((20, 4), (7, 3)), ((20, 20), (9, 9))],
)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_sliding_window_by_hand(window, stride, batch_size):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 11, 13, dtype=torch.float64)
    sizes = []

    def predict(crops):
        sizes.append(len(crops))
        return context(crops)

    got = sliding_window(images, predict, window=window, stride=stride, batch_size=batch_size)
    torch.testing.assert_close(got, by_hand(images, context, window, stride))
    assert max(sizes) <= max(batch_size, len(images))


def test_logits_are_summed_in_fp32():
    images = torch.randn(1, 2, 9, 9)
    got = sliding_window(images, lambda x: x.bfloat16(), window=(4, 4), stride=(1, 1))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, images.bfloat16().float())


def test_sums_in_main_memory_are_the_same():
    images = torch.randn(2, 3, 11, 13)
    options = dict(window=(4, 5), stride=(3, 2))
    got = sliding_window(images, context, **options, sum_on_cpu=True)
    assert torch.equal(got, sliding_window(images, context, **options))
    meta = images.to("meta")
    assert sliding_window(meta, context, **options).device.type == "meta"

    def on_cpu(crops):  # stands in for a network on another device
        return torch.zeros(*crops.shape)

    assert sliding_window(meta, on_cpu, **options, sum_on_cpu=True).device.type == "cpu"


def test_memory_is_that_of_one_batch_and_the_result():
    """However many windows there are, only those of one batch exist at a time."""
    alive, most = weakref.WeakSet(), 0

    def predict(crops):
        nonlocal most
        logits = crops[:, :1] * 2
        alive.add(logits)
        most = max(most, len(alive))
        return logits

    sliding_window(torch.zeros(1, 3, 40, 40), predict, window=(4, 4), stride=(2, 2), batch_size=2)
    assert most <= 2  # the next one is made before the name of the last one is given up


def test_a_long_picture_says_how_far_it_is(monkeypatch, caplog):
    clock = iter(range(0, 1000, 4))  # a window takes four seconds or eight
    monkeypatch.setattr(inference.time, "monotonic", lambda: next(clock))
    options = dict(window=(4, 4), stride=(4, 4), batch_size=1)
    with caplog.at_level("INFO", logger="dnl_d2"):
        sliding_window(torch.zeros(1, 3, 8, 8), context, **options)
        assert [r.getMessage() for r in caplog.records] == ["sliding window: 3 of 4"]
        caplog.clear()
        clock = itertools.repeat(0)
        sliding_window(torch.zeros(1, 3, 8, 8), context, **options)
        assert not caplog.records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (4,), "stride": (2, 2)}, "height, width"),
        ({"window": (4, 4), "stride": ()}, "both window and stride"),
        ({"window": (4, 0), "stride": (2, 2)}, "sliding window width"),
        ({"window": (4, 4), "stride": (2.5, 2)}, "sliding stride height"),
        ({"window": (4, 4), "stride": (5, 2)}, "leave gaps"),
        ({"window": (4, 4), "stride": (2, 2), "batch_size": 0}, "batch size of sliding windows"),
    ],
)
def test_bad_windows_are_one_clear_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        sliding_window(torch.zeros(1, 3, 8, 8), context, **options)
    assert "\n" not in str(error.value)


# ---- the segmentor


def test_whole_image_without_aligned_corners_is_detectron2():
    made = parts()
    theirs, ours = SemanticSegmentor(**made).eval(), ContextSegmentor(**made).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    batch = [{"image": image(40, 65), "height": 81, "width": 100}, {"image": image(40, 65, seed=1)}]
    with torch.no_grad():
        for got, expected in zip(ours(batch), theirs(batch), strict=True):
            torch.testing.assert_close(got["sem_seg"], expected["sem_seg"])


def test_training_is_detectron2():
    made = parts()
    made["sem_seg_head"].dropout.p = 0.0
    batch = [{"image": image(40, 64), "sem_seg": torch.randint(0, 5, (40, 64))}]
    losses = [
        model(batch)["loss_sem_seg"]
        for model in (SemanticSegmentor(**made), ContextSegmentor(**made))
    ]
    assert torch.equal(*losses)


def test_training_pads_to_a_size():
    """Each picture by itself to the right and below: larger ones stay."""
    made = parts()
    made["sem_seg_head"].dropout.p = 0.0
    sizes = [(30, 50), (48, 20)]
    batch = [{"image": image(*size), "sem_seg": torch.randint(0, 5, size)} for size in sizes]
    padded = {"images": [], "labels": []}
    for x in batch:
        normal = (x["image"].float() - 120) / 60
        height, width = normal.shape[-2:]
        below, right = max(40 - height, 0), max(60 - width, 0)
        padded["images"].append(F.pad(normal, (0, right, 0, below)))
        padded["labels"].append(F.pad(x["sem_seg"], (0, right, 0, below), value=255))
    # To one size, which is all that Detectron2 does by itself.
    padded["images"][0] = F.pad(padded["images"][0], (0, 0, 0, 8))
    padded["labels"][0] = F.pad(padded["labels"][0], (0, 0, 0, 8), value=255)
    features = made["backbone"](torch.stack(padded["images"]))
    expected = made["sem_seg_head"](features, torch.stack(padded["labels"]))[1]
    got = ContextSegmentor(**made, pad_size=[40, 60])(batch)
    torch.testing.assert_close(got["loss_sem_seg"], expected["loss_sem_seg"])
    without = ContextSegmentor(**made)(batch)["loss_sem_seg"]
    assert (without - expected["loss_sem_seg"]).abs() > 1e-4


def test_pad_size_from_a_config():
    for options, expected in [
        ([], (240, 320)),
        (["INPUT.CROP.ENABLED", "False"], (0, 0)),
        (["INPUT.CROP.SIZE", "(0.9, 0.9)"], (0, 0)),
    ]:
        cfg = load_config(STEM + ".yaml", options)
        cfg.MODEL.DEVICE = "meta"
        assert build_model(cfg).pad_size == expected
    lazy = load_config(STEM + ".py", ["dataloader.train.mapper.augmentations.crop_size=null"])
    assert instantiate(lazy.model).pad_size == (0, 0)
    with pytest.raises(UsageError, match="pad size"):
        ContextSegmentor(**parts(), pad_size=(4,))


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_last_resize_aligns_as_the_head_does(align_corners):
    model = ContextSegmentor(**parts(align_corners)).eval()
    with torch.no_grad():
        (small,) = model([{"image": image(40, 65)}])
        (large,) = model([{"image": image(40, 65), "height": 81, "width": 100}])
    expected = F.interpolate(
        small["sem_seg"][None], (81, 100), mode="bilinear", align_corners=align_corners
    )[0]
    torch.testing.assert_close(large["sem_seg"], expected)
    if align_corners:
        torch.testing.assert_close(large["sem_seg"][:, -1, -1], small["sem_seg"][:, -1, -1])


@pytest.mark.parametrize("slide", [{}, {"slide_window": (24, 32), "slide_stride": (16, 20)}])
def test_an_image_is_predicted_alike_beside_a_larger_one(slide):
    model = ContextSegmentor(**parts(), **slide).eval()
    small, large = image(40, 65), image(64, 80, seed=1)
    with torch.no_grad():
        alone = model([{"image": small}])[0]["sem_seg"]
        beside = [r["sem_seg"] for r in model([{"image": small}, {"image": large}])]
    assert torch.equal(beside[0], alone)
    assert beside[1].shape[-2:] == (64, 80)


def test_windows_of_the_segmentor():
    made = parts()
    slide = dict(slide_window=(24, 32), slide_stride=(16, 20))
    model = ContextSegmentor(**made, **slide, slide_batch_size=3).eval()
    x = (image(40, 65) - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        got = model([{"image": image(40, 65)}])[0]["sem_seg"]
        expected = by_hand(x[None], model.predict_whole, (24, 32), (16, 20))[0]
        whole = ContextSegmentor(**made).eval()([{"image": image(40, 65)}])[0]["sem_seg"]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got - whole).abs().max() > 1e-2


def test_bad_windows_are_refused_when_the_model_is_built():
    with pytest.raises(UsageError, match="both window and stride"):
        ContextSegmentor(**parts(), slide_window=(24, 32))
    with pytest.raises(UsageError, match="leave gaps"):
        ContextSegmentor(**parts(), slide_window=(24, 32), slide_stride=(32, 32))
    with pytest.raises(TypeError, match="slide_windows"):
        ContextSegmentor(**parts(), slide_windows=(24, 32))


def test_windows_in_both_kinds_of_config():
    window, stride = (33, 49), (20, 30)
    cfg = load_config(
        STEM + ".yaml", ["TEST.SLIDE.WINDOW", window, "TEST.SLIDE.STRIDE", str(stride)]
    )
    cfg.MODEL.DEVICE = "cpu"
    lazy = load_config(STEM + ".py", ["model.slide_window=[33,49]", "model.slide_stride=[20,30]"])
    ours, twin = build_model(cfg).eval(), instantiate(lazy.model).eval()
    for model in (ours, twin):
        assert type(model) is ContextSegmentor
        assert (model.slide_window, model.slide_stride) == (window, stride)
        assert model.pad_size == (240, 320) and not model.slide_sum_on_cpu
    twin.load_state_dict(ours.state_dict())
    batch = [{"image": image(49, 65), "height": 98, "width": 130}]
    with torch.no_grad():
        assert torch.equal(ours(batch)[0]["sem_seg"], twin(batch)[0]["sem_seg"])


def test_which_models_take_label_maps():
    cfg = defaults()
    for name in ("SemanticSegmentor", "ContextSegmentor", "GeneralizedRCNN"):
        assert name in META_ARCH_REGISTRY
        cfg.MODEL.META_ARCHITECTURE = name
        assert is_segmentor(cfg) == name.endswith("Segmentor")
