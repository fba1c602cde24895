#!/usr/bin/env python
"""Checks the bars of blocks and a training step on a GPU; --help lists the options."""

from dnl_d2_parity.command import run

if __name__ == "__main__":
    run("dnl_d2_parity.benchmarks.gpu_command")
