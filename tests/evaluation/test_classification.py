"""Accuracy of whole images against a plain count, and what it refuses."""

import csv
import json

import pytest
import torch
from detectron2.data import MetadataCatalog

from dnl_d2.errors import UsageError
from dnl_d2.evaluation import ClassificationEvaluator, build_evaluator

CLASSES = [f"kind {number}" for number in range(7)]
NAME = "classification_test"


@pytest.fixture
def metadata():
    yield MetadataCatalog.get(NAME).set(classes=list(CLASSES), evaluator_type="classification")
    MetadataCatalog.remove(NAME)


def evaluated(evaluator, labels, scores):
    evaluator.reset()
    for number, (label, row) in enumerate(zip(labels, scores, strict=True)):
        record = {"file_name": f"{number}.png", "category_id": label}
        evaluator.process([record], [{"scores": row}])
    return evaluator.evaluate()


def test_figures_equal_a_plain_count_and_are_written(metadata, tmp_path):
    scores = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    labels = [number % 6 for number in range(40)]  # none of the last class
    results = evaluated(build_evaluator(NAME, str(tmp_path)), labels, scores)
    order = scores.argsort(1, descending=True).tolist()
    pairs = [*zip(labels, order, strict=True)]
    right = {k: [label in row[:k] for label, row in pairs] for k in (1, 5)}
    expected = {f"top{k}": 100 * sum(hits) / 40 for k, hits in right.items()}
    assert 0 < expected["top1"] < expected["top5"] < 100
    assert results["classification"] == pytest.approx(expected)
    folder = tmp_path / NAME
    written = json.loads((folder / "classification_evaluation.json").read_text())
    assert written == {"classification": results["classification"], "images": 40}
    rows = list(csv.DictReader((folder / "per_class.csv").open()))
    assert [row["images"] for row in rows] == ["7", "7", "7", "7", "6", "6", "0"]
    first = 100 * sum(hit for hit, label in zip(right[1], labels, strict=True) if label == 0) / 7
    assert float(rows[0]["top1"]) == pytest.approx(first, abs=1e-4) and rows[-1]["top1"] == ""


def test_scores_that_are_all_the_same_have_found_nothing(metadata):
    results = evaluated(ClassificationEvaluator(NAME), [0, 1], torch.zeros(2, 7))
    assert results["classification"] == {"top1": 0.0, "top5": 0.0}


def test_top5_of_three_classes_is_no_figure(metadata):
    metadata.classes[:] = "abc"
    results = evaluated(ClassificationEvaluator(NAME), [0, 1], torch.eye(3)[:2])
    assert results["classification"] == {"top1": 100.0}


def test_nothing_evaluated_gives_no_figures(metadata):
    assert evaluated(ClassificationEvaluator(NAME), [], []) == {}


@pytest.mark.parametrize(
    ("label", "scores", "message"),
    [
        (7, torch.zeros(7), "0.png has class 7, and classification_test has 7 classes"),
        (-1, torch.zeros(7), "has class -1"),
        (0, torch.zeros(6), r"scores of shape \(6,\)"),
        (0, torch.tensor([0, 1, float("nan"), 0, 0, 0, 0]), "not finite"),
    ],
)
def test_what_means_nothing_is_refused(metadata, label, scores, message):
    with pytest.raises(UsageError, match=message):
        evaluated(ClassificationEvaluator(NAME), [label], [scores])


def test_a_dataset_without_classes_is_refused():
    with pytest.raises(UsageError, match="has no classes to tell apart"):
        ClassificationEvaluator("classification_test_nameless")
    MetadataCatalog.remove("classification_test_nameless")
