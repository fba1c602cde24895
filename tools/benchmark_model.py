#!/usr/bin/env python
"""Runs projects/parity/benchmark_model.py, with the same options."""

import os
import sys

if __name__ == "__main__":
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = os.path.join(root, "projects", "parity", "benchmark_model.py")
    os.execv(sys.executable, [sys.executable, script, *sys.argv[1:]])
