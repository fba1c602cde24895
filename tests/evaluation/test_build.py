"""Which evaluator a dataset gets, and its figures against a plain count."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from dnl_d2.data import register_sem_seg_folder
from dnl_d2.errors import UsageError
from dnl_d2.evaluation import EVALUATORS, build_evaluator


@pytest.fixture
def dataset(tmp_path, save):
    """Two images of three classes, 3 = the dataset's void, 255 = the usual void."""
    rng = np.random.default_rng(0)
    labels = []
    for stem in "ab":
        label = rng.integers(0, 4, (6, 9)).astype(np.uint8)
        label[0, :3] = 255
        labels.append(label)
        save(f"images/{stem}.png", np.zeros((6, 9, 3), np.uint8))
        save(f"labels/{stem}.png", label)
    name = "evaluation_test_sem_seg"
    folders = (str(tmp_path / "images"), str(tmp_path / "labels"))
    register_sem_seg_folder(name, *folders, classes=["x", "y", "z"], ignore_label=3)
    yield name, labels
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_figures_equal_a_plain_count(dataset, tmp_path):
    name, labels = dataset
    torch.manual_seed(0)
    predictions = [torch.randn(3, 6, 9) for _ in labels]
    evaluator = build_evaluator(name, str(tmp_path / "out"))
    assert isinstance(evaluator, SemSegEvaluator)
    evaluator.reset()
    for record, scores in zip(DatasetCatalog.get(name), predictions, strict=True):
        evaluator.process([record], [{"sem_seg": scores}])
    figures = evaluator.evaluate()["sem_seg"]
    assert (tmp_path / "out" / name / "confusion_matrix.csv").is_file()
    truth = np.concatenate([x.ravel() for x in labels])
    guess = np.concatenate([x.argmax(0).numpy().ravel() for x in predictions])
    valid = truth < 3
    ious = []
    for c, letter in enumerate("xyz"):
        both = ((truth == c) & (guess == c) & valid).sum()
        either = (((truth == c) | (guess == c)) & valid).sum()
        ious.append(100 * both / either)
        assert figures[f"IoU-{letter}"] == pytest.approx(ious[-1])
    assert figures["mIoU"] == pytest.approx(np.mean(ious))
    assert figures["pACC"] == pytest.approx(100 * (truth == guess)[valid].mean())


def test_a_dataset_without_evaluator_type_says_so():
    MetadataCatalog.get("no_evaluator_test").set(stuff_classes=["x"])
    try:
        with pytest.raises(UsageError, match="evaluator_type None") as error:
            build_evaluator("no_evaluator_test", "")
        assert all(kind in str(error.value) for kind in EVALUATORS)
    finally:
        MetadataCatalog.remove("no_evaluator_test")
