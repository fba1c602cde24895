"""Writing weight files so that a killed run leaves nothing behind."""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.files import check_folder, renamed_when_whole

FORMATS = (".pth", ".safetensors")


def check_output(path: str, source: str) -> None:
    """Raises :class:`UsageError` if ``path`` cannot be the output of reading ``source``."""
    if not path.endswith(FORMATS):
        raise UsageError(f"{path}: the output's name ends in {' or '.join(FORMATS)}")
    if os.path.isdir(path):
        raise UsageError(f"{path}: a folder, not a file")
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise UsageError(f"{path}: the output would overwrite the input")
    check_folder(path)


def write_weights(path: str, content: Mapping[str, Any], *, weights: str = "model") -> None:
    """Writes under a temporary name, then renames: ``path`` is whole or as it was before.

    Args:
        path: ends in ``.pth`` or ``.safetensors``.
        content: the weights under the key ``weights``, and plain data beside them. A safetensors
            file holds that data as JSON in its metadata.

    Raises:
        UsageError: the file cannot be written.
    """
    with renamed_when_whole(path) as temporary:
        if path.endswith(".safetensors"):
            _write_safetensors(temporary, content, weights)
        else:
            torch.save(dict(content), temporary)


def _write_safetensors(path: str, content: Mapping[str, Any], weights: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Names may share memory (a tensor stored twice); safetensors wants each on its own.
    state: dict[str, Tensor] = {k: v.contiguous().clone() for k, v in content[weights].items()}
    metadata = {k: json.dumps(v, default=str) for k, v in content.items() if k != weights}
    try:
        save_file(state, path, {"format": "pt", **metadata})
    except SafetensorError as error:
        raise OSError(str(error)) from error
