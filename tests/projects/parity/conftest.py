import subprocess
import sys

import pytest


@pytest.fixture
def run_tool(root):
    """Returns ``run_tool(name, *options)``, which runs a script of ``tools/``."""

    def run(name, *options):
        command = [sys.executable, f"tools/{name}", *options]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)

    return run
