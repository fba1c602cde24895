"""The fast COCO evaluation against pycocotools, number by number."""

import json
import logging
import math
import sys

import numpy as np
import pytest
import torch
from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from faster_coco_eval import COCOeval_faster
from pycocotools.cocoeval import COCOeval

from dnl_d2.data import register_coco_dataset
from dnl_d2.errors import UsageError
from dnl_d2.evaluation import build_evaluator
from dnl_d2.evaluation.coco import _IMPLEMENTATIONS, COCOEvaluator, coco_eval
from dnl_d2.evaluation.fast_coco import FastCOCOeval
from tests.evaluation.coco_data import CATEGORIES, evaluated, make_dataset, predictions

COMPILED, FAST, SLOW = (words for _, _, words in _IMPLEMENTATIONS)
COMPILED_MODULE = "detectron2.evaluation.fast_eval_api"
TASKS = {"bbox": 12, "segm": 12, "keypoints": 10}


def assert_same(fast, slow):
    for name in ("precision", "recall", "scores"):
        ours, theirs = np.asarray(fast.eval[name]), slow.eval[name]
        assert ours.shape == theirs.shape and (ours == theirs).all(), name
    assert np.asarray(fast.stats).tolist() == slow.stats.tolist()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_that_of_pycocotools(task, seed):
    truth, results = make_dataset(seed, first_id=seed % 2)
    fast, slow = (evaluated(c, truth, results, task) for c in (FastCOCOeval, COCOeval))
    assert_same(fast, slow)
    assert len(fast.stats) == TASKS[task] and 0.001 < fast.stats[0] < 0.95
    assert fast.eval["precision"].shape[2] == len(CATEGORIES)
    assert (fast.eval["precision"][:, :, -1] == -1).all()  # a category without truth


def ranking(right, objects):
    """Boxes in a row, and detections that are right or wrong, best first."""
    image = {"id": 1, "height": 10, "width": 20 * objects, "file_name": "x.png"}
    boxes = [[20.0 * n, 0.0, 9.0, 9.0] for n in range(objects)]
    common = {"image_id": 1, "category_id": 1}
    truth = {
        "images": [image],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": n + 1, "bbox": box, "area": 81.0, "iscrowd": 0, **common}
            for n, box in enumerate(boxes)
        ],
    }
    results = [
        {"bbox": box if good else [5000.0, 0.0, 1.0, 1.0], "score": 1 - n / 1000, **common}
        for n, (good, box) in enumerate(zip(right, boxes, strict=False))
    ]
    return truth, results


@pytest.mark.parametrize("objects", [1, 2, 3, 4, 64, 100, 128, 250, 1000])
@pytest.mark.parametrize("right", [(1,), (1, 0), (1, 1), (1, 1, 0), (1, 0, 1), (0, 1), (0,)])
def test_a_single_right_detection_has_the_precision_that_pycocotools_gives(objects, right):
    truth, results = ranking(right, objects)
    fast, slow = (evaluated(c, truth, results, "bbox") for c in (FastCOCOeval, COCOeval))
    assert_same(fast, slow)


def test_without_the_correction_numbers_differ():
    """So that the tests above can fail."""
    truth, results = ranking((1, 0), 250)
    raw = evaluated(lambda *args: COCOeval_faster(*args), truth, results, "bbox")
    slow = evaluated(COCOeval, truth, results, "bbox")
    assert raw.eval["precision"][0, 0, 0, 0, -1] == 1
    assert slow.eval["precision"][0, 0, 0, 0, -1] == 1 - 2**-52


@pytest.fixture
def dataset(tmp_path):
    """Returns ``dataset(truth)``: registers it and returns its name."""
    names = []

    def make(truth):
        names.append(f"evaluation_test_{len(names)}")
        path = tmp_path / f"{names[-1]}.json"
        path.write_text(json.dumps(truth))
        register_coco_dataset(names[-1], images=str(tmp_path), json=str(path))
        DatasetCatalog.get(names[-1])
        return names[-1]

    coco_eval.cache_clear()
    yield make
    coco_eval.cache_clear()
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def run(evaluator, truth, results):
    evaluator.reset()
    for record, output in predictions(truth, results):
        evaluator.process([record], [output])
    return evaluator.evaluate()


@pytest.mark.parametrize("package", [COMPILED, FAST, SLOW])
def test_results_and_files_are_those_of_detectron2(
    package, dataset, tmp_path, monkeypatch, caplog, capsys
):
    """Its compiled evaluation is there in some installations only."""
    if package == COMPILED:
        pytest.importorskip(COMPILED_MODULE, exc_type=ImportError)
    else:
        monkeypatch.setitem(sys.modules, COMPILED_MODULE, None)
    if package == SLOW:
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
        monkeypatch.delitem(sys.modules, "dnl_d2.evaluation.fast_coco")
    truth, results = make_dataset(1)
    truth["annotations"] = [entry for entry in truth["annotations"] if all(entry["bbox"][2:])]
    name = dataset(truth)
    theirs = evaluation.COCOEvaluator(
        name, output_dir=str(tmp_path / "theirs"), use_fast_impl=package == COMPILED
    )
    expected = run(theirs, truth, results)
    table = [line for line in capsys.readouterr().out.splitlines() if "@[" in line]
    with caplog.at_level(logging.INFO):
        found = run(build_evaluator(name, str(tmp_path / "ours")), truth, results)
    assert f"Evaluating with {package}; " in caplog.text
    assert [line for line in capsys.readouterr().out.splitlines() if "@[" in line] == table
    assert set(found) == {"bbox", "segm"} and "AP-c1" in found["segm"]
    for task in expected:
        assert str(found[task]) == str(expected[task])  # NaN included
    path = "coco_instances_results.json"
    ours = json.loads((tmp_path / "ours" / name / path).read_text())
    assert ours == json.loads((tmp_path / "theirs" / path).read_text())
    assert {r["category_id"] for r in ours} <= set(CATEGORIES)


def test_detectron2s_compiled_evaluation_comes_first(monkeypatch):
    class Compiled:
        COCOeval_opt = COCOeval

    monkeypatch.setitem(sys.modules, COMPILED_MODULE, Compiled)
    coco_eval.cache_clear()
    assert coco_eval() == (COCOeval, COMPILED)
    coco_eval.cache_clear()


def test_two_datasets_do_not_overwrite_each_other(dataset, tmp_path):
    first, second = (make_dataset(seed, images=3) for seed in (0, 1))
    for truth, results in (first, second):
        run(build_evaluator(dataset(truth), str(tmp_path / "out")), truth, results)
    files = sorted((tmp_path / "out").glob("*/coco_instances_results.json"))
    counts = [len(json.loads(file.read_text())) for file in files]
    assert counts == [len(first[1]), len(second[1])]


@pytest.mark.parametrize("annotations", [None, []])
def test_without_annotations_results_are_only_written(dataset, tmp_path, annotations):
    truth, results = make_dataset(0, images=2)
    truth["annotations"] = annotations
    if annotations is None:
        del truth["annotations"]
    name = dataset(truth)
    assert run(build_evaluator(name, str(tmp_path)), truth, results) == {}
    written = json.loads((tmp_path / name / "coco_instances_results.json").read_text())
    assert len(written) == len(results) > 100


def test_without_predictions_figures_are_not_a_number(dataset, tmp_path):
    truth, _ = make_dataset(0, images=2)
    name = dataset(truth)
    figures = run(build_evaluator(name, str(tmp_path)), truth, [])
    assert all(math.isnan(value) for value in figures["bbox"].values())
    assert (tmp_path / name / "coco_instances_results.json").read_text() == "[]"


def test_a_class_that_the_dataset_lacks_is_named(dataset, tmp_path):
    truth, results = make_dataset(0, images=1)
    truth["categories"] = truth["categories"][:4]
    results[0]["category_id"] = CATEGORIES[4]
    with pytest.raises(UsageError, match=r"class 4, .* classes 0 to 3: set .* to 4"):
        run(COCOEvaluator(dataset(truth), output_dir=str(tmp_path)), truth, results)


def test_an_output_folder_that_cannot_be_is_found_at_the_start(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    truth, _ = make_dataset(0, images=1)
    with pytest.raises(UsageError, match="cannot write to"):
        build_evaluator(dataset(truth), str(tmp_path / "file")).reset()


def test_keypoints_of_your_own_need_their_sigmas(dataset, tmp_path):
    """Three keypoints, each off by one pixel: similarity exp(-1 / (2 * area * (2 * sigma)^2))."""
    shape = {"bbox": [5, 5, 20, 20], "area": 400.0, "iscrowd": 0}
    points = [8, 9, 2, 20, 21, 2, 12, 13, 2]
    truth = {
        "images": [{"id": 1, "width": 40, "height": 40, "file_name": "1.png"}],
        "categories": [{"id": c, "name": f"c{c}"} for c in CATEGORIES],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "keypoints": points, "num_keypoints": 3}
            | shape
        ],
    }
    instances = Instances((40, 40), pred_boxes=Boxes(torch.tensor([[5.0, 5, 25, 25]])))
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    moved = torch.tensor(points).reshape(1, 3, 3).float()
    moved[..., :2] += 0.5  # Detectron2 takes points for the middle of pixels, COCO for corners
    moved[..., 0] += 1
    name = dataset(truth)
    for sigma in (0.02, 0.05):
        evaluator = build_evaluator(name, str(tmp_path), kpt_oks_sigmas=[sigma] * 3)
        evaluator.reset()
        instances.pred_keypoints = moved.clone()  # the evaluator moves them
        evaluator.process([{"image_id": 1}], [{"instances": instances}])
        similarity = math.exp(-1 / (2 * 400 * (2 * sigma) ** 2))
        reached = np.linspace(0.5, 0.95, 10) <= similarity
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100 * reached.mean())
