"""Mixed precision in training."""

import logging
from typing import Any

import torch
from torch import nn

from dnl_d2.errors import UsageError

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def autocast_dtype(enabled: bool, name: str, device: str, key: str) -> torch.dtype | None:
    """What mixed precision trains in: None if it is off, and always bfloat16 on a CPU.

    Args:
        enabled: whether to use it.
        name: ``float16`` or ``bfloat16``, on CUDA.
        device: where the model is.
        key: the config key of ``name``, for the message.

    Raises:
        UsageError: another name, or a GPU without bfloat16.
    """
    if name not in _DTYPES:
        raise UsageError(f"{key}={name!r}: use one of {', '.join(_DTYPES)}")
    if not enabled:
        return None
    if torch.device(device).type == "cpu":
        return torch.bfloat16
    if name == "bfloat16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise UsageError(f"{key}: this GPU has no bfloat16; use float16")
    return _DTYPES[name]


class AutocastInTraining(nn.Module):
    """Runs a model's training passes in bfloat16 autocast; evaluation stays in fp32.

    bfloat16 needs no loss scaling, so any trainer will do; Detectron2's AMPTrainer scales, and is
    for CUDA only.
    """

    def __init__(self, model: nn.Module, *, device: str = "cpu"):
        super().__init__()
        self.model = model
        self.device_type = torch.device(device).type
        logging.getLogger(__name__).info(
            f"mixed precision on {self.device_type}: bfloat16 in training"
        )

    def forward(self, inputs: list[dict]) -> Any:
        training = self.training and torch.is_grad_enabled()
        with torch.autocast(self.device_type, torch.bfloat16, enabled=training):
            return self.model(inputs)
