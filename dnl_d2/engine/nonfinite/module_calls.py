"""Which module makes what is not finite, forward or backward."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dnl_d2.engine.nonfinite.finding import NonFinite, described, is_finite, tensors_in


@dataclass
class _Call:
    """One call of a module, and what was not finite of it."""

    name: str
    kind: str
    from_finite: bool
    output: NonFinite | None = None
    of_inputs: list[NonFinite] = field(default_factory=list)  # their gradients
    of_outputs: list[NonFinite] = field(default_factory=list)

    def finding(self, what: str, tensor: Tensor, *, made_here: bool = False) -> NonFinite:
        return described(what, self.name, tensor, self.kind, made_here=made_here)

    def note_gradients(self, tensors: Sequence[Tensor], found: list[NonFinite]) -> None:
        """Has gradients of tensors that are not finite added to a list, in the backward pass."""

        def note(gradients: Sequence[Tensor | None], number: int) -> None:
            gradient = gradients[number]
            if gradient is not None and not is_finite(gradient):
                found.append(self.finding("gradient", gradient))

        for tensor in tensors:
            # A hook of the tensor would stay with what it was before an operation in place.
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(partial(note, number=tensor.output_nr))


class ModuleCalls:
    """Watches which modules make what is not finite, in the order in which they end."""

    def __init__(self) -> None:
        self._open: list[_Call] = []
        self._done: list[_Call] = []

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        hooks: list[RemovableHandle] = []
        for name, module in model.named_modules():
            enter = partial(self._enter, name)
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs = [*tensors_in((args, kwargs))]
        call = _Call(name, type(module).__name__, all(is_finite(x) for x in inputs))
        self._open.append(call)
        call.note_gradients(inputs, call.of_inputs)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self._open.pop()
        outputs = [*tensors_in(output)]
        wrong = next((x for x in outputs if not is_finite(x)), None)
        if wrong is not None:
            call.output = call.finding("output", wrong, made_here=call.from_finite)
        self._done.append(call)
        call.note_gradients(outputs, call.of_outputs)

    def outputs(self) -> list[NonFinite]:
        return [call.output for call in self._done if call.output is not None]

    def gradients(self, of_parameters: Mapping[str, Tensor | None]) -> list[NonFinite]:
        """Those of modules' inputs, the last call's first, and those of parameters.

        A module has made what is not finite where the gradient of its output is finite, and no
        module in it has made it.
        """
        wrong = {
            name: described("gradient", name, gradient, made_here=False)
            for name, gradient in of_parameters.items()
            if gradient is not None and not is_finite(gradient)
        }
        owned = {name.rpartition(".")[0]: found for name, found in reversed(wrong.items())}
        leaving = [(call, self._leaving(call, owned)) for call in reversed(self._done)]
        makers = {call.name for call, found in leaving if found and not call.of_outputs}
        innermost = {n for n in makers if not any(_is_inside(other, n) for other in makers)}
        of_modules = [
            replace(found, name=call.name, kind=call.kind, made_here=call.name in innermost)
            for call, found in leaving
            if found and (call.of_inputs or call.name in owned or call.name in innermost)
        ]
        return [*of_modules, *wrong.values()]

    def _leaving(self, call: _Call, owned: Mapping[str, NonFinite]) -> NonFinite | None:
        """What a module's backward pass hands on: to its inputs, parameters and inner modules."""
        inner = (c.of_outputs for c in reversed(self._done) if _is_inside(c.name, call.name))
        first = next(filter(None, inner), [])
        return next(iter([*call.of_inputs, *first]), owned.get(call.name))


def _is_inside(name: str, module: str) -> bool:
    return name != module and (not module or name.startswith(f"{module}."))
