#!/usr/bin/env python
"""Trains or evaluates a classifier of videos.

Examples:
    train_video_net.py --config-file configs/generated/slow_only_r18w16.py train.device=cpu
    train_video_net.py --config-file configs/kinetics400/gc_slow_only_r50_8x8.py --num-gpus 8
    train_video_net.py --config-file CONFIG --eval-only train.init_checkpoint=model_final.pth
"""

import warnings

warnings.simplefilter("ignore", FutureWarning)  # of Detectron2 about torch.jit, as it is imported

import dnl_d2_kinetics  # noqa: E402, F401  (registers datasets and sources of weights)
from dnl_d2.engine import command_line  # noqa: E402

if __name__ == "__main__":
    command_line(name="train_video_net.py", description=__doc__ or "")
