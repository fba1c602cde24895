"""The table and the picture of a confusion matrix."""

import io

import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.confusion_report import draw_confusion, per_class_table
from dnl_d2.files import write_bytes


@pytest.mark.parametrize("count", [1, 19, 51, 150])
def test_the_table_names_every_class_once(count):
    classes = [f"<{i}>" for i in range(count)]
    figures = {f"{k}-{c}": float(i) for i, c in enumerate(classes) for k in ("IoU", "ACC")}
    figures[f"IoU-{classes[-1]}"] = float("nan")
    table = per_class_table(classes, np.eye(count, dtype=np.int64), figures)
    assert all(table.count(c) == 1 for c in classes)
    assert len(table.splitlines()) <= 52
    cells = [c.strip() for line in table.splitlines() for c in line.split("|")]
    last = cells.index(classes[-1])
    assert cells[last + 1 : last + 4] == ["-", f"{count - 1:.2f}", f"{100 / count:.2f}"]


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("count", [19, 60, 150])
def test_every_class_has_room_for_its_name(count):
    """8 points at 100 dots per inch are 11 pixels."""
    pixels = pixels_of(draw_confusion(["traffic light"] * count, np.eye(count, dtype=np.int64)))
    # The diagonal alone is full: from its first to its last pixel it spans the matrix.
    full = (pixels == np.array([8, 48, 107])).all(-1)
    rows = np.nonzero(full[:, : pixels.shape[1] * 8 // 10].any(1))[0]
    assert (rows[-1] - rows[0]) / count > 11


def test_rows_are_shares_of_the_truth():
    """More pixels of a class change nothing; a row without any is grey. Names are no formulas."""
    classes = ["$a", "b$", r"$\c$"]
    confusion = np.array([[1, 3, 0], [2, 2, 0], [0, 0, 0]])
    first = pixels_of(draw_confusion(classes, confusion))
    np.testing.assert_array_equal(
        pixels_of(draw_confusion(classes, confusion * [[5], [1], [1]])), first
    )
    assert (pixels_of(draw_confusion(classes, confusion.T)) != first).any()
    assert (first == round(0.88 * 255)).all(-1).sum() > 1000


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("before")

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(UsageError, match=r"a.csv: cannot be written \(no space left"):
        write_bytes(str(path), b"half")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"]
