"""Non-local context blocks for Detectron2.

Importing the package registers its backbones, heads and datasets with Detectron2.
``dnl_d2.layers`` can be imported with PyTorch alone.
"""

import importlib.util
import sys

__version__ = "0.1.0"

_NO_DETECTRON2 = (
    "dnl_d2 needs detectron2, which is not installed. Install it from source: "
    "pip install --no-build-isolation "
    "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833, "
    "or from wheels: `make test` in the dnl_d2 repository sets up a .venv with sal-detectron2 "
    "(requirements/detectron2.txt). dnl_d2.layers works without it."
)


def _has_detectron2() -> bool:
    try:
        return importlib.util.find_spec("detectron2") is not None
    except ValueError:  # sys.modules["detectron2"] is None, or a module without a spec
        return sys.modules.get("detectron2") is not None


def _importing_layers() -> bool:
    """Whether this module is being imported on the way to ``dnl_d2.layers``.

    Python runs a package's __init__ before its submodules and does not tell it which of them is
    wanted; the import system's own frames do.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load":
            name = str(frame.f_locals.get("name"))
            if name == "dnl_d2.layers" or name.startswith(("dnl_d2.layers.", "dnl_d2.errors")):
                return True
        frame = frame.f_back
    return False


if _has_detectron2():
    from dnl_d2 import data, modeling  # noqa: F401  (registers)
    from dnl_d2.config.keys import add_dnl_config
    from dnl_d2.modeling.optimize import optimize_for_inference

    __all__ = ["add_dnl_config", "optimize_for_inference"]
elif _importing_layers():

    def __getattr__(name: str):
        if name.startswith("__"):  # what Python and tools probe for
            raise AttributeError(name)
        raise ImportError(_NO_DETECTRON2)

else:
    raise ImportError(_NO_DETECTRON2)
