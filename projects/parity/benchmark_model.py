#!/usr/bin/env python
"""Times a config's segmentation model beside its reference; --help lists the options."""

from dnl_d2_parity.command import run

if __name__ == "__main__":
    run("dnl_d2_parity.benchmarks.model_command")
