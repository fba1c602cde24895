"""A run on several machines, which are all this one."""

import json
import os
from argparse import Namespace
from datetime import timedelta
from functools import partial
from unittest import mock

import pytest
import torch
from torch import multiprocessing
from torch.multiprocessing import ProcessExitedException

from dnl_d2.engine import cli, run
from dnl_d2.engine.processes import Place, _free_port, call_among_others, launch
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, environment, yaml_config  # noqa: F401
from tests.processes import leave, start


def whole_run(folder):
    options = {"SEED": 1, "MODEL__DEVICE": "cpu", "MODEL__SEM_SEG_HEAD__DROPOUT": 0.0}
    options["MODEL__SEM_SEG_HEAD__LOSS_AVERAGE"] = "all"
    run(yaml_config(folder, length=2, batch=4, SOLVER__LOG_PERIOD=1, **options), arguments())


def one_of_four(folder, datasets):
    os.environ |= {"DETECTRON2_DATASETS": str(datasets), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    whole_run(folder)
    leave()


def one_machine(number, folder, datasets, url):
    """Two processes, which with those of another machine make one run."""
    starting = "dnl_d2.engine.processes.mp.start_processes"
    with mock.patch(starting, partial(multiprocessing.start_processes, start_method="fork")):
        launch(
            one_of_four, 2, machines=2, machine=number, url=url, args=(folder, datasets),
            timeout=timedelta(seconds=60),
        )  # fmt: skip


def figures(folder):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    names = "total_loss", "loss_sem_seg", "sem_seg/mIoU", "sem_seg/mACC"
    return [line[name] for line in lines for name in names if name in line]


def files(folder):
    """Names, but for the end of that of TensorBoard's, which has the time in it."""
    found = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return {name.partition("tfevents")[0] for name in found}


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_a_run_on_two_machines(tmp_path, datasets):
    """Each picture is cropped and turned as in a single process; one process writes."""
    whole_run(tmp_path / "one")
    url = f"tcp://127.0.0.1:{_free_port()}"
    start(one_machine, 2, tmp_path / "four", datasets, url)
    one, four = figures(tmp_path / "one"), figures(tmp_path / "four")
    assert len(one) == 2 * 2 + 2
    assert four == pytest.approx(one, rel=1e-4)
    logs = {f"log.txt.rank{rank}" for rank in (1, 2, 3)}
    assert files(tmp_path / "four") == files(tmp_path / "one") | logs
    weights, others = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=False)["model"]
        for name in ("one", "four")
    )
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)


def test_a_machine_that_is_missing_is_named(tmp_path):
    place = Place(1, 6, 1, 2, f"file://{tmp_path}/meeting")
    message = r"process 1 of 6: 0, 2, 3, 4, 5 \(of machine 0, 1, 2\) did not come to file://"
    with pytest.raises(UsageError, match=message):
        call_among_others(print, (), place, timedelta(seconds=0.2))


@pytest.mark.parametrize(
    ("machines", "machine", "message"),
    [
        (1, 0, "process 1 terminated with signal SIGKILL; is the memory full?"),
        (3, 2, "process 9 (of machine 2) terminated with signal SIGKILL; is the memory full?"),
    ],
)
def test_a_process_that_was_killed_has_its_number_among_all(machines, machine, message):
    error = ProcessExitedException(
        "process 1 terminated with signal SIGKILL", 1, 1234, -9, signal_name="SIGKILL"
    )
    args = Namespace(num_gpus=4, num_machines=machines, machine_rank=machine)
    assert cli._lost(error, args) == message
