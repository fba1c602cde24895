#!/usr/bin/env python
"""Computes a training step once more whose numbers were not finite, and shows where from.

Examples:
    tools/replay_step.py output/mine/nonfinite-0000123.pth
    tools/replay_step.py output/mine/nonfinite-0000123.pth --double
"""

import argparse

import _environment  # noqa: F401

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.config.rules import require_device
from dnl_d2.engine.nonfinite.replay import replay
from dnl_d2.errors import ending_in_one_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="nonfinite-*.pth of a run's output folder")
    add("--device", default="cpu", help="to compute on; default: cpu")
    add("--double", action="store_true", help="compute in float64, which overflows far later")
    add("--rows", type=int, default=20, metavar="N", help="of the table; default: 20")
    add("--trust-config", action="store_true", help="build a LazyConfig's model: it may run code")
    add_import_option(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Prints what was not finite."""
    require_device(args.device, "--device")
    import_modules(args.imports)
    print(
        replay(
            args.file,
            device=args.device,
            double=args.double,
            rows=args.rows,
            trust_config=args.trust_config,
        )
    )


if __name__ == "__main__":
    with ending_in_one_line("replay_step.py"):
        main(parse_args())
