"""What the tools that read pictures of one's own share: options, and one file after another."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.config.rules import PRECISIONS
from dnl_d2.errors import UsageError, one_line
from dnl_d2.files import WriteError
from dnl_d2.prediction import Predictor
from dnl_d2.prediction.sources import Source, find_sources
from dnl_d2.prediction.writing import make_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of the model, the pictures and the folder of the results."""
    parser.add_argument("--config-file", required=True, metavar="X", help="config or recipe's name")
    parser.add_argument(
        "--weights", help="file, address or mmseg://NAME; default: those of the config"
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the results")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: the config's, as a rule float32"
    )
    parser.add_argument("--min-score", type=float, default=0.5, help="of objects; default: 0.5")
    add_import_option(parser)
    parser.add_argument(
        "sources", nargs="*", metavar="IMAGE|FOLDER|GLOB|VIDEO|-", help="- is standard input"
    )
    parser.add_argument(
        "--opts", nargs="+", default=[], help="overrides of the config, after everything else"
    )


def require_pictures(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program as argparse does where there are no pictures, or no folder for results."""
    for name, value in (("--output DIR", args.output), ("a picture or folder", args.sources)):
        if not value:
            parser.error(f"{name} is missing; see --help")


def open_sources(args: argparse.Namespace) -> list[Source]:
    """The pictures that the options name, with a folder for results made.

    Raises:
        UsageError: there are none, or results would lie among them.
    """
    args.output = os.path.expanduser(args.output)
    named = [os.path.expanduser(source) for source in args.sources]
    _require_other_folder(args.output, named)
    sources = find_sources(named, without=args.output)
    make_folder(args.output)
    return sources


def open_predictor(args: argparse.Namespace) -> Predictor:
    """The model that the options name, after the modules of ``--import``."""
    import_modules(args.imports)
    return Predictor(
        args.config_file,
        weights=args.weights,
        device=args.device,
        overrides=args.opts,
        min_score=args.min_score,
        precision=args.precision,
    )


def for_each(sources: Sequence[Source], work: Callable[[Source], None], output: str) -> int:
    """Works on one file after another; names those that fail. Returns the exit status.

    Raises:
        WriteError: as a rule, no other file can be written either.
    """
    program, failed = os.path.basename(sys.argv[0]), 0
    for source in tqdm(sources, unit="file", disable=None):
        try:
            work(source)
        except WriteError:
            raise
        except UsageError as error:
            failed += 1
            message = one_line(error)
            path = "" if source.path in message else f"{source.path}: "
            tqdm.write(f"{program}: {path}{message}", file=sys.stderr)
    print(f"{len(sources) - failed} of {len(sources)} files: results are in {output}")
    return 1 if failed else 0


def _require_other_folder(output: str, arguments: list[str]) -> None:
    """Results among the pictures would be taken for pictures the next time."""
    for argument in arguments:
        folder = argument if os.path.isdir(argument) else os.path.dirname(argument)
        if os.path.realpath(output) == os.path.realpath(folder or "."):
            raise UsageError(f"--output {output} is a folder of the pictures: choose another one")
