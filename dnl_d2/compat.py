"""What is changed in other packages' modules: when it is used, never on import.

| package | why |
| --- | --- |
| lvis 0.5.3, the last release | calls ``np.float``, which NumPy dropped in 1.24 |
| cityscapesScripts 2.3.0 | calls ``np.in1d``, which NumPy dropped in 2.4 |
| Pillow | takes pictures of more than 179 million pixels, as in aerial surveys, for attacks |
"""

from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image

from dnl_d2.errors import UsageError


def lvis_evaluation() -> ModuleType:
    """The official evaluation, ``lvis.eval``.

    Raises:
        UsageError: the package is missing.
    """
    try:
        script = import_module("lvis.eval")
    except ImportError as error:
        raise UsageError(
            f"LVIS needs the package lvis ({error}): pip install --no-deps lvis==0.5.3 (without "
            "its dependencies, which would bring a second OpenCV)"
        ) from error
    return _with_numpy(script, float=float)


def cityscapes_evaluation(name: str) -> ModuleType:
    """A module of ``cityscapesscripts.evaluation``.

    Raises:
        UsageError: the package is missing, or looks in vain for a folder as it is imported.
    """
    try:
        script = import_module(f"cityscapesscripts.evaluation.{name}")
    except ImportError as error:
        raise UsageError(
            f"the Cityscapes evaluation needs cityscapesScripts ({error}): install it"
        ) from error
    except ValueError as error:  # it reads CITYSCAPES_EXPORT_DIR
        raise UsageError(f"cityscapesscripts: {error}") from error
    return _with_numpy(script, in1d=np.isin)


def allow_large_pictures() -> None:
    """Raises Pillow's limit, unless it is off, to 2**30 pixels; from 2**29 on it warns."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, 2**29)


def _with_numpy(module: ModuleType, **names: object) -> ModuleType:
    """Gives a module a ``np`` that has what NumPy has no longer."""
    gone = {name: value for name, value in names.items() if not hasattr(np, name)}
    if gone:
        vars(module)["np"] = SimpleNamespace(**vars(np), **gone)
    return module
