#!/usr/bin/env python
"""Runs projects/parity/benchmark_model.py, with the same options."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve()
    script = here.parents[1] / "projects" / "parity" / here.name
    os.execv(sys.executable, [sys.executable, str(script), *sys.argv[1:]])
