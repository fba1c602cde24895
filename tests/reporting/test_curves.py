"""``curves.png``: what it is drawn from, and when."""

import json

import numpy as np
import pytest
from detectron2.utils.events import EventStorage, JSONWriter
from PIL import Image

from dnl_d2.reporting.curves import CurvesWriter, draw_curves, read_metrics


@pytest.fixture
def metrics(tmp_path):
    """Returns ``metrics(*entries) -> path``: a file with a JSON line each; a text as it is."""

    def write(*entries):
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        (tmp_path / "metrics.json").write_text("\n".join(lines) + "\n")
        return str(tmp_path / "metrics.json")

    return write


def trained(iteration, loss):
    return {"iteration": iteration, "total_loss": loss, "lr": 0.1}


def test_a_run_that_was_cut_off_and_resumed_counts_once(metrics):
    path = metrics(
        trained(19, 3.0),
        {"iteration": 14, "sem_seg/mIoU": 10.0},  # evaluated before the line above was due
        trained(39, 2.0),
        trained(59, 1.9),
        '{"iteration": 79, "total_l',  # killed as it was written
        trained(39, 2.5),
        {"iteration": 40, "sem_seg/mIoU": 20.0},
    )
    series = read_metrics(path)
    assert series["total_loss"] == ([19, 39], [3.0, 2.5])
    assert series["sem_seg/mIoU"] == ([14, 40], [10.0, 20.0])


def test_an_entry_that_follows_an_unfinished_one_in_its_line_counts(metrics):
    path = metrics(trained(19, 3.0), '{"iteration": 39, "tot' + json.dumps(trained(39, 2.0)))
    assert read_metrics(path)["total_loss"] == ([19, 39], [3.0, 2.0])


def test_what_is_no_number_is_left_out(metrics):
    path = metrics(trained(0, float("nan")), trained(1, float("inf")), trained(2, 1.0), "[]", "x")
    assert read_metrics(path)["total_loss"] == ([2], [1.0])


def test_panels_for_what_there_is(metrics, tmp_path):
    path, picture = metrics(trained(0, 2.0), trained(1, 1.0)), tmp_path / "curves.png"
    draw_curves(path, str(picture))
    without = Image.open(picture).size
    figures = {"iteration": 2, "bbox/AP": 1.0, "segm/AP": 2.0, "bbox/AP50": 3.0}
    draw_curves(metrics(trained(0, -2.0), trained(1, 1.0), figures), str(picture))
    drawn = Image.open(picture)
    assert drawn.size[1] > 1.3 * without[1] and drawn.size[0] == without[0]
    assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("entries", [(), (trained(0, 1.0),), ({"iteration": 3, "lr": 1.0},)])
def test_one_point_is_no_curve(metrics, tmp_path, entries):
    draw_curves(metrics(*entries), str(tmp_path / "curves.png"))
    draw_curves(str(tmp_path / "none.json"), str(tmp_path / "curves.png"))
    assert not (tmp_path / "curves.png").exists()


def test_it_is_drawn_once_for_each_evaluation_and_at_the_end(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("dnl_d2.reporting.curves.draw_curves", lambda *paths: drawn.append(paths))
    writers = JSONWriter(str(tmp_path / "metrics.json")), CurvesWriter(str(tmp_path))
    with EventStorage() as storage:
        for iteration in range(6):
            storage.iter = iteration
            storage.put_scalar("total_loss", 1.0)
            if iteration in (2, 4):
                storage.put_scalar("sem_seg/mIoU", 50.0, smoothing_hint=False)
            for writer in writers:
                writer.write()
        assert len(drawn) == 2
        for writer in writers:
            writer.close()
        assert len(drawn) == 3 and drawn[0][0] == str(tmp_path / "metrics.json")
        storage.put_scalar("sem_seg/mIoU", 60.0, smoothing_hint=False)
        writers[1].write()
        writers[1].close()  # nothing has come since
    assert len(drawn) == 4


def test_a_full_disk_stops_no_run(tmp_path, metrics, caplog):
    metrics(trained(0, 2.0), trained(1, 1.0))
    (tmp_path / "curves.png").mkdir()
    CurvesWriter(str(tmp_path)).close()
    assert "curves.png is not drawn: WriteError" in caplog.text
