"""A stand-in for mmcv's compiled operators: the only place that patches another package.

Why: mmsegmentation 1.2.2 and MMDetection 3.3.0 import ``mmcv.ops``, which takes its operators from
``mmcv._ext`` as it is imported. mmcv-lite 2.1.0 has no such file, and no wheel of the full mmcv is
built for today's PyTorch. The models that are built here call none of the operators but nms, which
is torchvision's, as is RoIAlign by their configs.
"""

import sys
import types


class _Operators(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _no_operator


def _no_operator(*_args, **_options):
    raise RuntimeError("mmcv-lite has no compiled operators")


def _nms(boxes, scores, iou_threshold, offset):
    from torchvision.ops import nms

    return nms(boxes, scores, iou_threshold)


def stand_in() -> None:
    """Makes mmsegmentation and MMDetection importable with mmcv-lite."""
    operators = _Operators("mmcv._ext")
    operators.nms = _nms
    sys.modules.setdefault("mmcv._ext", operators)
