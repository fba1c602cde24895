#!/usr/bin/env python
"""Runs projects/parity/benchmark_gpu.py, with the same options."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    script = Path(__file__).absolute().parents[1] / "projects/parity/benchmark_gpu.py"
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])
