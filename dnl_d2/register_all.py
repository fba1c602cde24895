"""Everything that config files name, registered with Detectron2."""

import dnl_d2.data
import dnl_d2.modeling  # noqa: F401
from dnl_d2.config.keys import add_dnl_config

__all__ = ["add_dnl_config"]
