"""``run.json``: which commands wrote into an output folder, with which code and on what machine."""

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

import detectron2
import torch
from detectron2.utils import comm

import dnl_d2
from dnl_d2.files import write_bytes, write_text
from dnl_d2.reporting.aside import only_warning
from dnl_d2.reporting.git_state import GitState, git_state

HISTORY, CHANGES = "run.json", "run-{}.diff"
_PACKAGES = ("torchvision", "numpy", "Pillow", "fvcore", "omegaconf", "pycocotools")


class RunHistory:
    """The list in ``run.json``, to which each command adds an entry; none is ever taken away.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._entry: dict[str, Any] = {}

    def begin(self, **about: Any) -> None:
        """Adds an entry of this process: command, time, seed, code, versions and machine.

        Args:
            about: the run, for the entry.
        """
        with only_warning(f"{HISTORY} is not written"):
            entries = _read(self._folder)
            number = len(entries) + 1
            self._entry = {"number": number, **_command(), **about, "code": []}
            for state in _code_in_use():
                self._entry["code"].append(self._noted(state, number))
            self._entry |= {"versions": _versions(), "machine": _machine()}
            self._write([*entries, self._entry])

    def end(self, **about: Any) -> None:
        """Notes when this process's run came to its end, and what is known of it by then."""
        if not self._entry:
            return
        with only_warning(f"{HISTORY} is not written"):
            self._entry |= {"ended": _now(), **about}
            entries = _read(self._folder)
            begun = [(entry.get("number"), entry.get("started")) for entry in entries]
            mine = (self._entry["number"], self._entry["started"])
            place = begun.index(mine) if mine in begun else len(entries)
            self._write([*entries[:place], self._entry, *entries[place + 1 :]])

    def _noted(self, state: GitState, number: int) -> dict[str, Any]:
        """A state as it stands in the entry; its changes are a file beside it."""
        told: dict[str, Any] = {"folder": state.folder, "commit": state.commit}
        told |= {"branch": state.branch, "dirty": bool(state.changed)}
        told |= {"changed": list(state.changed)}
        if state.diff:
            name = CHANGES.format(number if not self._entry["code"] else f"{number}-script")
            write_bytes(os.path.join(self._folder, name), state.diff)
            told["diff"] = name
        elif state.changed:
            told["diff"] = "none: of files that git does not know, or too large"
        return told

    def _write(self, entries: list[dict]) -> None:
        text = json.dumps(entries, indent=2, default=str)
        write_text(os.path.join(self._folder, HISTORY), text + "\n")


def _read(folder: str) -> list[dict]:
    path = os.path.join(folder, HISTORY)
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return []
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(f"{path} is not a list of runs: move it away")
    return found


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _command() -> dict[str, Any]:
    return {
        "started": _now(),
        "command": [sys.executable, *sys.argv],
        "working_folder": os.getcwd(),
        "seed": torch.initial_seed(),
        "processes": comm.get_world_size(),
    }


def _code_in_use() -> list[GitState]:
    """Of the library, and of the script where that lies elsewhere, as far as git knows them."""
    found: dict[str, GitState] = {}
    for path in (dnl_d2.__file__, sys.argv[0]):
        state = git_state(path) if path and os.path.isfile(path) else None
        if state is not None:
            found.setdefault(state.folder, state)
    return list(found.values())


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "dnl_d2": dnl_d2.__version__,
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _machine() -> dict[str, Any]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(count)],
    }


def _processor() -> str:
    """Its name; Linux has it in a file, elsewhere Python knows at least the kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
