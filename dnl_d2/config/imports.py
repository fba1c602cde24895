"""``--import``: modules of one's own that register blocks, heads or datasets."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from dnl_d2.errors import UsageError


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option, whose value :func:`import_modules` takes as ``imports``."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import it first, for the blocks, heads or datasets that it registers; the current "
        "folder is searched too (repeatable)",
    )


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by their names with points, also from the current folder.

    Raises:
        UsageError: there is no such module, or it says what is wrong with it itself.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise UsageError(
                    f"--import {name}: it imports {error.name}, which is not here"
                ) from error
            raise UsageError(
                f"--import {name}: there is no module {error.name}, neither installed nor in "
                f"{os.getcwd()}; name it with points and without .py"
            ) from error
        except UsageError as error:
            raise UsageError(f"--import {name}: {error}") from error
