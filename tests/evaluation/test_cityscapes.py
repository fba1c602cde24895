"""The official figures against the official script, and the files to submit."""

import contextlib
import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script
from cityscapesscripts.helpers.labels import trainId2label
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.evaluation import CityscapesSemSegEvaluator, SemSegEvaluator, build_evaluator
from tests.evaluation.sem_seg_data import (
    CLASSES,
    SIZE,
    evaluate,
    registered,
    scores_for,
    write_cityscapes,
)  # fmt: skip

NAME = "cityscapes_evaluation_test"
# Figure -> what the script calls its average and its scores, and how many of these there are.
FIGURES = {
    "IoU": ("averageScoreClasses", "classScores", 19),
    "iIoU": ("averageScoreInstClasses", "classInstScores", 8),
    "IoU_sup": ("averageScoreCategories", "categoryScores", 7),
    "iIoU_sup": ("averageScoreInstCategories", "categoryInstScores", 2),
}


@pytest.fixture
def split(tmp_path):
    """Makes and registers a miniature; returns its records."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            records = write_cityscapes(tmp_path / "cityscapes", **({"images": 3} | options))
            dataset = registered(NAME, records, kind="cityscapes_sem_seg", classes=CLASSES)
            stack.enter_context(dataset)
            return records

        yield make


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(out, records, numbers=None):
    return evaluate(CityscapesSemSegEvaluator(NAME, output_dir=str(out)), records, numbers)


def by_script(out, records):
    """The script's own loop over the files that were written."""
    args = copy.copy(script.args)
    args.quiet, args.JSONOutput = True, False
    stems = [os.path.basename(r["file_name"])[: -len(".png")] for r in records]
    predictions = [str(out / f"submission/{stem}_pred.png") for stem in stems]
    labels = [r["sem_seg_file_name"].replace("TrainIds", "Ids") for r in records]
    return script.evaluateImgLists(predictions, labels, args)


def test_figures_are_the_scripts_to_the_last_digit(split, out):
    records = split()
    figures = run(out, records)["sem_seg"]
    official = by_script(out, records)
    assert figures["mIoU"] == figures["IoU"] > 0
    for name, (average, scores, count) in FIGURES.items():
        assert figures[name] == 100 * official[average]
        expected = {k: 100 * v for k, v in official[scores].items() if not np.isnan(v)}
        assert len(expected) == count
        assert {k: figures[f"{name}-{k}"] for k in expected} == expected


def test_figures_are_those_of_the_script_run_as_a_command(split, out, tmp_path):
    records = split()
    figures = run(out, records)["sem_seg"]
    export = tmp_path / "export"
    export.mkdir()
    # The script still calls what NumPy 2.4 dropped.
    program = (
        "import numpy, runpy, sys; sys.argv = ['-']; vars(numpy).setdefault('in1d', numpy.isin); "
        f"runpy.run_module({script.__name__!r}, run_name='__main__')"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "CITYSCAPES_DATASET": str(tmp_path / "cityscapes"),
            "CITYSCAPES_RESULTS": str(out / "submission"),
            "CITYSCAPES_EXPORT_DIR": str(export),
        },
        check=True,
        capture_output=True,
    )
    official = json.loads((export / "resultPixelLevelSemanticLabeling.json").read_text())
    assert figures["IoU"] == 100 * official["averageScoreClasses"]
    assert figures["IoU_sup"] == 100 * official["averageScoreCategories"]
    # The command adds weighted pixels in the order in which the file system lists the files.
    assert figures["iIoU"] == pytest.approx(100 * official["averageScoreInstClasses"], rel=1e-14)


def test_figures_equal_a_plain_count_on_train_ids(split, out):
    records = split(images=6)
    figures = run(out, records)["sem_seg"]
    truth = np.stack([np.asarray(Image.open(r["sem_seg_file_name"])) for r in records])
    guess = np.stack([scores_for(i).argmax(0).numpy() for i in range(len(records))])
    valid = truth != 255
    confusion = np.zeros((19, 19), np.int64)
    np.add.at(confusion, (truth[valid], guess[valid]), 1)
    assert confusion.sum(1).all()
    for c, name in enumerate(CLASSES):
        both, either = confusion[c, c], confusion[c].sum() + confusion[:, c].sum()
        assert figures[f"IoU-{name}"] == 100 * (both / (either - both))
        assert figures[f"ACC-{name}"] == 100 * (both / confusion[c].sum())
    assert figures["pACC"] == 100 * (np.trace(confusion) / confusion.sum())
    stored = np.loadtxt(
        out / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 20), dtype=int
    )
    np.testing.assert_array_equal(stored, confusion)


def test_a_class_that_is_only_predicted_counts_as_the_script_counts_it(split, out):
    """As 0, where Detectron2 leaves it out."""
    records = split(ids=(7, 8, 26))
    figures = run(out, records)["sem_seg"]
    assert figures["IoU-sky"] == 0
    assert figures["mIoU"] == 100 * by_script(out, records)["averageScoreClasses"]
    assert np.isnan(figures["ACC-sky"])


def test_submission_holds_official_ids_under_official_names(split, out):
    records = split()
    run(out, records)
    files = sorted(p.name for p in (out / "submission").iterdir())
    assert files == [
        "aachen_000000_000019_leftImg8bit_pred.png",
        "aachen_000002_000019_leftImg8bit_pred.png",
        "ulm_000001_000019_leftImg8bit_pred.png",
    ]
    picture = Image.open(out / "submission" / files[2])
    ids = np.array([trainId2label[int(t)].id for t in scores_for(1).argmax(0).flatten()])
    assert (picture.mode, picture.size) == ("L", SIZE[::-1])
    np.testing.assert_array_equal(np.asarray(picture), ids.reshape(SIZE))


def test_predictions_of_an_earlier_run_do_not_stay(split, out):
    records = split()
    run(out, records)
    (out / "submission/mine.txt").write_text("kept")
    run(out, records[:1])
    assert sorted(p.name for p in (out / "submission").iterdir()) == [
        "aachen_000000_000019_leftImg8bit_pred.png",
        "mine.txt",
    ]


def test_the_scripts_globals_and_the_environment_stay(split, out, capsys):
    before, environment = dict(vars(script.args)), dict(os.environ)
    run(out, split())
    assert dict(vars(script.args)) == before
    assert (script.args.quiet, script.args.evalLabels) == (False, [])  # as imported
    assert dict(os.environ) == environment
    assert capsys.readouterr().out == ""


def test_without_instance_ids_there_is_no_iiou(split, out, tmp_path, caplog):
    records = split(without=["instanceIds"])
    figures = run(out, records)["sem_seg"]
    assert "no *_instanceIds.png beside the labels" in caplog.text
    assert not any(key.startswith("iIoU") for key in figures)
    write_cityscapes(tmp_path / "cityscapes", images=3)  # now with them
    assert figures["IoU"] == 100 * by_script(out, records)["averageScoreClasses"]
    assert figures["IoU_sup"] == 100 * by_script(out, records)["averageScoreCategories"]


def test_without_label_ids_figures_are_those_of_train_ids(split, out, caplog):
    records = split(images=6, without=["instanceIds", "labelIds"])
    figures = run(out, records)["sem_seg"]
    assert "no *_labelIds.png beside the labels" in caplog.text
    assert figures == evaluate(SemSegEvaluator(NAME), records)["sem_seg"]
    assert len(list((out / "submission").iterdir())) == 6


@pytest.mark.parametrize("way", ["no label in the records", "no label files", "only void"])
def test_a_split_without_labels_gets_its_submission(split, out, caplog, way):
    kinds = ["instanceIds", "labelIds", "labelTrainIds"]
    records = split(without=[] if way == "only void" else kinds, ids=(0, 1, 3))
    if way == "no label in the records":
        for record in records:
            del record["sem_seg_file_name"]
    with caplog.at_level("INFO", logger="dnl_d2"):
        assert run(out, records) == {}
    assert f"ready to submit: {out}/submission" in caplog.text
    assert ("no labelled pixel" if way == "only void" else "no labels") in caplog.text
    assert len(list((out / "submission").iterdir())) == 3


@pytest.mark.parametrize("kind", ["labelIds", "instanceIds", "labelTrainIds"])
def test_a_half_unpacked_split_is_an_error(split, out, kind):
    records = split()
    missing = records[1]["sem_seg_file_name"].replace("labelTrainIds", kind)
    os.remove(missing)
    with pytest.raises(UsageError, match="1 of 3 labels are missing, such as") as error:
        run(out, records)
    assert missing in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full(SIZE, 77, np.uint8), "Unknown label with id 77"),
        (np.zeros((64, 100), np.uint8), r"widths of .* are not equal"),
    ],
    ids=["value", "size"],
)
def test_a_label_that_cannot_be_evaluated_is_named(split, out, capsys, content, message):
    records = split()
    label = records[1]["sem_seg_file_name"].replace("TrainIds", "Ids")
    Image.fromarray(content).save(label)
    with pytest.raises(UsageError, match=message) as error:
        run(out, records)
    assert label in str(error.value)
    assert capsys.readouterr().out == ""


def test_scores_that_mean_nothing_are_named_and_not_written(split, out):
    records = split()
    evaluator = CityscapesSemSegEvaluator(NAME, output_dir=str(out))
    evaluator.reset()
    scores = scores_for(0)
    scores[3, 5, 5] = float("nan")
    with pytest.raises(UsageError, match=r"aachen_000000_000019_leftImg8bit.png holds NaN"):
        evaluator.process(records[:1], [{"sem_seg": scores}])
    with pytest.raises(UsageError, match="the dataset has 19 classes"):
        evaluator.process(records[:1], [{"sem_seg": scores_for(0, classes=20)}])
    assert list((out / "submission").iterdir()) == []


def test_a_folder_that_cannot_be_written_fails_before_the_evaluation(split, out):
    split()
    out.write_text("not a folder")
    evaluator = CityscapesSemSegEvaluator(NAME, output_dir=str(out))
    with pytest.raises(UsageError, match=r"cannot write to .*out/submission"):
        evaluator.reset()


def test_an_image_of_another_dataset_is_named(split, out):
    split()
    with pytest.raises(UsageError, match=r"strange.png is not in dataset"):
        run(out, [{"file_name": "strange.png"}])


@pytest.mark.parametrize(
    ("records", "classes", "message"),
    [
        ([], CLASSES, "is empty"),
        ([{"file_name": "a/x.png"}, {"file_name": "b/x.png"}], CLASSES, "a/x.png and b/x.png"),
        ([{"file_name": "a.png"}], CLASSES[::-1], "19 Cityscapes classes in their order"),
    ],
)
def test_datasets_that_cannot_be_evaluated(records, classes, message, out):
    dataset = registered(NAME, records, kind="cityscapes_sem_seg", classes=classes)
    with dataset, pytest.raises(UsageError, match=message):
        build_evaluator(NAME, str(out))
