"""The public code bases whose checkpoints can be read, one file each."""

from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources import (
    ann,
    detectron2,
    dnl_det,
    dnl_seg,
    gcnet,
    mmdet,
    mmseg,
    msra,
    openmmlab_resnet,
    paddleseg,
    timm,
    torchcv,
    torchvision,
)

# The first that recognises a file is taken: those with the more telling keys come first.
# register_source() adds to them.
SOURCES: list[Source] = [
    mmseg.V1D,
    mmseg.SOURCE,
    mmdet.SOURCE,
    dnl_det.SOURCE,
    gcnet.SOURCE,
    dnl_seg.SOURCE,
    ann.SOURCE,
    *paddleseg.SOURCES,
    detectron2.WHOLE,
    detectron2.BARE,
    msra.SOURCE,
    *timm.SOURCES,
    *openmmlab_resnet.SOURCES,
    torchcv.SOURCE,
    torchvision.SOURCE,
]
