"""Recipes and models by name, from an installed package and from a checkout alike.

.. code-block:: python

    from dnl_d2 import model_zoo

    model_zoo.list("cityscapes/dnl_*")
    model = model_zoo.get_model("cityscapes/dnl_r50-d8_40k_cityscapes-512x1024", "weights.pth")
    model = model_zoo.get_model("cityscapes/dnl_r50-d8_40k_cityscapes-512x1024", trained=True)
"""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.model_zoo.models import get_config, get_model
from dnl_d2.model_zoo.recipes import find_recipe, get_checkpoint_url, get_config_file
from dnl_d2.model_zoo.recipes import list_recipes as list

__all__ = [
    "find_recipe",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
    "get_model",
    "list",
]
