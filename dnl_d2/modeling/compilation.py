"""torch.compile for whole models: of the parts that map tensors to tensors, in place."""

from contextlib import AbstractContextManager

import torch
from torch import nn

from dnl_d2.errors import UsageError

# Of Detectron2's models: what takes a tensor or feature maps. What is around them takes lists of
# records, and RoI heads change their shapes with every picture.
_PARTS = ("backbone", "sem_seg_head")
_BACKEND = "inductor"


def compile_parts(model: nn.Module) -> list[str]:
    """Has ``backbone`` and ``sem_seg_head`` of a model compiled, or else the whole model.

    In place: modules, parameters and their names stay, so that checkpoints, optimizers and
    DistributedDataParallel notice nothing, and a deep copy of the model is not compiled. A part is
    compiled when it is first run, and once more, for any size, when a second size comes.

    Args:
        model: of Detectron2 or this library, or a part of one.

    Returns:
        Names of the parts; empty where it is the whole model.
    """
    names = [name for name in _PARTS if isinstance(getattr(model, name, None), nn.Module)]
    for part in [getattr(model, name) for name in names] or [model]:
        part.compile(backend=_BACKEND)
    return names


def require_compiler(device: str | torch.device, key: str) -> None:
    """Compiles a sum on the device, to find out before a run whether that can be done.

    Args:
        device: where the model is.
        key: what asks for it, for the message.

    Raises:
        UsageError: there is no C++ compiler, no Triton, or PyTorch compiles nothing on this system.
    """
    try:
        torch.compile(torch.add, backend=_BACKEND)(torch.ones(8, device=device), 1)
    except Exception as error:  # whatever is missing
        lines = [line for line in str(error).splitlines() if line and not line.endswith(":")]
        reason = lines[0].strip() if lines else type(error).__name__
        raise UsageError(
            f"{key}: torch.compile does not work here ({reason}); install what it needs (on a CPU "
            f"a C++ compiler such as g++, on CUDA also Triton), or set {key} to False"
        ) from error


def uncompiled() -> AbstractContextManager[object]:
    """A context in which whatever is compiled runs as it is written.

    For pictures of many sizes, of which each might be compiled anew, and for hooks, which compiled
    modules do not call.
    """
    return torch.compiler.set_stance("force_eager")
