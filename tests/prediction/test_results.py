"""Pictures and figures of label maps."""

import numpy as np
from PIL import Image

from dnl_d2.prediction import Segmentation

COLORS = [(0, 0, 0), (200, 0, 0), (0, 100, 50)]


def segmentation(classes=("sky", "road", "car"), colors=COLORS):
    labels = np.zeros((10, 20), dtype=np.int64)
    labels[:, 15:] = 2
    return Segmentation(np.full((10, 20, 3), 100, np.uint8), labels, list(classes), colors)


def test_the_overlay_mixes_picture_and_colour():
    drawn = segmentation().draw()
    assert drawn[0, 0].tolist() == [50, 50, 50] and drawn[0, 19].tolist() == [50, 100, 75]


def test_shares_are_listed_by_size():
    summary = segmentation().summary()
    assert summary == {"height": 10, "width": 20, "shares": {"sky": 0.75, "car": 0.25}}


def test_the_label_picture_keeps_numbers_and_colours():
    picture = segmentation().label_picture()
    assert (np.asarray(picture) == segmentation().labels).all()
    assert np.asarray(picture.convert("RGB"))[0, 19].tolist() == [0, 100, 50]
    many = segmentation([f"c{n}" for n in range(300)], None)
    many.labels[0, 0] = 299
    assert many.draw().shape == (10, 20, 3) and many.side_by_side().shape[1] == 40
    few = segmentation(colors=COLORS[:1])  # a dataset that colours the first class only
    assert few.draw().shape == (10, 20, 3)
    assert np.asarray(many.label_picture())[0, 0] == 299


def test_the_legend_names_what_is_there():
    pair = segmentation().side_by_side()
    assert pair.shape[1] == 40 and pair.shape[0] > 10
    legend = pair[10:]
    assert (legend == COLORS[2]).all(2).any() and not (legend == COLORS[1]).all(2).any()
    wide = Segmentation(np.zeros((9, 400, 3), np.uint8), np.zeros((9, 400), int), ["x" * 20], None)
    assert wide.side_by_side().shape[0] - 9 < len(legend)  # one line is enough
    Image.fromarray(wide.side_by_side())
