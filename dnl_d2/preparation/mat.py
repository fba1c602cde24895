"""Reading label maps from MATLAB files."""

from collections.abc import Callable

import numpy as np

from dnl_d2.errors import UsageError
from dnl_d2.files import require_regular


def mat_loader() -> Callable[..., dict]:
    """Returns SciPy's ``loadmat``.

    Raises:
        UsageError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError("the labels are *.mat files: install scipy to read them") from error
    return loadmat


def read_mat(path: str, variable: str, *fields: str) -> np.ndarray:
    """Reads a label map.

    Args:
        path: the file, of a version before 7.3, as the datasets have it.
        variable: name of a variable.
        fields: names to follow where the variable is a struct.

    Returns:
        (H, W) integers.

    Raises:
        UsageError: the file is missing, broken, or has something else in it.
    """
    loadmat = mat_loader()
    where = ".".join((variable, *fields))
    try:
        require_regular(path)
        content = loadmat(path, variable_names=[variable])
    except Exception as error:  # SciPy parses what it finds: a broken file may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"label {path} cannot be read ({reason}): unpack it again") from error
    try:
        label = content[variable]
        for name in fields:
            label = label[name][0, 0]
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"label {path} has no variable {where}: put the original file in its place"
        ) from error
    if label.ndim != 2 or label.dtype.kind not in "iu" or not label.size:
        raise UsageError(
            f"label {path}: {where} is {label.dtype} of shape {label.shape}, expected a map of "
            "integers: put the original file in its place"
        )
    return label
