"""The benchmark of whole models: its figures, and that both sides are one model."""

import json
import os
import re
import sys

import pytest

from dnl_d2.errors import UsageError
from dnl_d2_parity.benchmarks import model_command, model_runs
from dnl_d2_parity.benchmarks.model_sides import prepare
from dnl_d2_parity.differences import relative
from tests.tools.programs import run_file

DNL = "configs/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"
SMALL = "configs/camvid/dnl_r18w32-d8_4k_camvid-240x320"


@pytest.mark.parametrize(
    "options",
    [
        f"--config-file {DNL}.yaml",
        f"--config-file {DNL}.py --training --batch 1",
        f"--config-file {SMALL}.py --reference plain model.sem_seg_head.num_classes=3",
    ],
    ids=["inference", "training", "plain"],
)
@pytest.mark.slow
def test_figures(run_tool, tmp_path, options):
    out = tmp_path / "figures.json"
    common = f"--size 33 65 --runs 2 --threads 1 --output {out}"
    result = run_tool("benchmark_model.py", *common.split(), *options.split())
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["difference"] < 1e-4
    assert found["optimize"] == ("--training" not in options)
    for side in ("ours", "reference"):
        seconds = found["seconds"][side]
        assert len(seconds["all"]) == 2
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        if sys.platform == "linux":
            assert found["extra_mib"][side] > 0
    pairs = zip(*(found["seconds"][s]["all"] for s in ("reference", "ours")), strict=True)
    ratios = [theirs / ours for theirs, ours in pairs]
    assert found["ratio"]["seconds"]["all"] == pytest.approx(ratios)
    assert found["hardware"]["threads"] == 1 and found["hardware"]["cpu"]
    lines = result.stdout.splitlines()
    name = found["reference"]
    for start in (f"| {name} ", f"| {name} / ours ", "| ours", "relative difference of the "):
        assert any(line.startswith(start) for line in lines), start
    assert f"{found['ratio']['seconds']['median']:.2f}" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("no.yaml", "--config-file no.yaml: no such file"),
        (f"{DNL}.yaml --runs 0", "--runs must be a positive integer"),
        (f"{DNL}.yaml --batch 2", "--batch is for --training"),
        (f"{DNL}.yaml --training --optimize", "--optimize is for inference"),
        (f"{DNL}.yaml --tuned", "--tuned is for --training"),
        (f"{DNL}.yaml --training --reference plain", "has nothing to compare"),
        (f"{DNL}.yaml --training --precision bfloat16", "--precision bfloat16 is for inference"),
        (f"{DNL}.yaml --autocast --precision bfloat16", "takes the place of --autocast"),
        (f"{DNL}.yaml --output no/folder/x.json", "there is no folder"),
        (f"{DNL}.yaml MODEL.NOPE 1", "MODEL.NOPE"),
        (f"{SMALL}.yaml", "mmsegmentation publishes no such model"),
        (f"{DNL}.py model.sem_seg_head.channels=256", "not the published dnl R-50-D8"),
    ],
)
def test_mistakes_are_named(root, monkeypatch, options, message):
    monkeypatch.chdir(root)
    with pytest.raises(UsageError, match=re.escape(message)):
        prepare("ours", arguments(options))


def test_precision_beside_fp32(root, monkeypatch):
    """The sides of one small model: both optimised, one of them rounded."""
    monkeypatch.chdir(root)
    options = f"{SMALL}.yaml --reference optimized --precision bfloat16 --size 65 97"
    ours, reference = (prepare(side, arguments(options))() for side in ("ours", "reference"))
    assert 1e-4 < relative(ours, reference) < 0.1
    same = model_runs._equal_labels(ours, reference)
    assert 0.8 < same < 1 and model_runs._equal_labels(ours, ours) == 1


def test_no_cuda_and_no_mmsegmentation(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(model_command.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="there is no CUDA device here"):
        model_command.main(["--config-file", f"{DNL}.yaml", "--device", "cuda"])
    monkeypatch.setattr(model_command.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install --no-deps -r requirements/parity.txt"):
        model_command.main(["--config-file", f"{DNL}.yaml"])


def test_another_model_than_the_reference_fails(root, monkeypatch, capsys):
    """A temperature is in no weight: only the outputs tell."""
    monkeypatch.chdir(root)
    small = f"{DNL}.py --size 33 65"
    found = prepare("ours", arguments(small))()
    temperature = "model.sem_seg_head.context_block.temperature=1.0"
    other = prepare("ours", arguments(f"{small} {temperature}"))()
    difference = relative(other, found)
    assert difference > 2e-3
    monkeypatch.setattr(model_command, "measure", lambda _: {"difference": difference})
    monkeypatch.setattr(model_command, "report", lambda _: "the table")
    with pytest.raises(UsageError, match=r"the outputs differ by .*another one than the reference"):
        model_command.main(["--config-file", f"{DNL}.py"])
    assert capsys.readouterr().out == "the table\n"


def arguments(options):
    """The parsed and checked arguments after ``--config-file``."""
    args = model_command.parse_args(f"--config-file {options}".split())
    model_command.check(args)
    return args


def test_a_mistake_ends_in_one_line(root):
    script = str(root / "projects/parity/benchmark_model.py")
    line = run_file([script, "--config-file", "no.yaml"])
    assert line == "benchmark_model.py: error: --config-file no.yaml: no such file"


def _dies(*_):
    os.abort()


def _mistaken(*_):
    raise UsageError("a mistake: a reason")


def _fails(*_):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (_dies, r"^the process of ours ended with status .*: out of memory"),
        (_mistaken, r"^a mistake: a reason$"),
        (_fails, r"^ours: see the traceback above$"),
    ],
)
def test_what_goes_wrong_in_a_process_is_told(monkeypatch, capsys, passes, message):
    monkeypatch.setattr(model_runs, "passes", passes)
    with pytest.raises(UsageError, match=message), model_runs.process("ours", None) as ask:
        ask()
    assert ("KeyError: 'x'" in capsys.readouterr().err) == (passes is _fails)
