"""Telling of parameters that weights do not fill, and of weights that fill none."""

import logging
from collections.abc import Sequence

from fvcore.common.checkpoint import _IncompatibleKeys

_log = logging.getLogger(__name__)
_NAMED = 3  # parameters that a warning names


def tell_of_unmatched(
    incompatible: _IncompatibleKeys, missing: Sequence[str], *, in_full_only: bool
) -> None:
    """Warns in a line for each kind; the lists, of hundreds of names at times, at debug level.

    Args:
        incompatible: what loading has found.
        missing: of it, the parameters that no other one of the model stands for.
        in_full_only: without the warnings, where an error is about to say it.
    """
    keep = "keep their initial values"
    told = {
        f"parameters have another shape in the weights and {keep}": [
            f"{key!r}: {there} in the checkpoint but {here} in the model"
            for key, there, here in incompatible.incorrect_shapes
        ],
        f"parameters are not in the weights and {keep}": [repr(key) for key in missing],
        "keys of the weights are not used": [repr(key) for key in incompatible.unexpected_keys],
    }
    for what, names in told.items():
        if names:
            _log.debug("%s:\n%s", what, "\n".join(names))
        if names and not in_full_only:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            _log.warning(f"{len(names)} {what}: {', '.join(names[:_NAMED])}{more}")
