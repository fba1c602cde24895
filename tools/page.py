#!/usr/bin/env python
"""Serves a page: drop a picture, see what one model or two predict, and where they look."""

import argparse
import contextlib
import os
import signal
import sys
import threading

import _environment  # noqa: F401

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.prediction import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="X", help="config or recipe's name")
    parser.add_argument("--weights", help="file or address; default: those of the config")
    parser.add_argument(
        "--compare", nargs=2, metavar=("X", "WEIGHTS"), help="a second model, beside the first"
    )
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--min-score", type=float, default=0.5, help="of objects; default: 0.5")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="default: 127.0.0.1, which this machine alone reaches; with 0.0.0.0 everyone in its "
        "network can use the page, without a password",
    )
    add_import_option(parser)
    parser.add_argument("--opts", nargs="+", default=[], help="overrides of the config, or of both")
    args = parser.parse_args()

    # Takes seconds, and may not be installed.
    from dnl_d2.page import Answers, is_local, require_free, serve

    require_free(args.host, args.port)  # before weights are read
    import_modules(args.imports)
    with serve(Answers(load_models(args)), host=args.host, port=args.port) as address:
        print(f"the page is at {address} until Ctrl+C", flush=True)
        if not is_local(args.host):
            print("page.py: warning: no password: whoever reaches this machine can use the page",
                  file=sys.stderr)  # fmt: skip
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def load_models(args: argparse.Namespace) -> dict[str, Predictor]:
    """The models by the names that the page shows: of the configs, or else of the weights."""
    wanted = [(args.config_file, args.weights), *([args.compare] if args.compare else [])]
    names = [os.path.splitext(os.path.basename(config))[0] for config, _ in wanted]
    if len({*names}) < len(names):
        names = [os.fspath(weights or config) for config, weights in wanted]
    if len({*names}) < len(names):
        raise UsageError(f"--compare {' '.join(args.compare)}: this is the first model once more")
    return {
        name: Predictor(
            config,
            weights=weights,
            device=args.device,
            overrides=args.opts,
            min_score=args.min_score,
        )
        for name, (config, weights) in zip(names, wanted, strict=True)
    }


if __name__ == "__main__":
    with ending_in_one_line("page.py"):
        main()
