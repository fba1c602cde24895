"""Command lines, loaded as modules, run here or started as a person starts them."""

import importlib.util
import runpy
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from tests.processes import with_root


def load(root, name):
    """The module of ``tools/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, root / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_file(words: list[str]) -> int | str:
    """Runs a Python file as ``__main__``; returns its exit status, or the message that ended it."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", words))
        stack.enter_context(patch.object(sys, "path", [str(Path(words[0]).parent), *sys.path]))
        stack.enter_context(patch.object(sys, "excepthook", sys.excepthook))
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            return end.code or 0
    return 0


def start(root, name, *arguments, **environment):
    """Runs ``tools/NAME.py`` in a process of its own, which takes five seconds to begin."""
    return subprocess.run(
        [sys.executable, f"tools/{name}.py", *map(str, arguments)],
        cwd=root,
        env=with_root(root, **environment),
        capture_output=True,
        text=True,
        timeout=600,
    )
