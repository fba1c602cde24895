"""The public frameworks beside this library: their models, how far results differ, their costs."""

from dnl_d2_parity.operators import stand_in

stand_in()  # before any module here imports mmsegmentation or MMDetection
