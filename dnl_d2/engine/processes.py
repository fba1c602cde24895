"""The processes of a run: started here, by torchrun, or by SLURM's srun."""

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlparse

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

from dnl_d2.errors import UsageError

# What is raised where a process has gone in the middle of an exchange, by gloo and NCCL.
_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Timed out waiting|Socket Timeout|"
    r"NCCL (communicator was aborted|Error)|remote process exited",
    re.IGNORECASE,
)

_POLL = 0.05  # seconds


@dataclass(frozen=True)
class Place:
    """Where a process stands among all of its run.

    Args:
        rank, processes: its number, from 0, and how many there are.
        local_rank, local_processes: those of its machine.
        url: where they meet: ``tcp://HOST:PORT``, or ``file://PATH`` on a disk that all share.
    """

    rank: int
    processes: int
    local_rank: int
    local_processes: int
    url: str


def given_place(environment: Mapping[str, str]) -> Place | None:
    """Where torchrun, or what sets the same variables, or srun has put this process.

    Args:
        environment: the variables of the process.

    Returns:
        None where neither has started it, or as the only one.

    Raises:
        UsageError: variables that contradict each other.
    """
    torchrun = (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    )
    slurm = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    found = environment.get
    if all(name in environment for name in torchrun):
        rank, processes, local_rank, local = (_number(environment, name) for name in torchrun[:4])
        url = f"tcp://{found('MASTER_ADDR')}:{found('MASTER_PORT')}"
    elif all(name in environment for name in slurm):
        rank, processes, local_rank = (_number(environment, name) for name in slurm[:3])
        per_machine = environment[slurm[3]]  # such as 4(x2); 4,3 where they differ
        if not re.fullmatch(r"\d+(\(x\d+\))?", per_machine):
            raise UsageError(
                f"srun: SLURM_STEP_TASKS_PER_NODE is {per_machine}: give every machine as many "
                "tasks (--ntasks-per-node)"
            )
        local = int(per_machine.partition("(")[0])
        url = f"tcp://{found('MASTER_ADDR') or _first_host(environment)}:{_slurm_port(environment)}"
    else:
        return None
    return Place(rank, processes, local_rank, local, url) if processes > 1 else None


def torchrun_job() -> str:
    """What tells a job of torchrun from others, the same in all processes that it starts once more.

    That is the id that it was given, else the folder of its agent's; empty where there is neither.
    """
    given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # FOLDER/attempt_0/0/error.json
    return given if given != "none" else file.partition("/attempt_")[0]


def launch(
    function: Callable[..., Any],
    processes: int,
    *,
    machines: int = 1,
    machine: int = 0,
    url: str = "auto",
    args: tuple = (),
    timeout: timedelta,
) -> None:
    """Calls a function in processes of a group: in this one alone, or in others that it starts.

    Args:
        function: of the module level.
        processes: on this machine, and on each other.
        machines: how many there are.
        machine: number of this one, from 0.
        url: where the processes meet, see :class:`Place`; ``auto`` on a single machine.
        args: of the function.
        timeout: how long a process waits for the others, at the start and later.

    Raises:
        UsageError: the url cannot be meant.
        torch.multiprocessing.ProcessRaisedException, ProcessExitedException: of the first that
            ends other than well, when all have ended.
    """
    if processes * machines == 1:
        function(*args)
        return
    if url == "auto":
        if machines > 1:
            raise UsageError("--dist-url tcp://HOST:PORT of the first machine is needed by several")
        url = f"tcp://127.0.0.1:{_free_port()}"
    _check_url(url)
    common = processes, machines, machine, url, timeout
    mp.start_processes(_start, nprocs=processes, args=(function, args, common))


def call_among_others(
    function: Callable[..., Any], args: tuple, place: Place, timeout: timedelta
) -> None:
    """Meets the other processes of a run and calls a function, as they do.

    Args:
        function, args: what is called.
        place: of this process.
        timeout: how long it waits for the others, at the start and later.

    Raises:
        UsageError: some do not come in time; it says which.
    """
    _join(place, timeout)
    try:
        function(*args)
    except SystemExit:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()  # lest its threads outlive the interpreter


def _join(place: Place, timeout: timedelta) -> None:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    store = _meet(place, timeout)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.processes,
        timeout=timeout,
    )
    comm.create_local_process_group(place.local_processes)
    comm.synchronize()


def is_loss_of_a_process(error: BaseException) -> bool:
    """Whether an error says that another process of the group has gone."""
    return comm.get_world_size() > 1 and _LOST.search(str(error)) is not None


def _start(
    local_rank: int,
    function: Callable[..., Any],
    args: tuple,
    common: tuple[int, int, int, str, timedelta],
) -> None:
    processes, machines, machine, url, timeout = common
    rank = machine * processes + local_rank
    place = Place(rank, processes * machines, local_rank, processes, url)
    call_among_others(function, args, place, timeout)


def _meet(place: Place, timeout: timedelta) -> dist.Store:
    """A store of all processes, when all have come."""
    seconds, end = timeout.total_seconds(), time.monotonic() + timeout.total_seconds()
    try:
        shared = _store(place, timeout)
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"process {place.rank} of {place.processes}: process 0 does not answer at {place.url} "
            f"within {seconds:g} s; was it started, and do firewalls let it be reached?"
        ) from error
    # Processes that torchrun starts once more meet anew.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store: dist.Store = dist.PrefixStore(f"dnl_d2/{attempt}", shared)
    if urlparse(place.url).scheme == "file":
        store = _of_this_run(store, place, end)
    store.set(f"process{place.rank}", "here")
    missing = []
    for other in range(place.processes):
        try:
            left = timedelta(seconds=max(end - time.monotonic(), 0.01))
            store.wait([f"process{other}"], left)
        except RuntimeError:
            missing.append(other)
    if missing:
        named = ", ".join(map(str, missing))
        if place.processes > place.local_processes:
            machines = sorted({other // place.local_processes for other in missing})
            named += f" (of machine {', '.join(map(str, machines))})"
        raise UsageError(
            f"process {place.rank} of {place.processes}: {named} did not come to "
            f"{place.url} within {seconds:g} s; look at what they or their machines say"
        )
    return store


def _of_this_run(store: dist.Store, place: Place, end: float) -> dist.Store:
    """The part of a file's store that this run alone knows: a crashed run may have left others.

    Process 0 draws its name, and tells it to each that asks by a name of its own. It waits for all
    until ``end``; another one to whom nothing is told gets a part that nobody else knows.
    """
    own = secrets.token_hex(8)
    if place.rank:
        store.set(f"asks{place.rank}", own)
        try:
            store.wait([f"answer{own}"], timedelta(seconds=max(end - time.monotonic(), 0.01)))
        except RuntimeError:
            return dist.PrefixStore(own, store)
        return dist.PrefixStore(store.get(f"answer{own}").decode(), store)
    part, waiting = dist.PrefixStore(own, store), set(range(1, place.processes))
    answered = set[str]()
    while waiting and time.monotonic() < end:
        for other in [other for other in waiting if store.check([f"asks{other}"])]:
            asked = store.get(f"asks{other}").decode()
            if asked not in answered:
                store.set(f"answer{asked}", own)
                answered.add(asked)
            if part.check([f"process{other}"]):
                waiting.remove(other)
        time.sleep(_POLL)
    return part


def _store(place: Place, timeout: timedelta) -> dist.Store:
    address = _check_url(place.url)
    if address.scheme == "file":
        return dist.FileStore(address.path, place.processes)
    # torchrun itself has one at the address that it gives.
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    assert address.hostname is not None and address.port is not None
    return dist.TCPStore(
        address.hostname,
        address.port,
        is_master=place.rank == 0 and not served,
        timeout=timeout,
        wait_for_workers=False,
    )


def _check_url(url: str) -> Any:
    """The parsed address of a meeting point."""
    address = urlparse(url)
    try:
        whole = address.scheme == "file" or (
            address.scheme == "tcp" and address.hostname and address.port
        )
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        raise UsageError(f"--dist-url {url!r}: give tcp://HOST:PORT of the first machine")
    return address


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise UsageError(f"environment variable {name}={text!r}: a number is needed")
    return int(text)


def _first_host(environment: Mapping[str, str]) -> str:
    """The first of a list such as ``gpu[03-05,09],login``."""
    hosts = environment.get("SLURM_STEP_NODELIST", "")
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", hosts)
    if match is None:
        raise UsageError("srun: there is no SLURM_STEP_NODELIST; set MASTER_ADDR to the first host")
    return "".join(part or "" for part in match.groups())


def _slurm_port(environment: Mapping[str, str]) -> int:
    """The same in all processes of a job step, and another in the next."""
    if environment.get("MASTER_PORT"):
        return _number(environment, "MASTER_PORT")
    job, step = environment.get("SLURM_JOB_ID", "0"), environment.get("SLURM_STEP_ID", "0")
    return 20000 + (int(job) * 7 + int(step)) % 20000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
