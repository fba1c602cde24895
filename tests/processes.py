"""Processes that tests start: with this checkout's modules, or as a group."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.utils import comm

from dnl_d2.engine.processes import Place, call_among_others


def with_root(root: str | os.PathLike, **more: str) -> dict[str, str]:
    """Environment variables of a process that imports from ``root`` first."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"} | more


def leave() -> NoReturn:
    """Ends a process that has done its part, without the interpreter's own way out.

    There gloo's threads now and then end in an abort, after everything has been done.
    """
    comm.synchronize()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def start(function: Callable[..., Any], processes: int, *args: Any) -> None:
    """Calls ``function(number, *args)`` in several processes, and waits for their end.

    They are copies of one that has imported what takes seconds, which each would else.

    Args:
        function: of a module's level.
        processes: how many, numbered from 0.
        args: what else the function gets.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["detectron2.engine", "dnl_d2.engine"])
    torch.multiprocessing.start_processes(function, args, processes, start_method="forkserver")


def call_in_group(function: Callable[..., Any], processes: int, folder: Path, *args: Any) -> None:
    """Calls ``function(folder, *args)`` in each process of a group that computes on the CPU.

    Args:
        function: of a module's level.
        processes: how many.
        folder: where they meet, too.
        args: what else the function gets.
    """
    url = f"file://{folder}/meeting-of-{processes}"
    start(_member, processes, processes, url, function, (folder, *args))


def _member(rank: int, processes: int, url: str, function: Callable, args: tuple) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)

    def call() -> None:
        function(*args)
        leave()

    place = Place(rank, processes, rank, processes, url)
    call_among_others(call, (), place, timedelta(seconds=60))
