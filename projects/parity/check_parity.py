#!/usr/bin/env python
"""Compares this library's models with mmsegmentation's; --help lists the options."""

import warnings

from dnl_d2_parity.command import run

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # mmsegmentation about itself, and Detectron2 about torch.jit
    run("dnl_d2_parity.comparison.check")
