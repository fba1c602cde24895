"""Time in turns, peak memory, and the hardware that figures hold for."""

import contextlib
import ctypes
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

try:  # not on Windows
    import resource
except ModuleNotFoundError:
    resource = None


def synchronize(device: str) -> None:
    """Waits until the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def without_tf32(wanted: bool = True) -> Iterator[None]:
    """A context in which a GPU's products and convolutions in fp32 are not rounded to TF32."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    if wanted:
        products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of a call, and what it returned; on CUDA between two events of its stream."""
    synchronize(device)
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        result = run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3, result
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def in_turns(runs: Mapping[str, Callable[[], Any]], count: int) -> dict[str, list]:
    """What ``count`` calls of each of ``runs``, which take turns, return."""
    found = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            found[name].append(run())
    return found


def seconds_in_turns(
    runs: Mapping[str, Callable[[], Any]], count: int, device: str
) -> dict[str, dict[str, Any]]:
    """The :func:`summary` of the seconds that each of ``runs`` takes in ``count`` turns."""
    turns = {name: lambda run=run: timed(run, device)[0] for name, run in runs.items()}
    return {name: summary(values) for name, values in in_turns(turns, count).items()}


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
            self.start, self.linux = _bytes_in("/proc/self/status", "VmRSS"), True
        except OSError:
            self.start, self.linux = _largest_ever(), False

    def mib(self) -> float | None:
        """None where the system does not tell."""
        if self.device == "cuda":
            synchronize(self.device)
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _bytes_in("/proc/self/status", "VmHWM") if self.linux else _largest_ever()
        return None if peak is None else (peak - self.start) / 2**20


def _bytes_in(path: str, name: str) -> int:
    """A size that Linux gives in kB."""
    with open(path) as file:
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
    with contextlib.suppress(OSError):
        return _bytes_in("/proc/meminfo", "MemAvailable")
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


def machine(found: Mapping[str, Any]) -> str:
    """What :func:`hardware` found, but for the processor."""
    return f"{found['threads']} threads of {found['cores']} cores; PyTorch {found['torch']}"
