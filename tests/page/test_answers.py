"""What is kept of the last pictures, and how picture files are read for the page."""

import threading

import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.page.answers import LONGEST, Answers, read_picture
from tests.page.models import Model


def test_a_picture_is_computed_once_by_each_model(save):
    models = {"a": Model(), "b": Model(blocks={})}
    answers = Answers(models)
    assert answers.names == ("a", "b")
    assert answers.blocks == ({"res4": ("unary",), "head": ("pairwise", "unary")}, {})
    paths = [save(f"{n}.png", np.full((4, 6, 3), n, np.uint8)) for n in range(2)]
    for path in (*paths, *paths):
        first, second = answers(path)
        assert (first.result.image == int(path[-5])).all()
        assert first.attention.image is first.result.image and second.attention is None
    assert models["a"].runs == {"predict": 0, "attention": 2}
    assert models["b"].runs == {"predict": 2, "attention": 0}


def test_a_sliding_model_is_run_for_its_prediction_and_for_its_attention(save):
    model = Model(is_whole=False)
    (found,) = Answers({"a": model})(save("x.png", np.zeros((4, 6, 3), np.uint8)))
    assert (found.result.labels == 0).all() and found.attention.prediction is not found.result
    assert model.runs == {"predict": 1, "attention": 1}


def test_a_very_large_picture_is_not_decoded(save, monkeypatch):
    path = save("x.png", np.zeros((40, 60, 3), np.uint8))
    monkeypatch.setattr("dnl_d2.page.answers.MOST_PIXELS", 2399)
    with pytest.raises(UsageError, match=f"{path}: 60 x 40 pixels are too many"):
        read_picture(path)


def test_a_model_that_fails_is_told_and_the_next_picture_answered(save):
    model = Model(blocks={})
    answers, path = Answers({"a": model}), save("x.png", np.zeros((4, 6, 3), np.uint8))
    whole, model.segmentation = model.segmentation, fail
    with pytest.raises(UsageError, match=r"failed \(RuntimeError: out of memory\): try a smaller"):
        answers(path)
    model.segmentation = whole
    assert answers(path)[0].result.labels.shape == (4, 6)


def fail(*_):
    raise RuntimeError("out of memory")


def test_only_the_last_pictures_are_kept(save):
    model = Model()
    answers = Answers({"a": model}, kept=2)
    paths = [save(f"{n}.png", np.full((4, 6, 3), n, np.uint8)) for n in range(3)]
    for path in (*paths, *paths[1:]):
        answers(path)
    assert model.runs["attention"] == 3
    assert (answers(paths[0])[0].result.image == 0).all()
    assert model.runs["attention"] == 4


def test_threads_wait_for_what_is_being_computed_and_for_nothing_else(save):
    old, new = (save(f"{n}.png", np.full((4, 6, 3), n, np.uint8)) for n in range(2))
    model = Model()
    answers = Answers({"a": model})
    answers(old)
    model.may_go_on.clear()
    threads = [threading.Thread(target=answers, args=(new,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert (answers(old)[0].result.image == 0).all()  # while the others wait
    assert all(thread.is_alive() for thread in threads)
    model.may_go_on.set()
    for thread in threads:
        thread.join(timeout=10)
    assert model.runs == {"predict": 0, "attention": 2}


def test_one_model_or_two(save):
    with pytest.raises(UsageError, match="one model or compares two, not 3"):
        Answers({name: Model() for name in "abc"})


def test_pictures_of_every_kind(save, rng):
    array = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    assert (read_picture(save("x.png", array)) == array).all()
    assert read_picture(save("one.png", array[:1, :1])).shape == (1, 1, 3)
    deep = array[..., 0].astype(np.uint16) * 257
    assert (read_picture(save("deep.png", deep)) == array[..., :1]).all()
    picture = Image.fromarray(array)
    for mode, name in (("CMYK", "x.tif"), ("P", "p.png"), ("RGBA", "a.png"), ("1", "b.png")):
        assert read_picture(save(name, picture.convert(mode))).shape == (40, 52, 3)
    exif = Image.Exif()
    exif[274] = 6  # a quarter to the right
    assert (read_picture(save("turned.png", array, exif=exif)) == np.rot90(array, -1)).all()
    frames = [Image.new("RGB", (40, 32), color) for color in ("red", "lime", "blue")]
    path = save("x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (read_picture(path) == (255, 0, 0)).all()


def test_a_large_picture_is_scaled(save):
    path = save("x.png", np.zeros((300, 2 * LONGEST, 3), np.uint8))
    assert read_picture(path).shape == (150, LONGEST, 3)


def test_what_is_no_picture(save, tmp_path):
    with pytest.raises(UsageError, match="no longer kept: drop it once more"):
        read_picture(str(tmp_path / "gone.png"))
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(UsageError, match=r"x.png cannot be read \(it is no picture"):
        read_picture(str(tmp_path / "x.png"))
