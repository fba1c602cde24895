"""Translating the keys of a state dict by rules that read in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dnl_d2.errors import UsageError

State = Mapping[str, Tensor]

# Parameters and statistics of a batch norm, and of any layer.
NORM = "{p:weight|bias|running_mean|running_var|num_batches_tracked}"
PARAM = "{p:weight|bias}"

# Of torch.compile, activation checkpointing and FullyShardedDataParallel.
_WRAPPERS = re.compile(r"(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_FIELD = re.compile(r"\{(\w+)([+-]\d+)?(?::([^}]*))?\}")


@dataclass(frozen=True)
class Rule:
    """One line of a key map: a public name and ours.

    Both are templates. ``{name}`` stands for a number, ``{name+1}`` for that number plus one,
    ``{name:a|b}`` for one of some words, ``{name:*}`` for any text. Both sides have the same
    fields, with the same values, and spell out the words, so that rules read both ways.

    Args:
        public: the public key, such as ``backbone.layer{s}.{b}.conv{i}.weight``.
        ours: this library's key, such as ``backbone.res{s+1}.{b}.conv{i}.weight``; None for a
            public key that our model has no use for.
        to_ours: changes the tensor on the way in.
        to_public: changes it back; None if the tensor is the same.
        why: for a dropped key, what it was, such as ``"ImageNet classifier"``.
    """

    public: str
    ours: str | None
    to_ours: Callable[[Tensor], Tensor] | None = None
    to_public: Callable[[Tensor], Tensor] | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if self.ours is not None:
            sides = [{f[0] for f in _FIELD.findall(side)} for side in (self.public, self.ours)]
            if sides[0] != sides[1]:
                raise ValueError(f"{self.public!r} and {self.ours!r} have different fields")


@dataclass
class Converted:
    """What a conversion did. All keys are in the order of the input.

    Args:
        state: the result.
        origin: key of the result -> key it came from.
        dropped: input key -> why it has no counterpart.
        unexpected: input keys that no rule speaks of.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    @property
    def renamed(self) -> dict[str, str]:
        """Input key -> key of the result, where the two differ."""
        return {old: new for new, old in self.origin.items() if old != new}


def to_ours(state: State, rules: Sequence[Rule]) -> Converted:
    """Public state dict -> ours. The first rule that matches a key decides.

    Raises:
        UsageError: two public keys of one parameter hold different values.
    """
    compiled = [(_Template(r.public), r) for r in rules]
    result = Converted()
    for key, value in state.items():
        for template, rule in compiled:
            values = template.match(key)
            if values is None:
                continue
            if rule.ours is None:
                result.dropped[key] = rule.why
            else:
                value = value if rule.to_ours is None else rule.to_ours(value)
                _put(result, _Template(rule.ours).format(values), value, key)
            break
        else:
            result.unexpected.append(key)
    return result


def to_public(state: State, rules: Sequence[Rule]) -> Converted:
    """Our state dict -> a public one.

    A parameter that the public model stores under several names is written under all of them.
    """
    compiled = [(_Template(r.ours), r) for r in rules if r.ours is not None]
    result = Converted()
    for key, value in state.items():
        matched = [(t.match(key), rule) for t, rule in compiled]
        names: dict[str, Rule] = {}
        for values, rule in matched:
            if values is not None:
                names.setdefault(_Template(rule.public).format(values), rule)
        for name, rule in names.items():
            _put(result, name, value if rule.to_public is None else rule.to_public(value), key)
        if not names:
            result.unexpected.append(key)
    return result


def strip_prefix(state: State, prefix: str) -> dict[str, Tensor]:
    """Takes ``prefix`` off every key if all of them have it (``module.`` of DataParallel)."""
    if state and all(key.startswith(prefix) for key in state):
        return {key[len(prefix) :]: value for key, value in state.items()}
    return dict(state)


def unwrapped(state: State, known: Callable[[State], bool]) -> dict[str, Tensor]:
    """Takes off what trainers and compilers put before the names of a model.

    What PyTorch's wrappers put anywhere goes (``_orig_mod.``), and then, one by one, the first
    parts that all names share (``module.``, ``model.``), until the names are known. If they never
    are, only ``module.`` goes.

    Args:
        state: the parameters of a file.
        known: whether names are those of a model.
    """
    shorter = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    plain = strip_prefix(shorter, "module.")
    while shorter and not known(shorter):
        first = next(iter(shorter)).partition(".")[0] + "."
        if not all(key.startswith(first) for key in shorter):
            return plain
        shorter = strip_prefix(shorter, first)
    return shorter


def is_wrapped(key: str) -> bool:
    """Whether one of PyTorch's wrappers has put its name into a key."""
    return _WRAPPERS.search(key) is not None


def has(state: State, *templates: str) -> bool:
    """Whether any key matches any of the templates."""
    return any(matching(state, template) for template in templates)


def matching(keys: Iterable[str], template: str) -> list[str]:
    """The keys that a template matches."""
    compiled = _Template(template)
    return [key for key in keys if compiled.match(key) is not None]


def _put(result: Converted, key: str, value: Tensor, origin: str) -> None:
    if key in result.state:
        known = result.state[key]
        if known.shape != value.shape or not torch.equal(known, value):
            raise UsageError(
                f"{origin!r} and {result.origin[key]!r} are one parameter ({key!r}) "
                "but hold different values"
            )
        return
    result.state[key] = value
    result.origin[key] = origin


class _Template:
    """A key with fields; see :class:`Rule`."""

    def __init__(self, text: str):
        self.text = text
        self.offsets: list[tuple[str, int]] = []
        pattern, end, seen = "", 0, set()
        for found in _FIELD.finditer(text):
            name, offset, words = found.groups()
            if name in seen:
                raise ValueError(f"field {name!r} stands twice in {text!r}")
            seen.add(name)
            self.offsets.append((name, int(offset or 0)))
            body = r"\d+"
            if words is not None:
                body = ".+" if words == "*" else "|".join(map(re.escape, words.split("|")))
            pattern += re.escape(text[end : found.start()]) + f"(?P<{name}>{body})"
            end = found.end()
        self.regex = re.compile(pattern + re.escape(text[end:]))

    def match(self, key: str) -> dict[str, str] | None:
        """The fields' values, or None."""
        found = self.regex.fullmatch(key)
        if found is None:
            return None
        values = found.groupdict()
        for name, offset in self.offsets:
            if offset:
                values[name] = str(int(values[name]) - offset)
        return values

    def format(self, values: Mapping[str, str]) -> str:
        """The key with the fields filled in."""

        def fill(found: re.Match) -> str:
            name, offset, _ = found.groups()
            return str(int(values[name]) + int(offset)) if offset else values[name]

        return _FIELD.sub(fill, self.text)
