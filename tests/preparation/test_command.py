"""The command line of the preparations."""

import subprocess
import sys

import numpy as np
import pytest

from dnl_d2.errors import UsageError
from dnl_d2.preparation import PREPARATIONS, prepare_dataset
from tests.miniatures import (
    BUILDERS,
    build_ade20k,
)
from tests.pictures import truncate
from tests.preparation.formats import ADE, indices
from tests.processes import with_root
from tests.tools.programs import run_file


def test_command_line(tmp_path, root, monkeypatch, capsys):
    truth = build_ade20k(tmp_path)
    broken = tmp_path / ADE / "annotations/training/ADE_train_00000001.png"
    sound = broken.read_bytes()
    truncate(str(broken))
    command = [str(root / "tools/prepare_dataset.py"), "ade20k"]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    said = run_file(command)
    assert said.startswith(f"prepare_dataset.py: error: ade20k: label {broken} cannot be read")
    assert "4 labels written, 0 were there already" in capsys.readouterr().out
    broken.write_bytes(sound)
    monkeypatch.delenv("DETECTRON2_DATASETS")
    command = [sys.executable, *command, "--root", str(tmp_path), "--workers", "2"]
    environment = with_root(root)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "1 labels written, 4 were there already" in ended.stdout
    made = indices(tmp_path / ADE / "annotations_detectron2/training/ADE_train_00000001.png")
    np.testing.assert_array_equal(made, truth["ADE_train_00000001"])


def test_workers_must_be_positive(tmp_path):
    with pytest.raises(UsageError, match="--workers is 0"):
        prepare_dataset("voc", root=str(tmp_path), workers=0)


def test_every_preparation_has_a_miniature():
    assert set(PREPARATIONS) == set(BUILDERS)
