#!/usr/bin/env python
"""Tells what the context blocks of a model attend to, over a dataset; --help lists the options."""

import warnings

warnings.simplefilter("ignore", FutureWarning)  # of Detectron2 about torch.jit, as it is imported

from dnl_d2.errors import ending_in_one_line  # noqa: E402
from dnl_d2_attention.command import main  # noqa: E402

if __name__ == "__main__":
    with ending_in_one_line("analyze_attention.py"):
        main()
