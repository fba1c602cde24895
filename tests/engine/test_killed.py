"""A run that is killed at any instant, and resumed, is the run that it would have been."""

import json
import subprocess
import sys

import pytest
import torch

from tests.processes import with_root

SEED = 1


@pytest.fixture(scope="module")
def folder(root, datasets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    variables = with_root(root, DETECTRON2_DATASETS=str(datasets), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.killed", str(folder), str(SEED)],
        cwd=root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def losses(folder, name):
    """By iteration, each set of losses that was computed for it."""
    found = {}
    for line in (folder / f"{name}.losses").read_text().splitlines():
        iteration, values = json.loads(line)
        found.setdefault(iteration, []).append(values)
    return found


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again(folder):
    kills = json.loads((folder / "kills.json").read_text())
    *killed, by_time, (ended, _) = kills
    assert ended and not any(ended for ended, _ in killed) and len(by_time) == 2
    assert [events[-1] for _, events in killed] == list("trwe")
    whole, broken = losses(folder, "whole"), losses(folder, "broken")
    assert broken.keys() == whole.keys() == set(range(4))
    for iteration, expected in whole.items():
        assert len(expected) == 1
        assert all(values == expected[0] for values in broken[iteration])
    assert sum(map(len, broken.values())) > len(broken)  # some were computed once more
    states = [
        torch.load(folder / name / "model_final.pth", weights_only=False)
        for name in ("whole", "broken")
    ]
    one, other = (state["model"] for state in states)
    assert one.keys() == other.keys()
    assert not [key for key in one if not torch.equal(one[key], other[key])]
    assert not [*(folder / "broken").glob("*.unfinished")]
