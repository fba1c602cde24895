"""Converted models predict as mmsegmentation does, from the picture file on."""

import pytest
from PIL import Image

from dnl_d2.config.keys import PUBLISHED_SCALES
from dnl_d2_parity import comparison

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

PROBABILITY = 1e-9  # in float64


@pytest.fixture(scope="module", params=[False, True], ids=["corners free", "corners aligned"])
def dnl(request):
    """Not to be changed by tests, but for how it predicts."""
    with comparison.float64_constants():
        yield comparison.twins("dnl", align_corners=request.param, width=16, seed=3).double()


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    def write(height, width, suffix=".png", mode="RGB"):
        path = tmp_path_factory.mktemp("pictures") / f"picture{suffix}"
        pixels = comparison.picture(height, width, seed=height).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).convert(mode).save(path)
        return str(path)

    return write


def check(result):
    assert result.logits < PROBABILITY
    assert result.pixels == result.ties


@pytest.mark.parametrize("base_size", [None, (63, 27)], ids=["as stored", "base size"])
@pytest.mark.parametrize(
    ("window", "stride", "scales"),
    [
        ((), (), ()),
        ((), (), PUBLISHED_SCALES),
        ((25, 33), (17, 22), ()),
        ((25, 33), (17, 22), (0.5, 1.25)),
    ],
    ids=["whole", "ms+flip", "slide", "slide, ms+flip"],
)
def test_probabilities_and_label_maps(dnl, save, window, stride, base_size, scales):
    """ms+flip of a base size: the published rule; of the stored picture: mmsegmentation 1.x's."""
    comparison.slide(dnl, window, stride)
    check(comparison.predict_file(dnl, save(31, 45), base_size=base_size, scales=scales))


@pytest.mark.parametrize("flip", [False, True])
def test_flip_and_scales_one_by_one(dnl, save, flip):
    comparison.slide(dnl, (), ())
    path = save(30, 43)
    for base_size in (None, (53, 52)):
        check(comparison.predict_file(dnl, path, base_size=base_size, scales=(1.25,), flip=flip))


@pytest.mark.parametrize(
    ("size", "mode", "suffix"),
    [
        ((45, 22), "RGB", ".png"),
        ((45, 22), "RGB", ".jpg"),
        ((22, 31), "L", ".png"),
        ((22, 31), "L", ".jpg"),
        ((22, 31), "P", ".png"),
    ],
)
def test_kinds_of_pictures(dnl, save, size, mode, suffix):
    """Portrait, grey and palette pictures."""
    comparison.slide(dnl, (), ())
    check(comparison.predict_file(dnl, save(*size, suffix, mode), base_size=(40, 30)))


def test_the_comparison_can_fail(dnl, save):
    path = save(31, 45)
    comparison.slide(dnl, (), ())
    mean = dnl.ours.pixel_mean.clone()
    dnl.ours.pixel_mean += 0.01
    other = comparison.predict_file(dnl, path, base_size=(63, 27), scales=(0.5,))
    dnl.ours.pixel_mean.copy_(mean)
    assert other.logits > PROBABILITY


def test_training_pads_to_the_crop():
    """Of pictures smaller than it: zeros after normalisation, ignored labels."""
    sizes, pad_size = [(17, 33), (25, 25)], (25, 41)
    images = [comparison.picture(*size, seed=1) for size in sizes]
    labels = [comparison.label_map(*size, 19, seed=1) for size in sizes]
    twins = comparison.twins("dnl", width=16)
    twins.reference.data_preprocessor.size = pad_size
    twins.reference.data_preprocessor.size_divisor = None
    with comparison.float64_constants():
        twins.double()
        twins.ours.pad_size = pad_size
        result = comparison.train(twins, images, labels)
        assert 0 < result.loss < 1e-10 and result.gradient < 1e-7
        twins.ours.pad_size = (0, 0)
        assert comparison.train(twins, images, labels).loss > 1e-4
