"""The benchmark of training pictures: its steps are those of both pipelines."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.utils.env import seed_all_rng

from dnl_d2.data import SemSegMapper, sem_seg_augmentations
from dnl_d2.errors import UsageError
from dnl_d2_parity.benchmarks import data_command, data_parts, data_pictures
from dnl_d2_parity.references import mmseg

SMALL = "--size 48 96 --pictures 2 --rounds 2"
CITYSCAPES = "configs/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"


@pytest.fixture(autouse=True)
def threads():
    """As they were before."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def mapper(**options):
    augmentations = sem_seg_augmentations(base_size=(96, 48), crop_size=(24, 32), **options)
    return SemSegMapper(True, augmentations=augmentations, num_classes=5)


def test_steps_are_those_of_the_mapper(tmp_path):
    (record,) = data_pictures.generated(str(tmp_path), 1, (48, 96), 5)
    ours, clock = mapper(), data_parts.Clock()
    for seed in range(6):
        seed_all_rng(1 + seed)
        expected = ours(record)
        seed_all_rng(1 + seed)
        found = data_parts.time_ours(ours, record, clock)
        for key in ("image", "sem_seg"):
            torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)
    assert set(clock.seconds) == set(data_parts.PARTS) - {"others"}


def test_both_sides_prepare_the_same_crops(tmp_path):
    """But for the colours, whose hue mmsegmentation draws from another range."""
    (record,) = data_pictures.generated(str(tmp_path), 1, (48, 96), 5)
    ours = mapper(photometric=False)
    pipeline = mmseg.transforms(*data_parts.reference_options(ours.augmentations.augs))
    for seed in range(6):
        seed_all_rng(1 + seed)
        expected = ours(record)
        seed_all_rng(1 + seed)
        found = data_parts.time_reference(pipeline, record, data_parts.Clock())
        np.testing.assert_array_equal(found["inputs"].flip(0), expected["image"])
        np.testing.assert_array_equal(
            found["data_samples"].gt_sem_seg.data[0], expected["sem_seg"].numpy()
        )


def test_figures(root, tmp_path, capsys):
    out = tmp_path / "data.json"
    config = root / f"{CITYSCAPES}.py"
    data_command.main([*SMALL.split(), "--config-file", str(config), "--output", str(out)])
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert "2 generated pictures of 48x96 (folder" in found["pictures"]
    for side in found["milliseconds"].values():
        parts = [side[part] for part in data_parts.PARTS if part != "others"]
        assert min(parts) >= 0 and side["others"] == 0 and sum(parts) > 0
    assert len(found["ratio"]["all"]) == 2 and f"{found['ratio']['median']:.2f}" in printed
    ours = found["milliseconds"]["ours"]
    assert f"| {1e3 / ours['whole']:.1f} " in printed and "| decode image " in printed


def test_pictures_of_the_dataset_are_taken_if_they_are_there(root, tmp_path, capsys):
    data_pictures.generated(str(tmp_path), 3, (48, 96), 2)
    (tmp_path / "labels").mkdir()
    for number in range(3):
        (tmp_path / f"{number}_label.png").rename(tmp_path / f"labels/{number}.png")
    folders = {"NAME": "benchmarked", "IMAGES": str(tmp_path), "LABELS": str(tmp_path / "labels")}
    opts = [
        "DATASETS.FOLDERS", str([{**folders, "CLASSES": ["a", "b"]}]),
        "DATASETS.TRAIN", "('benchmarked',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "2",
    ]  # fmt: skip
    data_command.main([*SMALL.split(), "--config-file", str(root / f"{CITYSCAPES}.yaml"), *opts])
    assert ": 2 pictures of benchmarked; 0.0" in capsys.readouterr().out


def test_without_mmsegmentation(monkeypatch, capsys):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mmseg" else known(name)
    )
    data_command.main(SMALL.split())
    printed = capsys.readouterr().out
    assert "mmsegmentation is not installed: pip install" in printed and "| whole " in printed


def test_a_pipeline_that_mmsegmentation_lacks(capsys):
    data_command.main([*SMALL.split(), "INPUT.COLOR_JITTER", "0.4"])
    assert "mmsegmentation has no pipeline of these steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pictures 0", "--pictures must be a positive integer"),
        ("--size 0 5", "--size height must be a positive integer"),
        ("--output no/folder.json", "there is no folder"),
        ("--config-file no.yaml", "no.yaml"),
        (
            "--config-file configs/coco/mask_rcnn_r50_fpn_syncbn_1x.yaml",
            "only segmentors' pictures are timed",
        ),
    ],
)
def test_mistakes(root, monkeypatch, options, message):
    monkeypatch.chdir(root)
    with pytest.raises(UsageError, match=message):
        data_command.main(options.split())
