"""Random weights for any network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def random_state(
    model: nn.Module, *, seed: int = 0, small: str = "", scales: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """A value for every key, none of them zero; the model may lie on the meta device.

    Args:
        model: whose keys and shapes to fill; a tensor under two names gets one value.
        seed: of the random numbers.
        small: norms whose name ends so, the last ones of residual branches, get small scales, so
            that the activations of deep networks do not blow up.
        scales: parts of names -> factors for kernels; the first match counts.
    """
    generator = torch.Generator().manual_seed(seed)
    filled: dict[int, Tensor] = {}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in filled:
            value = _random(name, tensor, generator)
            if small and name.endswith(f"{small}.weight"):
                value *= 0.3
            if tensor.dim() > 1:
                value *= next((f for part, f in (scales or {}).items() if part in name), 1.0)
            filled[id(tensor)] = value
        state[name] = filled[id(tensor)]
    return state


def _random(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():  # num_batches_tracked
        return torch.randint(1, 1000, tensor.shape, generator=generator)
    if tensor.dim() > 1:
        bound = (6 / tensor[0].numel()) ** 0.5  # as kaiming_uniform_: twice as fast as normal ones
        return torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
    if name.endswith(("bias", "running_mean")):
        return torch.randn(tensor.shape, generator=generator) * 0.2
    return torch.rand(tensor.shape, generator=generator) + 0.5
