"""A run of the generated pairs from the command's config: trained, resumed, evaluated."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from dnl_d2.engine import load_config, run
from dnl_d2.errors import UsageError
from dnl_d2_imagenet import generated_pairs
from dnl_d2_imagenet.folders import declare
from dnl_d2_imagenet.generated_pairs import CLASSES, SIDE, draw_pair, generate_pairs
from tests.engine.runs import arguments, environment  # noqa: F401

CONFIG = "projects/imagenet_classification/configs/generated/pairs_gc.py"
pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    generate_pairs(str(tmp_path / "pairs"), train=16, val=6)
    yield tmp_path / "pairs"
    for split in ("train", "val"):  # as they were, for tests of other folders
        DatasetCatalog.remove(f"pairs_{split}")
        declare(f"pairs_{split}", f"pairs/{split}", classes_from="pairs/train")


def options(folder, length):
    return [
        *("train.device=cpu", f"train.output_dir={folder}", f"train.max_iter={length}"),
        *("train.eval_period=2", "train.checkpointer.period=2", "train.log_period=1"),
        *("lr_multiplier.iterations=1", "dataloader.train.total_batch_size=4"),
        *("dataloader.train.num_workers=0", "dataloader.test.num_workers=0"),
        *("model.backbone.stem_out_channels=8", "model.backbone.res2_out_channels=8"),
        *("dataloader.train.mapper.size=64", "dataloader.test.mapper.size=64"),
    ]


def test_trains_goes_on_and_evaluates(root, pairs, tmp_path):
    folder = tmp_path / "out"
    path = str(root / CONFIG)
    run(load_config(path, options(folder, 2)), arguments())
    results = run(load_config(path, options(folder, 4)), arguments(resume=True))
    assert 0 <= results["classification"]["top1"] <= 100
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1, 2, 3]
    weights = f"train.init_checkpoint={folder}/model_final.pth"
    again = run(load_config(path, [*options(folder, 4), weights]), arguments(eval_only=True))
    assert again == results


def test_what_another_folder_holds_is_not_counted_in_the_default_one(root, pairs, tmp_path):
    generate_pairs(str(tmp_path / "mine"), train=2, val=2)
    path, folder = str(root / CONFIG), tmp_path / "out"
    run(load_config(path, options(folder, 1)), arguments())
    mine = [
        "dataloader.test.dataset.folder=mine/val",
        f"train.init_checkpoint={folder}/model_final.pth",
    ]
    run(load_config(path, [*options(tmp_path / "mine_out", 1), *mine]), arguments(eval_only=True))
    log = (tmp_path / "mine_out/log.txt").read_text()
    assert "% of 2" in log and "6 images" not in log


def test_detectron2_finds_the_data_by_name(pairs):
    records = DatasetCatalog.get("pairs_val")
    assert [record["category_id"] for record in records] == [0] * 3 + [1] * 3
    assert MetadataCatalog.get("pairs_val").classes == ["alike", "unlike"]
    assert DatasetCatalog.get("pairs_val") == records


def test_broken_pictures_are_named_and_the_run_goes_on(root, pairs, tmp_path):
    for path in [*(pairs / "train/alike").glob("*.png")][1:]:
        path.write_bytes(b"broken")
    for path in (pairs / "val/alike").glob("*.png"):
        path.write_bytes(b"broken")
    folder = tmp_path / "out"
    results = run(load_config(str(root / CONFIG), options(folder, 4)), arguments())
    log = (folder / "log.txt").read_text()
    assert "cannot be read (it is no picture); another one is taken" in log
    assert "cannot be read (it is no picture); it counts as not recognised" in log
    assert results["classification"]["top1"] <= 50  # half of them, at most, can be


def shapes(picture):
    """The white areas around the corners that hold a shape, each cut out around its middle."""
    white = np.asarray(picture)[..., 0] > 200
    half, found = SIDE // 2, []
    for rows in (slice(0, half), slice(half, None)):
        for columns in (slice(0, half), slice(half, None)):
            quarter = np.argwhere(white[rows, columns])
            if len(quarter):
                found.append(frozenset(map(tuple, quarter - quarter.min(0))))
    return found


def test_the_class_is_whether_the_shapes_are_alike():
    rng = np.random.default_rng(0)
    firsts = {True: set(), False: set()}
    for number in range(60):
        alike = number % 2 == 0
        first, second = shapes(draw_pair(rng, alike=alike))
        assert (first == second) is alike
        firsts[alike] |= {first, second}
    assert firsts[True] == firsts[False] and len(firsts[True]) == 3  # neither alone tells it


def test_half_of_the_pictures_are_of_each_class(pairs):
    counts = {name: len(list((pairs / "train" / name).iterdir())) for name in CLASSES}
    assert counts == {"alike": 8, "unlike": 8}
    assert Image.open(next(Path(pairs / "val/alike").iterdir())).mode == "RGB"


def test_pairs_are_written_whole_and_into_a_new_folder_alone(pairs, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="pairs: is there already; delete it"):
        generate_pairs(str(pairs), train=2, val=2)
    with pytest.raises(UsageError, match="train 2 and val 1 must be 2 or more"):
        generate_pairs(str(tmp_path / "few"), train=2, val=1)

    def fails(rng, alike):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generated_pairs, "draw_pair", fails)
    with pytest.raises(UsageError, match=r"new: cannot be written \(No space left"):
        generate_pairs(str(tmp_path / "new"), train=2, val=2)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


def test_no_picture_is_in_both_splits(pairs):
    seen = [path.read_bytes() for path in pairs.rglob("*.png")]
    assert len(set(seen)) == len(seen) == 22
