"""Figures against a plain NumPy count; what is written; what is wrong is named."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.evaluation import SemSegEvaluator
from tests.evaluation.sem_seg_data import registered

NAME = "sem_seg_evaluation_test"
CLASSES = ["road", "tree, old", "car", "boat"]


@pytest.fixture
def data(tmp_path):
    """Two images: class 2 is predicted but nowhere labelled, class 3 neither; 255 is void."""
    rng = np.random.default_rng(0)
    records, truth, scores = [], [], []
    for number in range(2):
        label = rng.choice([0, 1, 255], (6, 9)).astype(np.uint8)
        file = tmp_path / f"label{number}.png"
        Image.fromarray(label).save(file)
        records.append({"file_name": f"image{number}.jpg", "sem_seg_file_name": str(file)})
        truth.append(label)
        scores.append(torch.as_tensor(rng.normal(size=(4, 6, 9)) - [[[0]], [[0]], [[0]], [[99]]]))
    with registered(NAME, records, kind="sem_seg", classes=CLASSES):
        yield records, np.stack(truth), scores


def run(evaluator, records, scores):
    evaluator.reset()
    evaluator.process(records, [{"sem_seg": x} for x in scores])
    return evaluator.evaluate()


def counted(truth, scores):
    """Confusion by a loop over pixels, rows = truth."""
    guess = np.stack([np.asarray(x).argmax(0) for x in scores])
    confusion = np.zeros((4, 4), int)
    for t, p in zip(truth.ravel(), guess.ravel(), strict=True):
        if t != 255:
            confusion[t, p] += 1
    return confusion


def test_figures_equal_a_plain_count(data):
    records, truth, scores = data
    figures = run(SemSegEvaluator(NAME), records, scores)["sem_seg"]
    confusion = counted(truth, scores)
    assert confusion[:, 2].sum() > 0 and confusion[2:].sum() == 0
    iou = [confusion[c, c] / (confusion[c].sum() + confusion[:, c].sum() - confusion[c, c])
           for c in (0, 1)]  # fmt: skip
    accuracy = [confusion[c, c] / confusion[c].sum() for c in (0, 1)]
    share = confusion.sum(1)[:2] / confusion.sum()
    assert [figures["IoU-road"], figures["IoU-tree, old"]] == [100 * x for x in iou]
    assert [figures["ACC-road"], figures["ACC-tree, old"]] == [100 * x for x in accuracy]
    assert figures["mIoU"] == 100 * (iou[0] + iou[1]) / 2
    assert figures["mACC"] == 100 * (accuracy[0] + accuracy[1]) / 2
    assert figures["pACC"] == 100 * (np.trace(confusion) / confusion.sum())
    assert figures["fwIoU"] == pytest.approx(100 * (share * iou).sum(), rel=1e-14)
    # Without a labelled pixel: no figure, and no part in the means, predicted or not.
    for name in ("car", "boat"):
        assert np.isnan([figures[f"IoU-{name}"], figures[f"ACC-{name}"]]).all()


def test_files_hold_the_counts_and_the_figures(data, tmp_path, caplog):
    records, truth, scores = data
    folder = tmp_path / "a/b"
    with caplog.at_level(logging.INFO, logger="dnl_d2"):
        figures = run(SemSegEvaluator(NAME, output_dir=str(folder)), records, scores)["sem_seg"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "confusion_matrix.csv", "confusion_matrix.png", "per_class.csv", "sem_seg_evaluation.json"
    ]  # fmt: skip
    confusion = counted(truth, scores)
    with open(folder / "confusion_matrix.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == CLASSES == [row[0] for row in rows]
    np.testing.assert_array_equal([[int(x) for x in row[1:]] for row in rows], confusion)

    with open(folder / "per_class.csv", newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    assert float(table["tree, old"]["IoU"]) == figures["IoU-tree, old"]
    assert table["car"]["IoU"] == table["car"]["ACC"] == ""
    assert int(table["car"]["predicted_pixels"]) == confusion[:, 2].sum()
    assert int(table["road"]["labelled_pixels"]) == confusion[0].sum()

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    text = (folder / "sem_seg_evaluation.json").read_text()
    stored = json.loads(text, parse_constant=no_constant)["sem_seg"]
    assert stored.pop("IoU-car") is stored.pop("ACC-boat") is None
    assert all(figures[k] == v for k, v in stored.items() if v is not None)

    assert f"in %: mIoU {figures['mIoU']:.2f}, fwIoU" in caplog.text
    assert f"{figures['IoU-road']:.2f}" in caplog.text
    assert "2 classes without a labelled pixel are left out of the means: car, boat" in caplog.text


def test_slow_parts_of_detectron2_are_there_if_asked_for(data, tmp_path):
    records, _, scores = data
    plain = run(SemSegEvaluator(NAME, output_dir=str(tmp_path / "a")), records, scores)["sem_seg"]
    more = run(
        SemSegEvaluator(
            NAME, output_dir=str(tmp_path / "b"), boundary_iou=True, save_predictions=True
        ),
        records,
        scores,
    )["sem_seg"]
    assert not any("oundary" in key for key in plain)
    assert "BoundaryIoU-road" in more
    assert {k: more[k] for k in plain} == pytest.approx(plain, nan_ok=True, abs=0, rel=0)
    predictions = json.loads((tmp_path / "b/sem_seg_predictions.json").read_text())
    assert {p["file_name"] for p in predictions} == {"image0.jpg", "image1.jpg"}
    assert not (tmp_path / "a/sem_seg_predictions.json").exists()


def test_metadata_without_ignore_label_ignore_255(data):
    records, _, scores = data
    figures = run(SemSegEvaluator(NAME), records, scores)["sem_seg"]
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(stuff_classes=CLASSES)
    again = run(SemSegEvaluator(NAME), records, scores)["sem_seg"]
    assert again == pytest.approx(figures, nan_ok=True, abs=0, rel=0)


def test_images_left_out_or_repeated_are_mentioned(data, caplog):
    records, _, scores = data
    run(SemSegEvaluator(NAME), [records[0]] * 2, [scores[0]] * 2)
    assert "1 images were not evaluated" in caplog.text
    assert "1 images were evaluated more than once, such as image0.jpg" in caplog.text


def test_without_a_labelled_pixel_there_are_no_figures(data, tmp_path, caplog):
    records, _, scores = data
    for record in records:
        Image.fromarray(np.full((6, 9), 255, np.uint8)).save(record["sem_seg_file_name"])
    assert run(SemSegEvaluator(NAME, output_dir=str(tmp_path / "a")), records, scores) == {}
    assert "no labelled pixel" in caplog.text
    assert list((tmp_path / "a").iterdir()) == []


def broken(scores, way):
    scores = scores.clone()
    if way == "nan":
        scores[2, 3, 4] = float("nan")
        return scores
    return {"classes": scores[:3], "size": scores[:, :5], "flat": scores[0]}[way]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("nan", "image1.jpg holds NaN"),
        ("classes", r"image1.jpg has shape \(3, 6, 9\), but the dataset has 4 classes"),
        ("flat", r"image1.jpg has shape \(6, 9\)"),
        ("size", r"image1.jpg is 5x9 .*label1.png is 6x9"),
    ],
)
def test_a_prediction_that_means_nothing_is_named(data, way, message):
    records, _, scores = data
    with pytest.raises(UsageError, match=message) as error:
        run(SemSegEvaluator(NAME), records, [scores[0], broken(scores[1], way)])
    assert "\n" not in str(error.value)


def test_a_label_out_of_range_is_named(data):
    records, _, scores = data
    Image.fromarray(np.full((6, 9), 4, np.uint8)).save(records[1]["sem_seg_file_name"])
    with pytest.raises(UsageError, match=r"label1.png holds the value 4"):
        run(SemSegEvaluator(NAME), records, scores)


def test_an_image_of_another_dataset_is_named(data):
    scores = data[2]
    with pytest.raises(UsageError, match=r"strange.jpg is not in dataset"):
        run(SemSegEvaluator(NAME), [{"file_name": "strange.jpg"}], scores[:1])


def test_a_folder_that_cannot_be_written_fails_before_the_evaluation(data, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    evaluator = SemSegEvaluator(NAME, output_dir=str(tmp_path / "file/out"))
    with pytest.raises(UsageError, match=r"cannot write to .*file/out"):
        evaluator.reset()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "is empty"),
        ([{"file_name": "a.jpg", "sem_seg_file_name": "a.png"}, {"file_name": "b.jpg"}],
         "1 of 2 images have no label .* such as b.jpg"),
    ],
)  # fmt: skip
def test_datasets_that_cannot_be_evaluated(records, message):
    dataset = registered(NAME, records, kind="sem_seg", classes=CLASSES)
    with dataset, pytest.raises(UsageError, match=message):
        SemSegEvaluator(NAME)


def test_a_dataset_without_classes_says_so(data):
    MetadataCatalog.remove(NAME)
    with pytest.raises(UsageError, match=f"{NAME} has no stuff_classes"):
        SemSegEvaluator(NAME)
