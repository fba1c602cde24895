"""Pictures of labels and of attention maps, and figures in rows."""

import numpy as np
import pytest
from PIL import Image

from dnl_d2.files import WriteError
from dnl_d2.visualization import color_label, draw_rows, mark, overlay

RED = np.full((20, 30, 3), (255, 0, 0), np.uint8)


def test_labels_get_their_colours_and_others_black():
    label = np.array([[0, 1], [255, 1]])
    got = color_label(label, [(1, 2, 3), (4, 5, 6)])
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(got[1], [[0, 0, 0], [4, 5, 6]])


def test_picture_shows_every_panel(tmp_path):
    panels = {"red": RED, "map": np.zeros_like(RED)}
    draw_rows(
        str(tmp_path / "p.png"), [panels, panels], queries=[(3, 4)] * 2, legend={"a": (0, 0, 9)}
    )
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    red = (picture == (255, 0, 0)).all(-1)
    middle = picture.shape[0] // 2
    assert red[:middle].sum() > 1000 and red[middle:].sum() > 1000


def test_a_figure_that_cannot_be_written_is_named(tmp_path):
    panels = {"red": RED}
    with pytest.raises(WriteError, match=r"none/p\.png: cannot be written"):
        draw_rows(str(tmp_path / "none" / "p.png"), [panels], queries=[(3, 4)])


def redness(picture):
    return picture[..., 0].astype(int) - picture[..., 2]


def test_overlays_put_cells_where_they_lie():
    black = np.zeros((40, 60, 3), np.uint8)
    weights = np.zeros((4, 6), np.float32)
    weights[1, 4] = 0.02  # its middle is (15, 45)
    red = redness(overlay(black, weights))
    assert np.argwhere(red == red.max()).mean(0) == pytest.approx((14.5, 44.5), abs=1)
    assert len(np.unique(red)) > 20 and (red == red[35, 5]).mean() > 0.5
    # The picture covers 3.2 rows and 4.8 columns: cells are 12.5 pixels.
    red = redness(overlay(black, weights, extent=(3.2, 4.8)))
    assert np.argwhere(red == red.max()).mean(0) == pytest.approx((18.25, 55.75), abs=2)


def test_overlays_scale_to_the_largest_weight():
    grey = np.full((8, 8, 3), 100, np.uint8)
    first = overlay(grey, np.array([[1.0, 0.0], [0.5, 0.0]]))
    np.testing.assert_array_equal(first, overlay(grey, np.array([[4e-6, 0.0], [2e-6, 0.0]])))
    assert len(np.unique(overlay(grey, np.full((3, 3), 0.1)).reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(overlay(grey, np.zeros((3, 3))).reshape(-1, 3), axis=0)) == 1
    red = redness(overlay(grey, np.array([[-1.0, 0.0], [1.0, 0.0]])))
    assert red[0, 0] < red[0, 7] < red[7, 0]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (40, 60)])
def test_marks_and_overlays_of_any_size(size):
    image = np.zeros((*size, 3), np.uint8)
    marked = mark(image, (0, size[1] - 1))
    assert (marked[0, -1] == 255).all() and not image.any()
    assert overlay(image, np.ones((1, 1))).shape == image.shape
