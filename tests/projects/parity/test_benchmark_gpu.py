"""The bars of a GPU: which there are, when they are met, and all but the clock on a CPU."""

import json

import pytest
import torch

from dnl_d2.errors import UsageError
from dnl_d2.modeling import compilation
from dnl_d2_parity.benchmarks import block_runs, gpu_command, gpu_runs, model_command, model_runs
from dnl_d2_parity.benchmarks.block_cases import Settings
from dnl_d2_parity.benchmarks.gpu_cases import PARTS, GpuCase, gpu_cases
from dnl_d2_parity.benchmarks.gpu_report import report, result
from dnl_d2_parity.benchmarks.model_sides import prepare

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

QUICK = "--device cpu --quick --runs 2".split()
FIGURES = {
    "seconds": {"ours": {"median": 0.002}, "reference": {"median": 0.003}},
    "extra_mib": {"ours": 10.0, "reference": 190.0},
    "difference": 1e-6,
}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """No server of processes, which would be started for nothing."""
    monkeypatch.setattr(gpu_command.processes, "preload", lambda *_: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def bars(**parts):
    return {c.name: (c.time_bar, c.memory_bar) for c in gpu_cases(Settings(), **parts)}


def test_bars():
    found = bars(quick=False)
    assert len(found) == 4 * 2 * 3 * 2 + 1 + 2
    assert min(time for time, _ in found.values()) == 1
    assert all(time == 1.2 for name, (time, _) in found.items() if name.startswith("apnb"))
    assert found["nl training 64x128, bfloat16"] == found["dnl training 64x128, bfloat16"]
    assert found["dnl training 64x128, bfloat16"] == (2, None)
    assert found["nl training 128x256, bfloat16"] == (4, 20)
    assert found["dnl training 128x256, bfloat16"] == (5, 20)
    assert found["dnl forward 64x128, bfloat16, both compiled"] == (1, None)
    step = "DNL R-50-D8 training step, 2 x 512x1024, bfloat16, ours"
    assert (found[f"{step} eager"], found[f"{step} tuned"]) == ((1.3, None), (2, None))


def test_a_trial_has_no_bars():
    found = bars(quick=True)
    assert len(found) == 4 * 2 * 2 + 1 + 2 and set(found.values()) == {(None, None)}
    assert {case.part for case in gpu_cases(Settings(), True)} == set(PARTS)


@pytest.mark.parametrize(
    ("time", "memory", "figures", "met"),
    [
        (1.5, 19, FIGURES, True),
        (1.51, None, FIGURES, False),
        (1, 20, FIGURES, False),
        (1, 19, FIGURES | {"extra_mib": {"ours": 0.0, "reference": 190.0}}, False),
        (1, 19, FIGURES | {"extra_mib": {"ours": None, "reference": None}}, False),
        (None, None, FIGURES, True),
        (1, None, {"note": "out of memory"}, False),
        (None, None, {"note": "out of memory"}, False),
    ],
)
def test_verdicts(time, memory, figures, met):
    found = result(GpuCase("nl", "nl", dict, time, memory), figures)
    assert found["met"] is met
    hardware = dict(gpu="H", cpu="C", threads=1, cores=1, torch="2")
    settings = {"quick": False, "runs": 3}
    printed = report(dict(results=[found], hardware=hardware, settings=settings, seconds=1.0))
    cells = [cell.strip() for cell in printed.splitlines()[2].split("|")]
    if "note" in figures:
        assert cells[6] == "not measured" and "nl: out of memory" in printed
        assert "0 of 1 cases met, 1 not measured" in printed
    else:
        assert cells[2:5] == ["3.000", "2.000", "1.50"]
        assert cells[6] == ("-" if time is None else "yes" if met else "NO")


def test_a_trial_on_a_cpu(tmp_path, capsys):
    before = torch.backends.cudnn.allow_tf32
    output = tmp_path / "gpu.json"
    assert gpu_command.main([*QUICK, "--parts", "gc", "--output", str(output)]) == 0
    assert torch.backends.cudnn.allow_tf32 == before
    found = json.loads(output.read_text())
    names = [r["case"] for r in found["results"]]
    kinds = [(way, dtype) for dtype in ("float32", "bfloat16") for way in ("forward", "training")]
    assert names == [f"gc {way} 8x9, {dtype}" for way, dtype in kinds]
    for r in found["results"]:
        assert r["difference"] < 1e-5 and r["ratio"]["seconds"] > 0
        assert len(r["seconds"]["ours"]["all"]) == 2
    printed = capsys.readouterr().out
    assert "| gc training 8x9, bfloat16 " in printed and "no bars; 4 cases ran" in printed


def test_a_spent_budget(capsys):
    assert gpu_command.main([*QUICK, "--budget", "1e-9"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("| not measured |") == 19 and "--budget is spent" in printed


def test_different_results_are_not_timed(monkeypatch, capsys):
    def wrong(block, side, settings, build=block_runs.build):
        module = build(block, side, settings)
        if side == "ours":
            module.channel_add[3].weight.data *= 1.1
        return module

    monkeypatch.setattr(block_runs, "build", wrong)
    monkeypatch.setattr(gpu_runs.measuring, "in_turns", None)
    assert gpu_command.main([*QUICK, "--parts", "gc"]) == 1
    assert "gc forward 8x9, float32: the results differ by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.OutOfMemoryError("x"), "out of memory"),
        (RuntimeError("a kernel\nis missing"), "RuntimeError: a kernel is missing"),
        (UsageError("its process ended"), "UsageError: its process ended"),
    ],
)
def test_what_fails_leaves_the_other_cases(monkeypatch, capsys, error, note):
    def fails():
        raise error

    both = [GpuCase("nl", "first", fails, 1), GpuCase("nl", "second", lambda: FIGURES, 1)]
    monkeypatch.setattr(gpu_command, "check", lambda _: both)
    assert gpu_command.main(QUICK) == 1
    printed = capsys.readouterr().out
    assert f"first: {note}" in printed and "| second " in printed


@pytest.mark.parametrize(("words", "runs"), [("", 3), ("--runs 5", 5)])
def test_a_trial_has_few_runs_and_the_threads_that_the_report_names(monkeypatch, words, runs):
    seen = []
    monkeypatch.setattr(gpu_command, "gpu_cases", lambda settings, _: seen.append(settings) or [])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)  # such as OMP_NUM_THREADS
    gpu_command.check(gpu_command.parse_args([*"--device cpu --quick".split(), *words.split()]))
    assert [(s.runs, s.threads) for s in seen] == [(runs, 7)]


def test_ctrl_c_keeps_what_is_measured(monkeypatch, capsys):
    def stops():
        raise KeyboardInterrupt

    both = [GpuCase("nl", "first", lambda: FIGURES, 1), GpuCase("nl", "second", stops, 1)]
    monkeypatch.setattr(gpu_command, "check", lambda _: both)
    assert gpu_command.main(QUICK) == 130
    printed = capsys.readouterr().out
    assert "| first " in printed and "second: interrupted" in printed


@pytest.mark.parametrize("tuned", [False, True])
def test_steps(monkeypatch, tuned):
    asked = []

    def measure(args):
        asked.append((args.autocast, args.tuned, args.runs))
        assert args.training and args.opts == ["MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"]
        return FIGURES | {"difference": 2e-2 if args.autocast else 1e-6}

    monkeypatch.setattr(model_runs, "measure", measure)
    found = gpu_runs.step(tuned, (33, 65), Settings(runs=7, threads=1))
    eager = [(False, False, 1), (True, False, 7)]
    assert asked == ([(True, True, 7)] if tuned else eager)
    assert found["difference"] == (2e-2 if tuned else 1e-6)
    assert found["seconds"] == FIGURES["seconds"]
    monkeypatch.setattr(model_runs, "measure", lambda _: FIGURES | {"difference": 0.2})
    with pytest.raises(gpu_runs.Differs, match=r"differ by 2.0e-01"):
        gpu_runs.step(tuned, (33, 65), Settings(threads=1))


def test_a_tuned_step_has_the_same_loss(root, monkeypatch):
    monkeypatch.setattr(compilation, "_BACKEND", "eager")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    config = root / "configs/camvid/dnl_r18w32-d8_4k_camvid-240x320.yaml"
    words = ["--config-file", str(config), "--training", "--size", "33", "65"]
    losses = []
    for options in ([], ["--tuned"]):
        args = model_command.parse_args([*words, *options])
        model_command.check(args)
        args.reference = "plain"  # mmsegmentation has no such small model
        run = prepare("ours", args)
        losses.append([run().item() for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][0] != losses[0][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "there is no CUDA device here, which the bars are for"),
        ("--device cpu", "--device cpu: the bars are those of a GPU"),
        ("--parts nl nll", "--parts: unknown 'nll'; use one of nl, dnl, gc, apnb, compiled, step"),
        ("--runs 0", "--runs must be a positive integer"),
        ("--budget 0", "--budget must be a positive number"),
        ("--output no/folder/x.json", "there is no folder"),
    ],
)
def test_mistakes(monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message) as error:
        gpu_command.main(arguments.split())
    assert "\n" not in str(error.value)
