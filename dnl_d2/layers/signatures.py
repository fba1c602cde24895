"""Functions whose keyword arguments are the fields of a dataclass."""

import inspect
from collections.abc import Callable, Container
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def takes_fields_of(options: type, *, but: Container[str] = ()) -> Callable[[F], F]:
    """Lets a function that passes ``**options`` on show the fields of a dataclass as arguments.

    ``help``, :func:`inspect.signature` and all that is built on it (config keys, overrides) then
    see names and defaults, which are written once, in the dataclass.

    Args:
        options: a dataclass of keyword-only fields, of which the function makes an instance.
        but: fields that are not arguments.
    """

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = inspect.signature(options).parameters
        named += [p for name, p in fields.items() if name not in but]
        function.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]
        return function

    return decorate
