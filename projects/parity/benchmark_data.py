#!/usr/bin/env python
"""Times a config's preparation of training pictures by part; --help lists the options."""

from dnl_d2_parity.command import run

if __name__ == "__main__":
    run("dnl_d2_parity.benchmarks.data_command")
