"""Importing this says how to get Detectron2 where it is missing."""

from dnl_d2 import has_detectron2

_MESSAGE = (
    "dnl_d2 needs detectron2, which is not installed. Install it from source: "
    "pip install --no-build-isolation "
    "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833, "
    "or from wheels: `make test` in the dnl_d2 repository sets up a .venv with sal-detectron2 "
    "(requirements/detectron2.txt). dnl_d2.layers works without it."
)


if not has_detectron2():
    raise ModuleNotFoundError(_MESSAGE, name="detectron2")
