"""tools/train_net.py as a person runs it."""

import pytest

from tests.engine.runs import LAZY_OPTIONS, YAML_OPTIONS, as_lazy, as_yaml, environment  # noqa: F401
from tests.tools.programs import load, run_file, start

STEM = "configs/camvid/fcn_r18w32-d8_4k_camvid-240x320"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a config"),
        (["--config-file", STEM + ".yaml", "SOLVER.MAX_ITR", "3"], "SOLVER.MAX_ITR"),
        (["--config-file", STEM + ".yaml", "--num-gpus", "99"], "--num-gpus 99"),
    ],
)
def test_mistakes_end_in_one_line(root, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        load(root, "train_net").command(arguments)
    line = ended.value.code
    assert line.startswith("train_net.py: error: ") and message in line and "\n" not in line


@pytest.mark.usefixtures("environment")
def test_missing_dataset_ends_in_one_line(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    arguments = ["--config-file", STEM + ".py", f"train.output_dir={tmp_path}/out"]
    said = run_file(["tools/train_net.py", *arguments])
    assert said.startswith("train_net.py: error: ") and str(tmp_path / "camvid") in said
    assert "\n" not in said


@pytest.mark.parametrize("suffix", [".yaml", ".py"])
def test_trains_evaluates_and_shows_progress(root, tmp_path, datasets, suffix):
    overrides = {
        ".yaml": as_yaml(YAML_OPTIONS, length=3, output=tmp_path),
        ".py": as_lazy(LAZY_OPTIONS, length=3, output=tmp_path),
    }[suffix]
    arguments = ["--config-file", STEM + suffix, *overrides]
    result = start(root, "train_net", *arguments, DETECTRON2_DATASETS=str(datasets))
    assert result.returncode == 0, result.stderr[-2000:]
    assert "eta: " in result.stdout and "mIoU" in result.stdout
    assert "SyncBN layers run as BN" in result.stdout
    before = result.stdout[: result.stdout.index("eta: ")].splitlines()
    assert len(before) < 20 and any("8 images" in line for line in before)
    log = (tmp_path / "log.txt").read_text()
    for detail in ("Environment info", "Model:\n", "Serializing 8 elements", "Full config saved"):
        assert detail in log and detail not in result.stdout
    assert "Deprecat" not in result.stderr and "FutureWarning" not in result.stderr
    assert (tmp_path / "model_final.pth").is_file()
