"""Command lines, loaded as modules or started as a person starts them."""

import importlib.util
import subprocess
import sys

from tests.processes import with_root


def load(root, name):
    """The module of ``tools/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, root / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(root, name, *arguments, **environment):
    """Runs ``tools/NAME.py`` in a process of its own."""
    return subprocess.run(
        [sys.executable, f"tools/{name}.py", *map(str, arguments)],
        cwd=root,
        env=with_root(root, **environment),
        capture_output=True,
        text=True,
        timeout=600,
    )
