"""What a benchmark needs: processes of their own, time in turns, peak memory, growth, hardware."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

try:  # not on Windows
    import resource
except ModuleNotFoundError:
    resource = None

# A server that has imported what `preload` names, and computed nothing, forks processes off.
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Failed(Exception):
    """A measurement that came to nothing; the message says why in one line."""


def preload(*modules: str) -> None:
    """Has these imported once for all processes to come, where the system can."""
    if _START == "forkserver":
        # The server takes no sys.path; the environment reaches it.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        multiprocessing.get_context(_START).set_forkserver_preload(list(modules))


def in_own_process(function: Callable, *args: Any) -> Any:
    """``function(*args)``, computed in a fresh process that is gone afterwards.

    Raises:
        Failed: it raised an error, or its process was killed.
    """
    context = multiprocessing.get_context(_START)
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(there, function, args), daemon=True)
    child.start()
    there.close()
    try:
        done, value = here.recv()
    except EOFError:
        child.join()
        why = "; out of memory?" if child.exitcode == -signal.SIGKILL else ""
        raise Failed(f"its process ended with status {child.exitcode}{why}") from None
    finally:  # also after Ctrl-C
        child.terminate()
        child.join()
    if not done:
        raise Failed(value)
    return value


def _answer(pipe: Connection, function: Callable, args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    warnings.simplefilter("ignore")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, this process goes and not the one with the results
    try:
        answer = True, function(*args)
    except Exception as error:
        answer = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    pipe.send(answer)


def synchronize(device: str) -> None:
    """Waits until the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_turns(
    runs: Mapping[str, Callable[[], Any]], count: int, device: str
) -> dict[str, list[float]]:
    """Seconds of ``count`` calls of each of ``runs``, which take turns."""
    seconds = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


class PeakMemory:
    """Largest memory of this process since this was made, beyond what it held then.

    On CUDA what PyTorch has allocated. On Linux resident pages; elsewhere only growth beyond the
    largest size that the process ever had is seen.
    """

    def __init__(self, device: str):
        gc.collect()
        self.device = device
        if device == "cuda":
            synchronize(device)
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # else freed memory would be used again unseen
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # forgets the peak so far
            self.start, self.linux = _status("VmRSS"), True
        except OSError:
            self.start, self.linux = _largest_ever(), False

    def mib(self) -> float | None:
        """None where the system does not tell."""
        if self.device == "cuda":
            synchronize(self.device)
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _status("VmHWM") if self.linux else _largest_ever()
        return None if peak is None else (peak - self.start) / 2**20


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(s.split()[1]) * 1024 for s in file if s.startswith(f"{name}:"))


def _largest_ever() -> int | None:
    if resource is None:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: str) -> int | None:
    """Bytes that could be had now; None where the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        return next(int(s.split()[1]) * 1024 for s in file if s.startswith("MemAvailable:"))
    return None


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Smallest, median and largest, and all of them in order."""
    median = statistics.median(values)
    return {"min": min(values), "median": median, "max": max(values), "all": list(values)}


def cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def hardware(device: str, threads: int) -> dict[str, Any]:
    """What figures hold for."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        cpu = next((s.partition(":")[2].strip() for s in file if s.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of the best y = c x^p: the slope in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def plot_growth(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws growth on logarithmic axes: a row for each pass, a column for each quantity.

    Args:
        path: of the picture.
        lines: each with ``phase``, ``column``, ``block``, ``side``, ``x`` (positions), ``y`` and
            ``exponent``.
    """
    from matplotlib.figure import Figure  # without pyplot: needs no screen

    rows, columns, blocks = (
        list(dict.fromkeys(line[key] for line in lines)) for key in ("phase", "column", "block")
    )
    figure = Figure(figsize=(7 * len(columns), 5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for line in lines:
        panel = panels[rows.index(line["phase"])][columns.index(line["column"])]
        panel.loglog(
            line["x"],
            line["y"],
            "o-" if line["side"] == "ours" else "x--",
            color=f"C{blocks.index(line['block'])}",
            label=f"{line['block']}, {line['side']}: L^{line['exponent']:.2f}",
        )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            panels[i][j].set(title=row, xlabel="positions L", ylabel=column)
            panels[i][j].grid(which="both", alpha=0.3)
            if panels[i][j].has_data():
                panels[i][j].legend(fontsize="small")
    figure.savefig(path, dpi=120)
