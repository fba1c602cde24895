"""Parameter groups of the optimizer and the clipping of gradients, for both config systems."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch import nn

from dnl_d2.errors import UsageError

# Where one kernel for all of a step is taken. On CPUs that of SGD gives the bits of the others, and
# those of Adam and AdamW round differently.
_FUSED: dict[type, set[str]] = {
    torch.optim.SGD: {"cpu", "cuda"},
    torch.optim.Adam: {"cuda"},
    torch.optim.AdamW: {"cuda"},
}


def optimizer_params(
    model: nn.Module,
    *,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    no_decay: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Detectron2's ``get_default_optimizer_params``, with parameters that do not decay.

    Args:
        model: whose parameters to optimize.
        base_lr, weight_decay: None for those of the optimizer.
        weight_decay_norm, weight_decay_bias: of norms and of biases; None for ``weight_decay``.
        bias_lr_factor: factor of ``base_lr`` for biases.
        no_decay: see :func:`without_decay`.

    Raises:
        UsageError: see :func:`without_decay`.
    """
    groups = get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        weight_decay_norm=weight_decay_norm,
        bias_lr_factor=bias_lr_factor,
        weight_decay_bias=weight_decay_bias,
    )
    return without_decay(groups, model, no_decay, key="optimizer.params.no_decay")


def clip_total_norm(optimizer: torch.optim.Optimizer, limit: float, norm_type: float = 2.0) -> None:
    """Scales the gradients of all parameters down where their norm together exceeds ``limit``.

    It happens in each step of ``optimizer``, after a GradScaler has unscaled the gradients. This is
    ``grad_clip`` of MMDetection; Detectron2's own types clip each parameter by itself.

    Raises:
        UsageError: a fused optimizer, to which a GradScaler hands scaled gradients.
    """
    if optimizer.defaults.get("fused"):
        raise UsageError(
            "the norm of all gradients is not clipped in a fused optimizer: unset fused"
        )

    def clip(*_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, limit, norm_type)

    optimizer.register_step_pre_hook(clip)


def fuse(optimizer: torch.optim.Optimizer, *, scaled: bool) -> None:
    """Has SGD, Adam or AdamW step in a single kernel where that is faster.

    An optimizer of which the config says how it computes (``fused``) stays as it is, and so does
    one with dampening, which PyTorch leaves out of a parameter's first step. A fused one takes the
    factor of a GradScaler, which then need not ask the GPU whether all gradients are finite.
    Whatever changes gradients before the step, as clipping does, would see scaled ones.

    Args:
        optimizer: of parameters on their device; from now on it keeps its own way to compute when
            a state is loaded that was computed in another.
        scaled: whether a GradScaler scales the loss.
    """
    optimizer.register_load_state_dict_pre_hook(_keep_own_kernels)
    groups, kind = optimizer.param_groups, type(optimizer)
    clips = kind not in _FUSED or bool(optimizer._optimizer_step_pre_hooks)
    as_told = ("differentiable", "dampening")
    if any(g.get("fused") is not None or any(map(g.get, as_told)) for g in groups):
        return
    devices = {p.device.type for g in groups for p in g["params"]}
    # Detectron2's clipping makes a subclass.
    known = next((_FUSED[c] for c in (kind, *kind.__bases__) if c in _FUSED), set())
    if (scaled and clips) or not devices <= known:
        return
    for group in (optimizer.defaults, *groups):
        group.update(fused=True, foreach=False)
    optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]  # for GradScaler
    if "momentum" in optimizer.defaults:
        optimizer.register_step_pre_hook(_start_momenta)


def _start_momenta(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Zeros for parameters that get a gradient for the first time.

    PyTorch's kernel takes the momenta of all of them or of none. Those that it makes itself hold
    whatever was in memory where the first step is left out because a gradient is infinite.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _keep_own_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A state to load, with the kernels that the optimizer has here in place of its own."""
    kernels = [
        {name: group[name] for name in ("fused", "foreach") if name in group}
        for group in optimizer.param_groups
    ]
    if len(kernels) != len(state["param_groups"]):  # of another model, which PyTorch will say
        return state
    groups = [g | own for g, own in zip(state["param_groups"], kernels, strict=True)]
    return state | {"param_groups": groups}


def keep_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Has an optimizer write its state contiguous, and lay what it loads as its parameters lie.

    Checkpoints then do not depend on channels-last training, and a fused step, which takes tensors
    as they lie in memory, finds momenta as it needs them.
    """

    def contiguous(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        laid = {
            number: {
                name: value.contiguous() if isinstance(value, torch.Tensor) else value
                for name, value in of_one.items()
            }
            for number, of_one in state["state"].items()
        }
        return state | {"state": laid}

    def as_parameters(optimizer: torch.optim.Optimizer) -> None:
        for parameter, of_one in optimizer.state.items():
            for name, value in of_one.items():
                alike = isinstance(value, torch.Tensor) and value.shape == parameter.shape
                if alike and value.stride() != parameter.stride():
                    of_one[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    optimizer.register_state_dict_post_hook(contiguous)
    optimizer.register_load_state_dict_post_hook(as_parameters)


def without_decay(
    groups: list[dict[str, Any]], model: nn.Module, patterns: Sequence[str], *, key: str
) -> list[dict[str, Any]]:
    """The groups with weight decay 0 for every parameter whose name one of the patterns is in.

    Args:
        groups: parameter groups of an optimizer; they stay as they are.
        model: names the parameters.
        patterns: regular expressions, searched for in names such as
            ``sem_seg_head.context_block.query.weight``.
        key: the config key of ``patterns``, for messages.

    Raises:
        UsageError: a pattern is no regular expression or is in no name of a trained parameter.
    """
    if not patterns:
        return groups
    if isinstance(patterns, str):
        raise UsageError(f"{key}: {patterns!r} is not a list of regular expressions")
    names = {p: name for name, p in model.named_parameters()}
    trained = {names[p] for group in groups for p in group["params"]}
    free = set()
    for pattern in patterns:
        try:
            found = {name for name in trained if re.search(pattern, name)}
        except re.error as error:
            raise UsageError(f"{key}: {pattern!r} is no regular expression: {error}") from error
        if not found:
            raise UsageError(
                f"{key}: {pattern!r} is in the name of no parameter that is trained; names are "
                f"such as {max(trained)!r}"
            )
        free |= found
    return reduce_param_groups(
        [
            {**group, "params": [p], **({"weight_decay": 0.0} if names[p] in free else {})}
            for group in groups
            for p in group["params"]
        ]
    )
