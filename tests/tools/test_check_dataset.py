"""tools/check_dataset.py as a person runs it."""

import json
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from dnl_d2.engine import load_config, read_config, run
from dnl_d2.modeling.from_config import build_from_config
from tests.engine import runs
from tests.engine.runs import (  # noqa: F401
    SMALL_LAZY,
    SMALL_YAML,
    as_lazy,
    as_yaml,
    environment,
    forget,
)
from tests.tools.programs import load, start

CLASSES = "background,texture_a,texture_b,paired,red,green,cyan,violet"
BASES = {
    ".yaml": "configs/common/camvid_r18w32-d8.yaml",
    ".py": "configs/common/camvid_r18w32_d8.py",
}


@pytest.fixture(scope="module")
def command(root):
    return load(root, "check_dataset").command


@pytest.fixture
def check(command, root, environment, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Returns ``check(*arguments)``, which runs the tool and returns status, stdout and stderr."""
    monkeypatch.chdir(root)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            command([*map(str, arguments), "--output", str(tmp_path / "report")])
        out, err = capsys.readouterr()
        if isinstance(ended.value.code, str):  # as the interpreter does
            return SimpleNamespace(returncode=1, stdout=out, stderr=f"{err}{ended.value.code}\n")
        return SimpleNamespace(returncode=ended.value.code, stdout=out, stderr=err)

    return run


@pytest.fixture
def folders(datasets, tmp_path):
    """A copy of the generated dataset's folders, as options."""
    shutil.copytree(datasets / "generated", tmp_path / "data")
    data = tmp_path / "data"
    return ["--images", data / "train", "--labels", data / "trainannot"]


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_sound_folders_give_a_config_a_sheet_and_figures(root, check, folders, tmp_path, suffix):
    written = tmp_path / f"it's mine (1){suffix}"
    data = tmp_path / "data"
    result = check(
        *folders, "--val-images", data / "val", "--val-labels", data / "valannot",
        "--classes", CLASSES, "--base", root / BASES[suffix], "--write-config", written,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    command = result.stdout.splitlines()[-1].removeprefix("To train on it: ")
    assert shlex.split(command) == ["tools/train_net.py", "--config-file", str(written)]
    assert "errors: 0" in result.stdout and "LOSS_CLASS_WEIGHTS: [" in result.stdout
    assert Image.open(tmp_path / "report/contact_sheet.png").size[0] > 500
    figures = json.loads((tmp_path / "report/report.json").read_text())
    labels = [np.asarray(Image.open(p)) for p in (data / "trainannot").iterdir()]
    assert figures["sets"]["mine_train"]["values"]["4"]["pixels"] == (np.stack(labels) == 4).sum()

    cfg = load_config(str(written))
    meta = MetadataCatalog.get("mine_val")
    assert meta.stuff_classes == CLASSES.split(",")
    assert len(DatasetCatalog.get("mine_train")) == 8 and len(DatasetCatalog.get("mine_val")) == 4
    if suffix == ".yaml":
        assert cfg.DATASETS.TRAIN == ("mine_train",) and cfg.DATASETS.TEST == ("mine_val",)
        assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 8
        assert list(cfg.INPUT.RESIZE.BASE_SIZE) == [96, 72]
        assert list(cfg.INPUT.CROP.SIZE) == [72, 96] and cfg.INPUT.CROP.ENABLED
        assert cfg.MODEL.RESNETS.DEPTH == 18
    else:
        assert cfg.model.sem_seg_head.num_classes == 8 and cfg.model.backbone.depth == 18
        assert cfg.dataloader.test.dataset.names == "mine_val"
        assert list(cfg.dataloader.train.mapper.augmentations.crop_size) == [72, 96]
        assert list(cfg.model.pad_size) == [72, 96]


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_a_share_is_set_aside_and_the_config_trains(root, check, folders, tmp_path, suffix):
    written = tmp_path / f"my config{suffix}"
    arguments = [
        *folders, "--val-share", 0.25, "--classes", CLASSES, "--base", root / BASES[suffix],
        "--write-config", written,
    ]  # fmt: skip
    result = check(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Set aside for validation: 2 of 8 pictures" in result.stdout
    assert "frames of one video" in result.stdout
    assert f"tools/train_net.py --config-file '{written}'" in result.stdout
    lists = [(tmp_path / f"mine_{split}.txt").read_text().split() for split in ("train", "val")]
    assert [*map(len, lists)] == [6, 2] and not set(lists[0]) & set(lists[1])

    tiny = as_yaml(SMALL_YAML, length=2, batch=2, MODEL__DEVICE="cpu")
    if suffix == ".py":
        tiny = as_lazy(SMALL_LAZY, length=2, batch=2, train__device="cpu")
    out = "OUTPUT_DIR" if suffix == ".yaml" else "train.output_dir"
    tiny += [out, str(tmp_path / "out")] if suffix == ".yaml" else [f"{out}={tmp_path / 'out'}"]
    assert run(load_config(str(written), tiny), runs.arguments())["sem_seg"]["mIoU"] >= 0
    assert len(DatasetCatalog.get("mine_train")) == 6 and len(DatasetCatalog.get("mine_val")) == 2

    written.unlink()
    forget("mine_train", "mine_val")
    result = check(*arguments)
    assert result.returncode == 1 and "mine_train.txt exists" in result.stderr


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_few_pictures_get_a_small_network_and_a_short_run(check, folders, tmp_path, suffix):
    written = tmp_path / f"mine{suffix}"
    result = check(*folders, "--classes", CLASSES, "--write-config", written)
    assert "never evaluated" in result.stdout and "--val-share 0.2" in result.stdout
    spec = read_config(load_config(str(written)), train=True)
    assert (spec.max_iter, spec.batch_size, spec.checkpoints["period"]) == (1000, 4, 100)
    assert spec.checkpoints["max_to_keep"] == 3 and not spec.warnings
    assert spec.weights.endswith("/resnet18-f37072fd.pth")
    model = build_from_config(str(written), device="meta")
    weights = {k: v.shape for k, v in model.state_dict().items()}
    assert weights["backbone.res5.1.conv2.weight"] == (512, 512, 3, 3)
    assert weights["sem_seg_head.predictor.weight"][:2] == (8, 128)
    optimizer = spec.build_optimizer(model)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 4 / 16)
    schedule = written.read_text()
    assert ("WARMUP_ITERS: 50" if suffix == ".yaml" else "iterations=50") in schedule


def test_the_printed_lines_are_a_config(root, check, folders, tmp_path):
    result = check(*folders, "--classes", CLASSES, "--base", BASES[".yaml"], "--name", "mine")
    lines = result.stdout[result.stdout.index("_BASE_") :]
    (tmp_path / "mine.yaml").write_text(lines.replace("_BASE_: ", f"_BASE_: {root}/", 1))
    cfg = load_config(str(tmp_path / "mine.yaml"))
    assert len(cfg.DATASETS.TEST) == 0 and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 8


def test_errors_give_a_status_and_no_config(check, folders, tmp_path):
    first = sorted((tmp_path / "data/train").iterdir())[0]
    first.write_bytes(b"text")
    result = check(*folders, "--classes", CLASSES, "--write-config", tmp_path / "mine.yaml")
    assert result.returncode == 1
    (line,) = [x for x in result.stdout.splitlines() if "cannot be read" in x]
    assert line.startswith("error: mine_train: files cannot be used") and first.name in line
    assert not (tmp_path / "mine.yaml").exists() and "is not written" in result.stdout
    assert (tmp_path / "report/report.json").exists()


def test_warnings_alone_pass_and_black_and_white_gives_a_script(check, tmp_path, save, rng):
    save("images/a.png", rng.integers(0, 255, (9, 9, 3), np.uint8))
    save("labels/a.png", np.eye(9, dtype=np.uint8) * 255)
    result = check("--images", tmp_path / "images", "--labels", tmp_path / "labels")
    assert result.returncode == 0 and "warning: mine_train: labels hold 0 and 255" in result.stdout
    script = tmp_path / "report/convert_labels.py"
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)
    ids = np.asarray(Image.open(tmp_path / "labels_ids/a.png"))
    np.testing.assert_array_equal(ids, np.eye(9))

    script.write_text("edited")
    result = check("--images", tmp_path / "images", "--labels", tmp_path / "labels")
    assert "stays as it is" in result.stdout and script.read_text() == "edited"


def test_the_report_of_an_earlier_run_is_gone(check, folders, tmp_path):
    check(*folders, "--classes", CLASSES)
    assert (tmp_path / "report/contact_sheet.png").exists()
    for path in (tmp_path / "data/trainannot").iterdir():
        path.write_bytes(b"text")
    assert check(*folders, "--classes", CLASSES).returncode == 1
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["report.json"]


def on(suffix, train, test):
    """Options that check the datasets of a config of either kind."""
    if suffix == ".yaml":
        opts = ["DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)"]
    else:
        opts = [f"dataloader.train.dataset.names={train}", f"dataloader.test.dataset.names={test}"]
    return ["--config-file", BASES[suffix], "--opts", *opts]


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_a_configs_datasets_are_checked_against_its_model(check, root, suffix):
    result = check(*on(suffix, "generated_sem_seg_train", "generated_sem_seg_val"))
    assert result.returncode == 1
    lines = [x for x in result.stdout.splitlines() if x.startswith("error: ")]
    assert len(lines) == 2
    assert all("has 8 classes, but the model predicts 11" in line for line in lines)


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_a_test_split_without_labels_is_for_prediction(
    check, tmp_path, datasets, monkeypatch, save, rng, suffix
):
    name = "cityscapes/leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"
    save(name, rng.integers(0, 255, (9, 9, 3), np.uint8))
    (tmp_path / "generated").symlink_to(datasets / "generated")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    labelled, without = "generated_sem_seg_train", "cityscapes_sem_seg_test"
    for train, test, level in ((labelled, without, "warning"), (without, labelled, "error")):
        result = check(*on(suffix, train, test))
        text = "no labels: only for prediction" if level == "warning" else "images have no label"
        assert f"\n{level}: {without}: {text}" in result.stdout
        assert (f"error: {without}: images have no label" in result.stdout) == (level == "error")


def test_a_taken_name_is_refused_before_anything_is_read(check, folders, tmp_path):
    written = tmp_path / "mine.yaml"
    result = check(
        *folders, "--classes", CLASSES, "--write-config", written, "--name", "camvid_sem_seg"
    )
    assert result.returncode == 1 and result.stdout == ""
    assert "--name: there is a dataset 'camvid_sem_seg_train' already" in result.stderr
    assert not written.exists() and not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --images --dataset --config-file is required"),
        (["--images", "x"], "--images needs --labels"),
        (["--dataset", "x", "--classes", "a"], "--classes goes with --images"),
        (["--images", "x", "--labels", "y", "--val-images", "z"], "go together"),
        (["--images", "nowhere", "--labels", "y"], "image folder nowhere does not exist"),
        (["--images", "x", "--labels", "y", "--classes", "a,a"], "'a' is there twice"),
        (["--images", "x", "--labels", "y", "--classes", "a,b,"], "class 2 has no name"),
        (["--images", "tools", "--labels", "tools/."], "images and labels are both in tools"),
        (["--images", "x", "--labels", "y", "--classes-file", "gone"], "gone cannot be read"),
        (["--images", "x", "--labels", "y", "--write-config", "a.txt"], "ends in .yaml or .py"),
        (["--images", "x", "--labels", "y", "--write-config", "a.py", "--base", "b.py"], "b.py"),
        (["--images", "x", "--labels", "y", "--write-config", "README.md"], "README.md: exists"),
        (["--images", "x", "--labels", "y", "--val-share", "2"], "between 0 and 1"),
        (["--images", "x", "--labels", "y", "--val-share", "0.2"], "give --write-config"),
        (["--images", "x", "--labels", "y", "--batch-size", "0"], "--batch-size must be"),
        (["--dataset", "nope"], "'nope' is not registered"),
        (["--config-file", "nope.yaml"], "nope.yaml: no such file"),
        (["--dataset", "generated_sem_seg_val", "--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_mistakes_end_in_one_line(check, arguments, message):
    result = check(*arguments)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert ".py: error: " in last and message in last


def test_no_place_for_the_report_is_one_line(check, tmp_path):
    (tmp_path / "report").write_text("in the way")
    result = check("--dataset", "generated_sem_seg_val")
    assert result.returncode == 1
    assert "report: cannot be used" in result.stderr.strip().splitlines()[-1]


def test_ctrl_c_leaves_no_report(command, datasets, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    monkeypatch.setattr("dnl_d2.validation.scan.scan_pair", interrupt)
    with pytest.raises(SystemExit) as ended:
        command(["--dataset", "generated_sem_seg_val", "--output", str(tmp_path / "report")])
    assert ended.value.code == 130 and "interrupted" in capsys.readouterr().err
    assert list((tmp_path / "report").iterdir()) == []


def test_it_starts_as_a_program(root):
    result = start(root, "check_dataset", "--dataset", "nope")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("check_dataset.py: error: dataset 'nope' is not registered")
