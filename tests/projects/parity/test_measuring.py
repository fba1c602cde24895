"""Peak memory, and turns."""

import platform
import subprocess
import sys

import pytest
import torch

from dnl_d2_parity.benchmarks.measuring import PeakMemory, in_turns, timed, without_tf32

_PEAK = """
import torch
from dnl_d2_parity.benchmarks.measuring import PeakMemory
before = torch.ones(200, 2**18)  # of an earlier peak nothing is left
del before
kept = torch.ones(20, 2**18)
memory = PeakMemory("cpu")
torch.ones(60, 2**18)
rest = torch.ones(30, 2**18)
print(memory.mib())
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="the peak cannot be reset elsewhere")
def test_peak_memory(root):
    run = subprocess.run(
        [sys.executable, "-c", _PEAK], cwd=root / "projects/parity", capture_output=True, text=True
    )
    assert float(run.stdout) == pytest.approx(60, abs=5), run.stderr


def test_peak_memory_counts_what_is_freed_again():
    memory = PeakMemory("cpu")
    if memory.start is None:
        pytest.skip("this system does not tell")
    held = torch.ones(64 * 2**18)  # 64 MiB
    del held
    assert 60 < memory.mib() < 100


def test_turns():
    calls = []
    runs = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    assert in_turns(runs, 2) == {"a": [1, 3], "b": [2, 4]}
    assert calls == list("abab")


def test_tf32_is_back_afterwards():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(KeyError), without_tf32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
    with without_tf32(False):
        assert torch.backends.cudnn.allow_tf32 == before[0]


def test_timed():
    seconds, result = timed(lambda: 7, "cpu")
    assert seconds >= 0 and result == 7
