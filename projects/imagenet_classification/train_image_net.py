#!/usr/bin/env python
"""Trains or evaluates an image classifier.

Examples:
    train_image_net.py --config-file configs/generated/pairs_gc.py
    train_image_net.py --config-file configs/r50_gc_c3-c5.py --num-gpus 8
    train_image_net.py --config-file configs/r50.py --eval-only train.init_checkpoint=resnet50.pth
"""

import os
import sys
import warnings

warnings.simplefilter("ignore", FutureWarning)  # of Detectron2 about torch.jit, as it is imported

from dnl_d2.engine import command_line  # noqa: E402

if __name__ == "__main__":
    command_line(name=os.path.basename(sys.argv[0]), description=__doc__ or "")
