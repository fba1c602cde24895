#!/usr/bin/env python
"""Times context blocks beside the public ones with the same weights; --help lists the options."""

from dnl_d2_parity.command import run

if __name__ == "__main__":
    run("dnl_d2_parity.benchmarks.block_command")
