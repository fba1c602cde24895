#!/usr/bin/env python
"""Trains or evaluates a YAML or LazyConfig model.

Examples:
    tools/train_net.py --config-file X.yaml SOLVER.MAX_ITER 100
    tools/train_net.py --config-file X.py train.max_iter=100
    tools/train_net.py --config-file X.yaml --eval-only MODEL.WEIGHTS output/model_final.pth
    tools/train_net.py --import mypackage.blocks --config-file X.yaml
"""

from collections.abc import Sequence

import _environment  # noqa: F401

from dnl_d2.engine import command_line


def command(arguments: Sequence[str] | None = None) -> None:
    command_line(arguments, name="train_net.py", description=__doc__ or "")


if __name__ == "__main__":
    command()
