"""Files that were damaged, by chance but the same in each run, and what may come of them."""

import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from dnl_d2.errors import UsageError
from tests.limits import ten_seconds

# How many mutations of each file: 1 in the test suite, more where there is time.
TIMES = int(os.environ.get("DNL_D2_FUZZ", "1"))
LONGEST = 400  # characters of a message, beside the path


def damaged(content: bytes, number: int, seed: str) -> Iterator[tuple[str, bytes]]:
    """``number`` times :data:`TIMES` mutations of the bytes, each with its name."""
    for index in range(number * TIMES):
        chance = random.Random(f"{seed} {index}")
        change = _CHANGES[index % len(_CHANGES)]
        yield f"{change.__name__} {index}", change(content, chance)


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    new = bytes(chance.choice((0, 1, 0x7F, 0x80, 0xFF)) for _ in range(chance.choice((1, 2, 4, 8))))
    return content[:at] + new + content[at + len(new) :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _zero(content: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(content)), chance.choice((16, 512, 4096))
    length = min(length, len(content) - at)
    return content[:at] + bytes(length) + content[at + length :]


def _swap(content: bytes, chance: random.Random) -> bytes:
    length = chance.choice((4, 64, 512))
    one, other = sorted(chance.randrange(len(content)) for _ in range(2))
    if other < one + length:
        return content[length:] + content[:length]
    middle = content[one + length : other]
    end = content[other + length :]
    return content[:one] + content[other : other + length] + middle + content[one:][:length] + end


def _repeat(content: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(content)), chance.choice((1, 16, 256))
    return content[:at] + content[at : at + length] * chance.choice((2, 50)) + content[at:]


def _remove(content: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(content)), chance.choice((1, 16, 256))
    return content[:at] + content[at + length :]


_CHANGES = (_flip, _overwrite, _cut, _zero, _swap, _repeat, _remove)


def outcome(read: Callable[[], Any], path: str, name: str) -> Any:
    """What ``read`` gives, or None if it says in a short line that names ``path`` what is wrong.

    Anything else that it may do, also taking very long, is an error of the test.
    """
    try:
        with ten_seconds():
            return read()
    except UsageError as error:
        message = str(error)
        assert path in message, f"{name}: {message[:500]}"
        assert len(message.replace(path, "")) <= LONGEST, f"{name}: {len(message)} characters"
        assert "\n" not in message, f"{name}: {message[:500]}"
        return None
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}"[:2000]) from error


def odd_values(content: Any, number: int, seed: str) -> Iterator[tuple[str, Any]]:
    """What JSON or YAML holds, with one value another, missing or twice, as tools get it wrong."""
    places = list(_places(content, ()))
    for index in range(number * TIMES):
        chance = random.Random(f"{seed} {index}")
        changed = json.loads(json.dumps(content))
        *way, last = chance.choice(places)
        inside = changed
        for step in way:
            inside = inside[step]
        what = chance.choice((*_ODD, "remove", "double"))
        if what == "remove":
            del inside[last]
        elif what == "double":
            inside[last] = [inside[last], inside[last]]
        else:
            inside[last] = what
        yield f"{'.'.join(map(str, (*way, last)))} {what!r:.40}", changed


_ODD = (
    None, True, False, -1, 0, 1.5, 10**18, 10**40, 1e308, "", "x", "a" * 5000, "\n\x00\ud800", [],
    [[]], [1, 2], {}, {"a": {"b": []}},
)  # fmt: skip


def _places(content: Any, way: tuple) -> Iterator[tuple]:
    if isinstance(content, dict | list):
        for step in content if isinstance(content, dict) else range(len(content)):
            yield (*way, step)
            yield from _places(content[step], (*way, step))
