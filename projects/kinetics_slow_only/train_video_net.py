#!/usr/bin/env python
"""Trains or evaluates the model of videos that a LazyConfig describes; --help lists the options."""

import warnings

if __name__ == "__main__":
    warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)  # in Detectron2
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)

    import dnl_d2_kinetics  # noqa: F401  (registers datasets and sources of weights)
    from dnl_d2.engine import command_line

    command_line(name="train_video_net.py")
