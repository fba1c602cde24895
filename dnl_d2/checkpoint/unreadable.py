"""What is said of a file of tensors that cannot be read, and where memory is refused."""

import contextlib
from collections.abc import Iterable, Iterator

from torch import Tensor

from dnl_d2.checkpoint.unpickled_values import RefusedPickle
from dnl_d2.errors import UsageError, shortened

_SHARED = 8  # how often tensors may hold the bytes of the file, as names of one and the same do
_SLACK = 1 << 24  # bytes; a small file may repeat a value


@contextlib.contextmanager
def explaining(
    path: str,
    *,
    trust_pickle: bool = False,
    remedy: str = "if you trust its origin: tools/convert_weights.py --trust-pickle",
) -> Iterator[None]:
    """Turns whatever reading a file raises into a :class:`UsageError` that names it.

    Args:
        path: the file.
        trust_pickle: whether what it names is imported and called.
        remedy: for a file that would run code.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {shortened(error)}") from error
    except RefusedPickle as error:
        raise UsageError(
            f"{path}: refused, because reading it would run code ({shortened(error, 100)}); "
            f"{remedy}"
        ) from error
    except MemoryError as error:
        raise UsageError(f"{path}: not enough memory to read it") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, pickle, torch and safetensors raise anything
        if trust_pickle and isinstance(error, ImportError | AttributeError):
            raise UsageError(
                f"{path}: names what cannot be imported here ({shortened(error)}): install it, or "
                "read the file without --trust-pickle"
            ) from error
        raise UsageError(
            f"{path}: truncated or damaged ({type(error).__name__}: {shortened(error, 120)}); "
            "download or copy it again"
        ) from error


def check_sizes(tensors: Iterable[Tensor], size: int) -> None:
    """Tensors may repeat what a file of ``size`` bytes holds once, in their strides or by sharing.

    Raises:
        UsageError: they do so very often.
    """
    total = sum(value.numel() * value.element_size() for value in tensors)
    if total > _SHARED * size + _SLACK:
        raise UsageError(f"its tensors would be {total} bytes, and the file has {size}")
