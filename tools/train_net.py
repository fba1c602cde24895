#!/usr/bin/env python
"""Trains or evaluates a YAML or LazyConfig model.

Examples:
    tools/train_net.py --config-file X.yaml SOLVER.MAX_ITER 100
    tools/train_net.py --config-file X.py train.max_iter=100
    tools/train_net.py --config-file X.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
    tools/train_net.py --import mypackage.blocks --config-file X.yaml
"""

import argparse
import sys
from collections.abc import Sequence

import _environment  # noqa: F401
import torch
from detectron2.engine import default_argument_parser, launch
from torch.multiprocessing import ProcessRaisedException

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.engine import load_config, run
from dnl_d2.errors import UsageError, one_line


def main(args: argparse.Namespace) -> dict:
    """Of each process: what the run's last evaluation has found."""
    import_modules(args.imports)
    return run(load_config(args.config_file, args.opts), args)


def command(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake ends in ``SystemExit`` with one line."""
    parser = default_argument_parser(epilog=__doc__)
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
    args = parser.parse_args(arguments)
    try:
        if args.overwrite and (args.resume or args.eval_only):
            other = "--resume" if args.resume else "--eval-only"
            raise UsageError(f"--overwrite and {other} exclude each other: leave one of them out")
        if args.num_gpus > 1 and torch.cuda.device_count() < args.num_gpus:
            raise UsageError(
                f"--num-gpus {args.num_gpus}: this machine has {torch.cuda.device_count()} CUDA "
                "devices; without any, leave the option out to train on the CPU"
            )
        import_modules(args.imports)
        load_config(args.config_file, args.opts)  # mistakes show before processes start
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except (UsageError, ProcessRaisedException) as error:
        if isinstance(error, ProcessRaisedException) and "UsageError: " not in str(error):
            raise
        sys.exit(f"train_net.py: error: {one_line(error)}")


if __name__ == "__main__":
    command()
