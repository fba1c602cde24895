"""What the project's scripts share."""

import importlib
import os
import sys


def run(module: str) -> None:
    """Runs a module's ``main`` as the script that was started; mistakes end in one line."""
    name = os.path.basename(sys.argv[0])
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as missing:
        sys.exit(
            f"{name}: error: {sys.executable} has no package {missing.name}: run it with the "
            ".venv/bin/python that `make .venv/.ready` sets up, or add requirements/parity.txt "
            "without dependencies (pip install --no-deps -r) to an environment of dnl_d2"
        )
    from dnl_d2.errors import UsageError, one_line

    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"{name}: error: {one_line(error)}")
