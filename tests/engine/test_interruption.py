"""Runs that are asked to end: by signals, by a time limit, while they train or evaluate."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from detectron2.engine import SimpleTrainer

from dnl_d2.engine import interruption, run
from dnl_d2.engine.interruption import (
    STOPPED,
    Stopped,
    StopRequest,
    latest_stop,
    listening,
    parse_time,
    passing_on,
)
from dnl_d2.errors import UsageError
from tests.engine.runs import (
    YAML_OPTIONS,
    arguments,
    as_yaml,
    environment,  # noqa: F401
    lazy_config,
    yaml_config,
)
from tests.processes import with_root

CONFIG = "configs/camvid/dnl_r18w32-d8_4k_camvid-240x320.yaml"


@pytest.fixture(autouse=True)
def ctrl_c():
    """A shell has what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signal_in_step(monkeypatch):
    """A function that has a signal sent to this process in the step of an iteration."""

    def send(number, iteration):
        real = SimpleTrainer.run_step

        def run_step(self):
            if self.iter == iteration:
                signal.raise_signal(number)
            real(self)

        monkeypatch.setattr(SimpleTrainer, "run_step", run_step)

    return send


@pytest.mark.parametrize("config", [yaml_config, lazy_config])
@pytest.mark.usefixtures("environment")
def test_a_signal_ends_a_run_that_resumes(tmp_path, signal_in_step, config):
    cfg = config(tmp_path, length=5, period=2)
    signal_in_step(signal.SIGTERM, 2)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as ended:
        run(cfg, arguments())
    assert ended.value.code == STOPPED
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    signal_in_step(signal.SIGUSR1, 4)  # in the last iteration, after which it is saved anyway
    with pytest.raises(Stopped):
        run(config(tmp_path, length=5, period=2), arguments(resume=True))
    saved = sorted(file.name for file in tmp_path.glob("*.pth"))
    assert saved == [
        "model_0000001.pth",
        "model_0000002.pth",
        "model_0000003.pth",
        "model_final.pth",
    ]
    assert "SIGUSR1: stopped after iteration 4; " in (tmp_path / "log.txt").read_text()
    assert "ended" in json.loads((tmp_path / "run.json").read_text())[-1]
    assert '"iteration": 4' in (tmp_path / "metrics.json").read_text()


@pytest.mark.usefixtures("environment")
def test_an_evaluation_is_abandoned(tmp_path, monkeypatch):
    evaluated = []

    def interrupted(*args, **kwargs):
        evaluated.append(True)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the evaluation went on")

    monkeypatch.setattr("detectron2.engine.defaults.inference_on_dataset", interrupted)
    with pytest.raises(Stopped):
        run(yaml_config(tmp_path, length=5, eval_period=2), arguments())
    assert evaluated == [True]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert "iteration 1, an evaluation not finished; " in (tmp_path / "log.txt").read_text()


@pytest.mark.usefixtures("environment")
def test_an_evaluation_that_is_made_up_for_is_abandoned_too(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("detectron2.engine.defaults.inference_on_dataset", interrupted)
    for resume in (False, True):
        with pytest.raises(Stopped) as ended:
            run(yaml_config(tmp_path, length=5, eval_period=2), arguments(resume=resume))
        assert [file.name for file in tmp_path.glob("*.pth")] == ["model_0000001.pth"]
    assert "SIGTERM: stopped before an iteration, an evaluation" in ended.value.message


@pytest.mark.usefixtures("environment")
def test_the_last_evaluation_is_abandoned(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("detectron2.engine.defaults.inference_on_dataset", interrupted)
    with pytest.raises(Stopped) as ended:
        run(yaml_config(tmp_path, length=2, eval_period=2), arguments())
    assert "SIGTERM: stopped after iteration 1, an evaluation not finished" in ended.value.message
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.usefixtures("environment")
def test_a_time_limit_leaves_time_to_save(tmp_path):
    with pytest.raises(Stopped):
        run(yaml_config(tmp_path, length=5), arguments(latest_stop=time.time()))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"
    assert "the time limit: stopped" in (tmp_path / "log.txt").read_text()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert latest_stop(100.0, 36000.0) == 100 + 36000 - 120
    assert latest_stop(100.0, 60.0) == 100 + 60 - 6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), ("3:30:00", 12600),
     ("1-02:00:01", 93601)],
)  # fmt: skip
def test_time_limits(text, seconds):
    assert parse_time(text, "--time-limit") == seconds


@pytest.mark.parametrize("text", ["", "4", "h", "0s", "-1h", "4 h", "3:30", "1e3s"])
def test_what_is_no_time_limit(text):
    with pytest.raises(UsageError, match=r"--time-limit '.*': give a time such as"):
        parse_time(text, "--time-limit")


@pytest.fixture
def ended(monkeypatch):
    """The signals that would have ended this process at once."""
    numbers = []
    monkeypatch.setattr(interruption, "_end_at_once", numbers.append)
    return numbers


@pytest.fixture
def now(monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: seconds[0])
    return seconds


def test_one_event_is_one_signal_and_a_later_one_ends_at_once(ended, now):
    request = StopRequest()
    with listening(request, time.time() + 1000):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert request.reason == "SIGINT" and not ended
        now[0] += 5
        signal.raise_signal(signal.SIGALRM)
        signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM]


def test_a_launcher_that_ends_the_other_processes_lets_them_save(ended, now, monkeypatch):
    monkeypatch.setattr(interruption.comm, "get_world_size", lambda: 2)
    with listening(StopRequest()):
        signal.raise_signal(signal.SIGTERM)
        now[0] += 5
        signal.raise_signal(signal.SIGTERM)
        assert not ended
        signal.raise_signal(signal.SIGINT)
    assert ended == [signal.SIGINT]


@pytest.mark.parametrize("hearing", [lambda: listening(StopRequest()), passing_on])
def test_what_nohup_ignores_is_ignored(hearing):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hearing():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_real_run_leaves_no_worker(root, tmp_path, datasets):
    """SIGTERM to all of a process group, as from a batch system: loaders' workers have it too."""
    options = as_yaml(YAML_OPTIONS, length=100000, output=tmp_path, DATALOADER__NUM_WORKERS=2)
    command = [sys.executable, "tools/train_net.py", "--config-file", CONFIG, *options]
    variables = with_root(root, DETECTRON2_DATASETS=str(datasets), OMP_NUM_THREADS="1")
    with subprocess.Popen(
        command, cwd=root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _wait_for(tmp_path / "metrics.json", process)
            os.killpg(process.pid, signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == STOPPED, output
    assert "SIGTERM: stopped after iteration" in output and "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def _wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not (path.is_file() and path.stat().st_size):
        assert process.poll() is None and time.monotonic() < end, process.stdout.read()
        time.sleep(0.1)
