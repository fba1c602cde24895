"""Griffe extension: Sphinx's roles in docstrings, such as ``:func:`dnl_d2.layers.x```, as code."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")
_EXAMPLE = re.compile(r"^( *)\.\. code-block:: *(\w+)\n\n((?:\1    .*\n|\n)+)", re.MULTILINE)


class Roles(griffe.Extension):
    """Turns roles into code and ``.. code-block::`` into fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(
                r"`\1`", _EXAMPLE.sub(_fence, obj.docstring.value + "\n")
            )


def _fence(match: re.Match) -> str:
    indent, language, code = match.groups()
    lines = [indent + line[len(indent) + 4 :] for line in code.rstrip("\n").split("\n")]
    return "\n".join([f"{indent}```{language}", *lines, f"{indent}```", "", ""])
