"""Non-local context blocks for Detectron2.

Importing the package does nothing: names are imported when they are asked for.
``dnl_d2.layers`` needs PyTorch alone. :func:`add_dnl_config` adds the YAML keys to a config and
registers backbones, heads and datasets with Detectron2.
"""

import importlib
import importlib.util
import sys
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "Predictor", "add_dnl_config", "export_model", "export_segmentor", "optimize_for_inference",
]  # fmt: skip

# Public name -> module that has it.
_HOMES = {
    "Predictor": "dnl_d2.prediction",
    "add_dnl_config": "dnl_d2.register_all",
    "export_model": "dnl_d2.export",
    "export_segmentor": "dnl_d2.export",
    "optimize_for_inference": "dnl_d2.modeling.optimize",
}
_PACKAGES = (
    "analysis", "checkpoint", "config", "data", "engine", "evaluation", "export", "layers",
    "model_zoo", "modeling", "prediction", "preparation", "synthetic", "validation",
    "visualization",
)  # fmt: skip


def has_detectron2() -> bool:
    """Whether ``import detectron2`` will find it."""
    try:
        return importlib.util.find_spec("detectron2") is not None
    except ValueError:  # None in sys.modules, or a module without a spec
        return sys.modules.get("detectron2") is not None


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    if not has_detectron2():  # nothing else could be imported
        return sorted({*globals(), "layers"} - {*__all__})
    return sorted({*globals(), *_HOMES, *_PACKAGES})
