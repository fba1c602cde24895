"""Non-local context blocks for Detectron2.

Importing the package does nothing: names are imported when they are asked for.
``dnl_d2.layers`` needs PyTorch alone. :func:`add_dnl_config` adds the YAML keys to a config and
registers backbones, heads and datasets with Detectron2.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["add_dnl_config", "optimize_for_inference"]

# Public name -> module that has it.
_HOMES = {
    "add_dnl_config": "dnl_d2.register_all",
    "optimize_for_inference": "dnl_d2.modeling.optimize",
}
_PACKAGES = (
    "analysis", "checkpoint", "config", "data", "engine", "evaluation", "layers", "model_zoo",
    "modeling", "preparation", "synthetic", "validation", "visualization",
)  # fmt: skip
_NO_DETECTRON2 = (
    "dnl_d2 needs detectron2, which is not installed. Install it from source: "
    "pip install --no-build-isolation "
    "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833, "
    "or from wheels: `make test` in the dnl_d2 repository sets up a .venv with sal-detectron2 "
    "(requirements/detectron2.txt). dnl_d2.layers works without it."
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        if name in _PACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "detectron2":
            raise
        raise ImportError(_NO_DETECTRON2) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
