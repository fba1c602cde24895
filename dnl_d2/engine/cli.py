"""The command line of a run, for ``tools/train_net.py`` and scripts like it."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta

import torch
from detectron2.engine import default_argument_parser
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.engine.interruption import STOPPED, latest_stop, parse_time, passing_on
from dnl_d2.engine.processes import Place, call_among_others, given_place, launch
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
        SystemExit: with one line, where anything is wrong; with status 75 where training was asked
            to end early, and saved a checkpoint.
    """
    started = time.time()
    args = _parser(description).parse_args(arguments)
    try:
        place = given_place(os.environ)
        _check(args, place)
        if args.time_limit is not None:
            limit = parse_time(args.time_limit, "--time-limit")
            args.latest_stop = latest_stop(started, limit)
        args.dist_timeout = timedelta(seconds=parse_time(args.dist_timeout, "--dist-timeout"))
        import_modules(args.imports)
        load_config(args.config_file, args.opts)  # mistakes show before processes start
        _run(args, place)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except ProcessExitedException as error:
        if error.exit_code == STOPPED:
            sys.exit(STOPPED)
        sys.exit(f"{name}: error: {_lost(error, args)}")
    except (UsageError, ProcessRaisedException) as error:
        if isinstance(error, ProcessRaisedException) and wrapped_message(str(error)) is None:
            raise
        sys.exit(f"{name}: error: {one_line(error)}")


def _run(args: argparse.Namespace, place: Place | None) -> None:
    """In the processes that there are, or are to be started."""
    if place is not None:
        call_among_others(_run_process, (args,), place, args.dist_timeout)
        return
    with passing_on() if args.num_gpus * args.num_machines > 1 else nullcontext():
        launch(
            _run_process,
            args.num_gpus,
            machines=args.num_machines,
            machine=args.machine_rank,
            url=args.dist_url,
            args=(args,),
            timeout=args.dist_timeout,
        )


def _lost(error: ProcessExitedException, args: argparse.Namespace) -> str:
    """Which process has ended, by its number among those of all machines, and how."""
    rank = args.machine_rank * args.num_gpus + error.error_index
    machine = f" (of machine {args.machine_rank})" if args.num_machines > 1 else ""
    text = one_line(error).replace(f"process {error.error_index}", f"process {rank}{machine}", 1)
    return text + ("; is the memory full?" if error.signal_name == "SIGKILL" else "")


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
    parser.add_argument(
        "--time-limit",
        metavar="TIME",
        help="save and end before so much time has passed, such as 4h, 90m or 1-12:00:00, with "
        "exit status 75; as do SIGTERM, SIGINT, SIGHUP and SIGUSR1",
    )
    parser.add_argument(
        "--dist-timeout",
        metavar="TIME",
        default="30m",
        help="how long a process waits for the others, at the start and later (default: 30m)",
    )
    parser.set_defaults(dist_url="auto")  # Detectron2's is one port for all runs of a user
    add_import_option(parser)
    return parser


def _check(args: argparse.Namespace, place: Place | None) -> None:
    if place is not None and (args.num_gpus > 1 or args.num_machines > 1):
        raise UsageError(
            f"--num-gpus, --num-machines: {place.processes} processes have been started already, "
            "by torchrun or srun: leave the options out"
        )
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
