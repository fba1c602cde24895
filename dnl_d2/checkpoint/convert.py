"""From the content of a public file to our weights, and back to mmsegmentation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from torch import Tensor

from dnl_d2.checkpoint.describe.words import name_unknown
from dnl_d2.checkpoint.keymap import Converted, State, to_ours, to_public, unwrapped
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources import SOURCES
from dnl_d2.errors import UsageError

Value = TypeVar("Value")
_CLASSIFIER = "classifier."


@dataclass
class Comparison:
    """The keys of some weights against those of a model.

    Args:
        matched: keys of both, with equal shapes.
        missing: keys of the model only, without those that a file may lack.
        mismatched: key -> (shape in the weights, shape in the model).
        unexpected: keys of the weights only.
    """

    matched: list[str]
    missing: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unexpected: list[str]


def get_source(name: str) -> Source:
    """The source called ``name``.

    Raises:
        UsageError: there is none of that name.
    """
    known = {source.name: source for source in SOURCES}
    if name not in known:
        raise UsageError(f"unknown source {name!r}; use one of {', '.join(known)}")
    return known[name]


def register_source(source: Source) -> None:
    """Adds a code base whose files are then read as those of this library's own list are.

    It is asked before the others whether a file is its own.

    Raises:
        UsageError: another source has its name.
    """
    if any(known.name == source.name for known in SOURCES):
        raise UsageError(f"there is a source {source.name!r} already")
    SOURCES.insert(0, source)


def detect_source(state: State, among: str | None = None) -> Source:
    """Tells from the keys which code base wrote a file.

    Args:
        state: the file's parameters.
        among: the name of a source, or what the names of a family start with (``paddleseg``,
            ``mmseg``); None for all of them. A source of exactly that name is taken even if the
            keys do not look like its own.

    Raises:
        UsageError: none that is known, or none of those named; the message says what the file
            seems to be.
    """
    family = [s for s in SOURCES if among in (None, s.name) or s.name.startswith(f"{among}-")]
    if not family:
        raise UsageError(f"unknown source {among!r}; use one of {', '.join(source_names())}")
    state = unwrapped(state, partial(is_known, among=family))
    for source in family:
        if source.recognises(state):
            return source
    named = next((source for source in family if source.name == among), None)
    if named is not None:
        return named
    wanted = "a model this library knows" if among is None else f"a file of {among}"
    raise UsageError(f"not {wanted}: {name_unknown(state)}")


def is_known(state: State, among: Sequence[Source] = SOURCES) -> bool:
    """Whether the names of a file's parameters look like those of a source."""
    return any(source.recognises(state) for source in among)


def source_names() -> list[str]:
    """What ``--source`` takes: all sources, and the families of those that have several."""
    names = [source.name for source in SOURCES]
    starts = [name.rpartition("-")[0] for name in names]
    families = [s for s in dict.fromkeys(starts) if s and starts.count(s) > 1 and s != "dnl"]
    return [*names, *families]


def convert(state: State, source: Source, *, classifier: bool = False) -> Converted:
    """A public state dict -> ours: the keys of a model with a plain ``backbone``.

    Pure: neither the dict nor its tensors are changed.

    Args:
        state: the file's parameters.
        source: its code base.
        classifier: whether the last layer of a classifier of whole images is wanted, as
            ``classifier.weight`` and ``classifier.bias``; segmentors and detectors have none.

    Raises:
        UsageError: nothing in it is of ``source``, or it contradicts itself.
    """
    state = source.prepare(unwrapped(state, source.recognises))
    converted = to_ours(state, source.rules(state))
    for key in [] if classifier else [k for k in converted.state if k.startswith(_CLASSIFIER)]:
        del converted.state[key]
        converted.dropped[converted.origin.pop(key)] = "ImageNet classifier"
    if not converted.state:
        raise UsageError(f"not a file of {source.title}: {name_unknown(state)}")
    return converted


def convert_back(state: State, target: Source) -> Converted:
    """Our state dict -> a public one, such as mmsegmentation's for people who go back."""
    plain = {k.replace("backbone.bottom_up.", "backbone.", 1): v for k, v in state.items()}
    return to_public(plain, target.rules(plain))


def fit_backbone(state: Mapping[str, Value], model_keys: Iterable[str]) -> dict[str, Value]:
    """Moves ``backbone.*`` under ``backbone.bottom_up.*`` where the model has it there (FPN)."""
    if not any(key.startswith("backbone.bottom_up.") for key in model_keys):
        return dict(state)
    moved = {}
    for key, value in state.items():
        part = key.removeprefix("backbone.")
        if part != key and part.startswith(("stem.", "res")):
            key = f"backbone.bottom_up.{part}"
        moved[key] = value
    return moved


def compare(state: State, model: Mapping[str, Tensor]) -> Comparison:
    """Compares names and shapes. Counters of batches and an auxiliary head may be absent."""
    result = Comparison([], [], {}, [])
    for key, value in state.items():
        if key not in model:
            result.unexpected.append(key)
        elif value.shape != model[key].shape:
            result.mismatched[key] = (tuple(value.shape), tuple(model[key].shape))
        else:
            result.matched.append(key)
    no_auxiliary = not any(_AUXILIARY in key for key in state)
    result.missing = [
        key
        for key in model
        if key not in state
        and not key.endswith("num_batches_tracked")
        and not (no_auxiliary and _AUXILIARY in key)
    ]
    return result


_AUXILIARY = "sem_seg_head.auxiliary."
