"""A run that is killed again and again (SIGKILL), and the one that it would have been.

Writes into the folder that it is given ``whole`` and ``broken``, two runs, beside each a
``.losses`` with the losses of each pass in training, and ``kills.json`` with what each kill met.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from dnl_d2.engine import run
from dnl_d2.modeling import ContextSegmentor
from tests.engine.runs import arguments, yaml_config

OPTIONS = {"length": 4, "period": 1, "eval_period": 2, "rate": 0.1, "SOLVER__LOG_PERIOD": 1}
# Which event of an attempt is not to happen: kind, and the least and greatest of its numbers.
KILLS = {"t": (1, 2), "r": (1, 2), "w": (1, 2), "e": (1, 4)}


class Events:
    """Counts what a run does, and kills the process before one of them.

    Args:
        file: for a letter of each: a pass in (t)raining or (e)valuation, a checkpoint that is
            (w)ritten half, one that is about to be (r)enamed.
        last: letter and number, from 1, of the one that is not to happen; None for none.
    """

    def __init__(self, file: Path, last: tuple[str, int] | None):
        self._file = file.open("w", encoding="ascii")
        self._last = last
        self._counts = Counter[str]()

    def __call__(self, letter: str) -> None:
        self._file.write(letter)
        self._file.flush()
        self._counts[letter] += 1
        if (letter, self._counts[letter]) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, losses: Path) -> None:
        """Sees the events of this process, and notes iteration and losses."""
        noted = losses.open("a", encoding="ascii")

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(module, ContextSegmentor):
                if module.training:
                    exact = {name: loss.item().hex() for name, loss in output.items()}
                    noted.write(json.dumps([get_event_storage().iter, exact]) + "\n")
                    noted.flush()
                self("t" if module.training else "e")

        nn.modules.module.register_module_forward_hook(note)
        save, replace = torch.save, os.replace

        def half(content: Any, path: str) -> None:
            save(content, path)
            size = os.path.getsize(path)
            os.truncate(path, size // 2)
            self("w")
            save(content, path)

        def rename(source: str, target: str) -> None:
            if target.endswith(".pth"):
                self("r")
            replace(source, target)

        torch.save, os.replace = half, rename


def attempt(
    folder: Path,
    *,
    resume: bool,
    last: tuple[str, int] | None = None,
    seconds: float | None = None,
) -> tuple[bool, str]:
    """A process that trains, killed at an event or after a time; whether it ended well, and events.

    Processes are forks of this one, which has computed nothing: what they import is there.
    """
    events = folder.with_suffix(".events")
    child = os.fork()
    if child == 0:
        Events(events, last).watch(folder.with_suffix(".losses"))
        run(yaml_config(folder, **OPTIONS), arguments(resume=resume))
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status == 0, events.read_text()


def main(folder: Path, seed: int) -> None:
    """Kills at a random event of each kind, then at a random time."""
    chance = random.Random(seed)
    began = time.monotonic()
    ended, _ = attempt(folder / "whole", resume=False)
    took = time.monotonic() - began
    assert ended
    broken, kills = folder / "broken", []
    for letter, (first, last) in KILLS.items():
        at = letter, chance.randint(first, last)
        kills.append(attempt(broken, resume=bool(kills), last=at))
    kills.append(attempt(broken, resume=True, seconds=chance.uniform(0.1, 0.6) * took))
    kills.append(attempt(broken, resume=True))
    (folder / "kills.json").write_text(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
