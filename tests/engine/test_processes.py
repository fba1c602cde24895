"""How the processes of a run find each other, and what becomes of the others when one goes."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import defaults
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from torch.nn import BatchNorm1d

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.engine import interruption, processes, run
from dnl_d2.engine.environment import share_buffers
from dnl_d2.engine.interruption import STOPPED
from dnl_d2.engine.processes import Place, call_among_others, given_place, launch
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, environment, yaml_config  # noqa: F401
from tests.engine.test_cli import STEM
from tests.tools.programs import load

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_JOB_ID": "10", "SLURM_STEP_ID": "1",
}  # fmt: skip
SOON = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # two processes want two GPUs where there is one
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        (TORCHRUN, "tcp://node1:29500"),
        (SRUN, "tcp://gpu03:20071"),
        (SRUN | {"SLURM_STEP_NODELIST": "a-1,b-[2,5]"}, "tcp://a-1:20071"),
        (SRUN | {"SLURM_STEP_NODELIST": "n[7,9].local"}, "tcp://n7.local:20071"),
        (SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}, "tcp://head:1234"),
    ],
)
def test_where_launchers_put_a_process(variables, url):
    assert given_place(variables) == Place(3, 4, 1, 2, url)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"},
        {key: value for key, value in TORCHRUN.items() if key != "LOCAL_RANK"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # the script of sbatch, which is no task
    ],
)
def test_where_there_is_one_process(variables):
    assert given_place(variables) is None


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4,3"}, "give every machine as many tasks"),
        (SRUN | {"SLURM_STEP_NODELIST": ""}, "set MASTER_ADDR"),
        (TORCHRUN | {"RANK": "x"}, "environment variable RANK='x'"),
    ],
)
def test_variables_that_cannot_be_meant(variables, message):
    with pytest.raises(UsageError, match=message):
        given_place(variables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"machines": 2}, "--dist-url tcp://HOST:PORT of the first machine is needed"),
        ({"url": "tcp://host"}, "--dist-url 'tcp://host': give"),
        ({"url": "tcp://host:port"}, "--dist-url 'tcp://host:port': give"),
        ({"url": "http://host:1"}, "--dist-url 'http://host:1': give"),
    ],
)
def test_addresses_that_cannot_be_meant(options, message):
    with pytest.raises(UsageError, match=message):
        launch(print, 2, timeout=SOON, **options)


def test_one_process_is_this_one():
    seen = []
    launch(seen.append, 1, args=("here",), timeout=SOON)
    assert seen == ["here"]


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (0, "process 0 of 3: 1, 2 did not come to file://.* within 0.2 s"),
        (2, "process 2 of 3: 0, 1 did not come to file://.* within 0.2 s"),
    ],
)
def test_processes_that_do_not_come_are_named(tmp_path, rank, message):
    place = Place(rank, 3, rank, 3, f"file://{tmp_path}/meeting")
    with pytest.raises(UsageError, match=message):
        call_among_others(print, (), place, timedelta(seconds=0.2))
    assert not dist.is_initialized()


def test_a_file_that_a_crashed_run_has_left(tmp_path):
    """Its processes are not taken for those of the run, whoever comes first."""
    path = tmp_path / "meeting"
    left = dist.PrefixStore("dnl_d2/0", dist.FileStore(str(path), 2))
    for rank in range(2):
        left.set(f"process{rank}", "here")
        left.set(f"asks{rank}", "00")
        left.set(f"group/{rank}", "gone")
    left.set("answer00", "11")
    for rank in range(2):
        place = Place(rank, 2, rank, 2, f"file://{path}")
        with pytest.raises(UsageError, match=f"process {rank} of 2: {1 - rank} did not come to"):
            call_among_others(print, (), place, timedelta(seconds=0.2))
    places = [Place(rank, 2, rank, 2, f"file://{path}") for rank in range(2)]
    with ThreadPoolExecutor() as pool:  # in place of processes
        first, second = pool.map(partial(processes._meet, timeout=SOON), places)
    first.set("group/0", "here")
    assert second.get("group/0") == b"here" and not second.check(["group/1"])


def test_a_first_process_that_does_not_answer_is_named():
    place = Place(1, 2, 1, 2, "tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="process 1 of 2: process 0 does not answer at tcp://127"):
        call_among_others(print, (), place, timedelta(seconds=0.2))


def test_launched_twice_is_refused(root, monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="4 processes have been started already"):
        load(root, "train_net").command(["--config-file", f"{STEM}.yaml", "--num-gpus", "2"])


def stop_one(folder):
    """A run of two processes, of which one is asked to stop."""
    norm = BatchNorm1d(1)
    norm(torch.randn(8, 1, generator=torch.Generator().manual_seed(dist.get_rank())))
    before = comm.all_gather(norm.running_mean.item())
    share_buffers(norm)
    assert before[0] != before[1] and comm.all_gather(norm.running_mean.item()) == [before[0]] * 2
    run(yaml_config(folder, length=50), arguments(latest_stop=0.0 if dist.get_rank() else None))


@pytest.mark.usefixtures("environment")
def test_processes_share_buffers_and_stop_when_one_is_asked_to(tmp_path):
    with pytest.raises(ProcessExitedException) as ended:
        launch(stop_one, 2, args=(tmp_path,), timeout=SOON)
    assert ended.value.exit_code == STOPPED
    assert [file.name for file in tmp_path.glob("*.pth")] == ["model_0000000.pth"]
    assert "asked to stop: stopped after iteration 0; " in (tmp_path / "log.txt").read_text()


def stop_in_evaluation(folder, slow):
    """A run of two processes that are asked to stop while one waits for the other's results."""

    def evaluate(*args, **kwargs):
        signal.setitimer(signal.ITIMER_REAL, 0.5)  # the time limit
        if dist.get_rank() == slow:
            time.sleep(600)
        comm.synchronize()

    def save(*args, **kwargs):
        time.sleep(1.5)  # a large model: the other process ends before it is saved, of which the
        signal.raise_signal(signal.SIGTERM)  # launcher hears, later than this one
        real_save(*args, **kwargs)

    real_save, Checkpointer.save = Checkpointer.save, save
    defaults.inference_on_dataset = evaluate
    interruption._WAIT_IN_EVALUATION = 2.0
    cfg = yaml_config(folder, length=50, eval_period=1)
    run(cfg, arguments(latest_stop=time.time() + 1000))


@pytest.mark.slow
@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.usefixtures("environment")
def test_a_process_that_waits_for_results_keeps_no_other_from_stopping(tmp_path, slow):
    """How the waiting one ends, whose connection is closed, is up to gloo."""
    began = time.monotonic()
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        launch(stop_in_evaluation, 2, args=(tmp_path, slow), timeout=SOON)
    assert time.monotonic() - began < 300
    assert [file.name for file in tmp_path.glob("*.pth")] == ["model_0000000.pth"]


def lose_one(folder):
    """A run of two processes, of which one is killed in its second iteration."""
    from detectron2.engine import SimpleTrainer

    real = SimpleTrainer.run_step

    def run_step(self):
        if self.iter == 1 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self)

    SimpleTrainer.run_step = run_step
    run(yaml_config(folder, length=50), arguments())


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_a_process_that_is_lost_ends_the_others(tmp_path):
    with pytest.raises((ProcessExitedException, ProcessRaisedException)) as ended:
        launch(lose_one, 2, args=(tmp_path,), timeout=SOON)
    assert "SIGKILL" in str(ended.value) or "process 0 of 2 lost another one" in str(ended.value)
