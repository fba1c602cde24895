"""The command line of a run, for ``tools/train_net.py`` and scripts like it."""

import argparse
import sys
from collections.abc import Sequence

import torch
from detectron2.engine import default_argument_parser, launch
from torch.multiprocessing import ProcessRaisedException

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.engine.runner import load_config, run
from dnl_d2.errors import UsageError, one_line, wrapped_message


def command_line(
    arguments: Sequence[str] | None = None, *, name: str, description: str = ""
) -> None:
    """Trains or evaluates what the command line says, in one process or several.

    Args:
        arguments: of the command line; None for those of this process.
        name: of the script, for messages.
        description: what ``--help`` shows under the options.

    Raises:
        SystemExit: with one line, where anything is wrong.
    """
    args = _parser(description).parse_args(arguments)
    try:
        _check(args)
        import_modules(args.imports)
        load_config(args.config_file, args.opts)  # mistakes show before processes start
        launch(
            _run_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except (UsageError, ProcessRaisedException) as error:
        if isinstance(error, ProcessRaisedException) and wrapped_message(str(error)) is None:
            raise
        sys.exit(f"{name}: error: {one_line(error)}")


def _parser(description: str) -> argparse.ArgumentParser:
    parser = default_argument_parser(epilog=description)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the checkpoints and figures of an earlier run in the output folder",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show the full log: environment, config, structure of the model, tables of datasets; "
        "log.txt in the output folder has it in any case",
    )
    add_import_option(parser)
    return parser


def _check(args: argparse.Namespace) -> None:
    if args.overwrite and (args.resume or args.eval_only):
        other = "--resume" if args.resume else "--eval-only"
        raise UsageError(f"--overwrite and {other} exclude each other: leave one of them out")
    if args.num_gpus > 1 and torch.cuda.device_count() < args.num_gpus:
        raise UsageError(
            f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()} CUDA "
            "devices; without any, leave the option out to train on the CPU"
        )


def _run_process(args: argparse.Namespace) -> dict:
    """Of each process: what the run's last evaluation has found."""
    import_modules(args.imports)
    return run(load_config(args.config_file, args.opts), args)
