"""Blocks beside their references: time, memory, operations, and what is left when a part fails."""

import json
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dnl_d2.errors import UsageError
from dnl_d2_parity.benchmarks import block_runs, processes
from dnl_d2_parity.benchmarks.block_cases import SIDES, Case, Settings
from dnl_d2_parity.benchmarks.block_command import check, main, parse_args
from dnl_d2_parity.benchmarks.block_costs import MAPS, PRODUCTS
from dnl_d2_parity.benchmarks.block_pairs import PAIRS
from dnl_d2_parity.benchmarks.block_report import growth, growth_table, table
from dnl_d2_parity.benchmarks.block_runs import ready, times
from dnl_d2_parity.benchmarks.launches import count_launches

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

SMALL = "--channels 16 --inter-channels 8 --runs 2 --threads 1".split()


@pytest.fixture
def in_this_process(monkeypatch):
    """Without processes of their own, which take seconds to start."""
    monkeypatch.setattr(processes, "in_own_process", lambda function, *args: function(*args))
    monkeypatch.setattr(processes, "preload", lambda *_: None)


@pytest.fixture
def small():
    return Settings(channels=16, inter_channels=8, runs=2, threads=1)


@pytest.fixture
def command(in_this_process, tmp_path):
    """Returns ``command(options) -> status``, which writes to ``tmp_path``."""
    return lambda options: main([*options.split(), *SMALL, "--output", str(tmp_path)])


def read(folder):
    return json.loads((folder / "benchmark_blocks.json").read_text())


@pytest.mark.slow
def test_command(run_tool, tmp_path):
    arguments = ["--blocks", "concatenation", "--sizes", "8x8", "9x10"]
    result = run_tool("benchmark_blocks.py", *arguments, *SMALL, "--output", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    report = read(tmp_path)
    names = [(r["block"], r["phase"], r["size"]) for r in report["results"]]
    assert names == [("concatenation", "forward", size) for size in ("8x8", "9x10")]
    for r in report["results"]:
        assert f"| {r['block']} " in result.stdout
        assert r["ratio"]["seconds"] > 0
        assert r["difference"] < 1e-5
        for side in ("ours", "reference", "product"):
            assert len(r["seconds"][side]["all"]) == 2
        assert r["hardware"]["torch"] == torch.__version__
        assert r["hardware"]["threads"] == 1
        assert r["gflops"]["ours"] > 0
        assert r["launches"]["ours"] > [0, 0] and "reference" not in r["launches"]
        assert not r["notes"]
    assert "concatenation forward 9x10: " in result.stdout
    assert "times the time of our dot product" in result.stdout
    lines = [(g["block"], g["column"], g["side"]) for g in report["growth"]]
    for side in ("ours", "reference"):
        assert ("concatenation", "seconds", side) in lines
    assert (tmp_path / "benchmark_blocks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("phase", ["forward", "training"])
@pytest.mark.parametrize("block", PAIRS)
def test_pairs_are_equal(small, block, phase):
    if phase == "training" and PAIRS[block].untrainable:
        with pytest.raises(RuntimeError, match="inplace"):
            ready(block, "reference", True, (8, 9), small)()
        return
    found = times(Case(block, phase, 17, 18), SIDES, small)
    assert found["difference"] < 1e-4
    assert all(min(counts) > 0 for counts in found["launches"].values())
    assert all(s["min"] > 0 for s in found["seconds"].values())


def test_the_costs_of_all_blocks_are_known():
    assert list(PAIRS) == list(PRODUCTS) == list(MAPS)


def test_autocast(small):
    settings = Settings(**{**vars(small), "dtype": "bfloat16"})
    out, gradient = ready("apnb", "ours", True, (8, 9), settings)()
    assert (out.dtype, gradient.dtype) == (torch.bfloat16, torch.float32)
    found = times(Case("nl", "training", 8, 9), SIDES, settings)
    assert 1e-5 < found["difference"] < 0.1
    way = dict(autocast=True, dtype=torch.float32)
    for side in SIDES:
        assert found["launches"][side] == count_launches("nl", side, settings, **way)
    compiled = Settings(**{**vars(small), "compile": True})
    assert not block_runs._launches("nl", SIDES, compiled)


def test_different_outputs_fail(command, monkeypatch, capsys):
    def wrong(block, side, settings, build=block_runs.build):
        module = build(block, side, settings)
        if side == "ours":
            module.value.weight.data *= 1.1
        return module

    monkeypatch.setattr(block_runs, "build", wrong)
    assert command("--blocks nl --sizes 8x8") == 1
    assert "nl forward 8x8: ours: differs from the reference by" in capsys.readouterr().out


def test_a_reference_that_is_too_large(command, tmp_path, capsys):
    assert command("--blocks concatenation --sizes 8x8 --memory-limit 0.0001") == 0
    (found,) = read(tmp_path)["results"]
    assert set(found["seconds"]) == {"ours", "dot", "product"}
    assert set(found["extra_mib"]) == {"ours"}
    assert found["ratio"]["seconds"] is None
    assert found["ratio"]["ours_to_dot"] > 0
    printed = capsys.readouterr().out
    row = next(s for s in printed.splitlines() if s.startswith("| concatenation"))
    assert [cell.strip() for cell in row.split("|")][5:7] == ["-", "-"]
    assert "reference: not run: needs about 0.00 GiB, may have 0.00" in printed


@pytest.mark.parametrize("function", ["peak_memory", "times"])
def test_a_killed_reference_loses_nothing_else(command, monkeypatch, tmp_path, capsys, function):
    def run(called, case, what, settings):
        sides = [what] if isinstance(what, str) else what
        if case.block == "nl" and called.__name__ == function and "reference" in sides:
            raise processes.Failed("its process ended with status -9; out of memory?")
        return called(case, what, settings)

    monkeypatch.setattr(processes, "in_own_process", run)
    assert command("--blocks nl gc --sizes 8x8") == 1
    first, second = read(tmp_path)["results"]
    assert first["failed"] == ["reference"]
    assert set(first["seconds"]) == {"ours", "product"}
    assert set(second["seconds"]) == {"ours", "reference", "product"}
    assert "nl forward 8x8: reference: its process ended with" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_measured(command, monkeypatch, tmp_path, capsys):
    def run(called, case, *rest):
        if case.block == "gc":
            raise KeyboardInterrupt
        return called(case, *rest)

    monkeypatch.setattr(processes, "in_own_process", run)
    assert command("--blocks nl gc --sizes 8x8") == 130
    assert [r["block"] for r in read(tmp_path)["results"]] == ["nl"]
    assert "| nl " in capsys.readouterr().out


@pytest.mark.parametrize("block", ["nl", "dnl", "dot", "gaussian", "gc", "apnb"])
def test_multiply_adds(block):
    """What PyTorch counts; it leaves out biases, softmaxes and norms, as we do."""
    settings = Settings(channels=32, inter_channels=16, threads=1, backend="plain")
    run = ready(block, "ours", False, (48, 60), settings)
    # PyTorch forgets the variant in place.
    products = {torch.ops.aten.baddbmm_: lambda _, a, b, **__: 2 * math.prod(a) * b[-1]}
    with FlopCounterMode(display=False, custom_mapping=products) as counter:
        run()
    expected = counter.get_total_flops() / 2
    # Pooling along the second axis is left out.
    bar = 0.05 if block == "apnb" else 0.01
    assert PRODUCTS[block](32, 16, 48 * 60) == pytest.approx(expected, rel=bar)


def test_growth():
    def result(n, seconds, mib, side="ours"):
        figures = dict(seconds={side: {"median": seconds}}, extra_mib={side: mib})
        return dict(block="dnl", phase="training", positions=n, **figures)

    quadratic = [result(n, 3e-6 * n**2, 0.1 * n) for n in (64, 256, 1024)]
    lines = growth([*quadratic, result(16, 1.0, 0.0, "reference")])
    assert [(g["column"], g["side"]) for g in lines] == [("seconds", "ours"), ("extra MiB", "ours")]
    assert [g["exponent"] for g in lines] == pytest.approx([2, 1])
    assert lines[0]["x"] == (64, 256, 1024)
    cells = growth_table(lines).splitlines()[2].split("|")
    assert [c.strip() for c in cells][1:-1] == ["dnl", "training", "L^2.00", "-", "L^1.00", "-"]


def test_bars():
    cases, settings = check(parse_args(["--preset", "bars"]))
    assert len(cases) == len(set(cases)) == 16
    assert Case("dnl", "training", 97, 97, 1.3, 4) in cases
    assert (settings.channels, settings.inter_channels, settings.runs) == (512, 256, 5)
    ratio = {"seconds": 1.6, "extra_mib": 5.9}
    empty = dict(seconds={}, extra_mib={}, gflops={}, difference=None, ratio=ratio)
    empty["launches"] = {"ours": (9, 14)}
    row = dict(block="nl", phase="forward", size="64x128", time_bar=1.5, memory_bar=6, **empty)
    cells = [cell.strip() for cell in table([row]).splitlines()[-1].split("|")]
    assert cells[-3:-1] == ["1.5, met", "6, missed"]
    assert cells[10:12] == ["9+14", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--blocks nl nll", "--blocks: unknown 'nll'; use one of nl, dnl, dot, "),
        ("--sizes 8x8 64", "--sizes: '64' is no size; write it as HxW"),
        ("--sizes 0x8", "--sizes: '0x8' is no size"),
        ("--passes backward", "--passes: unknown 'backward'; use one of forward, training"),
        ("--preset all", "--preset: unknown 'all'; use one of bars"),
        ("--preset bars --sizes 8x8", "--preset has its own --blocks, --passes and --sizes"),
        ("--backend flash", "unknown attention_backend 'flash'"),
        ("--runs 0", "--runs must be a positive integer, got 0"),
        ("--memory-limit 0", "--memory-limit must be a positive number"),
        ("--channels 10 --inter-channels 4", "--inter-channels 4 does not divide --channels 10"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError) as error:
        main(arguments.split())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_output_that_cannot_be(in_this_process, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--output .*file: "):
        main([*SMALL, "--output", str(tmp_path / "file")])
