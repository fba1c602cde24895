"""The benchmark of whole models: its figures, and that both sides are one model."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from dnl_d2.errors import UsageError

DNL = "configs/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"
SMALL = "configs/camvid/dnl_r18w32-d8_4k_camvid-240x320"


def run(root, *options):
    return subprocess.run(
        [sys.executable, "tools/benchmark_model.py", *options],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )


def figures(root, tmp_path, *options):
    out = tmp_path / "figures.json"
    common = ["--size", "33", "65", "--runs", "2", "--threads", "1", "--output", str(out)]
    result = run(root, *common, *options)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    return json.loads(out.read_text()), result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--config-file", f"{DNL}.yaml"],
        ["--config-file", f"{DNL}.py", "--training", "--batch", "1"],
        [
            "--config-file",
            f"{SMALL}.py",
            "--reference",
            "plain",
            "model.sem_seg_head.num_classes=3",
        ],
    ],
    ids=["inference", "training", "plain"],
)
@pytest.mark.slow
def test_figures(root, tmp_path, options):
    found, printed = figures(root, tmp_path, *options)
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
    lines = printed.splitlines()
    name = found["reference"]
    for start in (f"| {name} ", f"| {name} / ours ", "| ours", "relative difference of the "):
        assert any(line.startswith(start) for line in lines), start
    assert f"{found['ratio']['seconds']['median']:.2f}" in printed


@pytest.fixture(scope="module")
def module(root):
    path = root / "tools" / "benchmark_model.py"
    spec = importlib.util.spec_from_file_location("benchmark_model", path)
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no.yaml"], "--config-file no.yaml: no such file"),
        ([f"{DNL}.yaml", "--runs", "0"], "--runs must be a positive integer"),
        ([f"{DNL}.yaml", "--batch", "2"], "--batch is for --training"),
        ([f"{DNL}.yaml", "--training", "--optimize"], "--optimize is for inference"),
        ([f"{DNL}.yaml", "--training", "--reference", "plain"], "has nothing to compare"),
        ([f"{DNL}.yaml", "--output", "no/folder/x.json"], "there is no folder"),
        ([f"{DNL}.yaml", "MODEL.NOPE", "1"], "MODEL.NOPE"),
        ([f"{SMALL}.yaml"], "mmsegmentation publishes no such model"),
        (
            [f"{DNL}.py", "model.sem_seg_head.channels=256"],
            "not the published dnl R-50-D8",
        ),
    ],
)
def test_mistakes_are_named(module, root, monkeypatch, options, message):
    monkeypatch.chdir(root)
    with pytest.raises(UsageError, match=re.escape(message)):
        args = module.parse_args(["--config-file", *options])
        module.check(args)
        module.prepare("ours", args)


def test_no_cuda_and_no_mmsegmentation(module, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="there is no CUDA device here"):
        module.main(["--config-file", f"{DNL}.yaml", "--device", "cuda"])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install --no-deps -r requirements/parity.txt"):
        module.main(["--config-file", f"{DNL}.yaml"])


def test_another_model_than_the_reference_fails(module, root, monkeypatch, capsys):
    """A temperature is in no weight: only the outputs tell."""
    monkeypatch.chdir(root)
    found = module.prepare("ours", arguments(module))()
    other = module.prepare(
        "ours", arguments(module, "model.sem_seg_head.context_block.temperature=1.0")
    )()
    difference = module.relative(other.numpy(), found.numpy())
    assert difference > 2e-3
    monkeypatch.setattr(module, "measure", lambda _: {"difference": difference})
    monkeypatch.setattr(module, "report", lambda _: "the table")
    with pytest.raises(UsageError, match=r"the outputs differ by .*another one than the reference"):
        module.main(["--config-file", f"{DNL}.py"])
    assert capsys.readouterr().out == "the table\n"


def arguments(module, *overrides):
    args = module.parse_args(["--config-file", f"{DNL}.py", "--size", "33", "65", *overrides])
    module.check(args)
    return args


def test_a_mistake_ends_in_one_line(root):
    result = run(root, "--config-file", "no.yaml")
    assert result.returncode == 1
    line = result.stderr.strip().splitlines()[-1]  # Detectron2 may warn before it
    assert line == "benchmark_model.py: error: --config-file no.yaml: no such file"


def test_a_process_that_dies_is_named(module, monkeypatch):
    monkeypatch.setattr(module, "serve", os.abort)
    with (
        pytest.raises(UsageError, match=r"the process of ours ended with status .*: out of memory"),
        module.process("ours", None) as ask,
    ):
        ask()


def test_peak_memory_counts_what_is_freed_again(module):
    memory = module.PeakMemory("cpu")
    if memory.start is None:
        pytest.skip("this system does not tell")
    held = torch.ones(64 * 2**18)  # 64 MiB
    del held
    assert 60 < memory.mib() < 100
