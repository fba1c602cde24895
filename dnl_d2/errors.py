"""The one exception that means "the user can fix this"."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator


class UsageError(ValueError):
    """Wrong input: a config key, a file, a name or an argument.

    The message is one line that says what was wrong, where, and what to do. The command lines
    print it without a traceback; anything else that escapes is a bug and keeps its traceback.
    """


def one_line(error: Exception) -> str:
    """The message, also of an error that a data-loading process has wrapped in its traceback."""
    message = wrapped_message(str(error))
    told = str(error) if message is None else message
    return printable(told.strip()) or type(error).__name__


def wrapped_message(text: str) -> str | None:
    """What a :class:`UsageError` of any kind says at the end of another process's traceback.

    None if the text is no traceback of such an error.
    """
    kinds = [UsageError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    names = "|".join({kind.__name__ for kind in kinds})
    found = re.search(rf"(?s).*\b(?:{names}): (.*)", text)
    return found[1] if found else None


def printable(text: str) -> str:
    """The text with line breaks and what else cannot be seen as escapes, as file names may hold."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(error: Exception | str, most: int = 300) -> str:
    """A reason on one line, of ``most`` characters: the middle of a longer one is left out."""
    text = " ".join(str(error).split())
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 5]} ... {text[-end:]}"


@contextlib.contextmanager
def ending_in_one_line(program: str) -> Iterator[None]:
    """Ends a program with the message of a :class:`UsageError` as its last line, and status 1."""
    try:
        yield
    except UsageError as error:
        sys.exit(f"{program}: error: {one_line(error)}")


@contextlib.contextmanager
def building(what: str) -> Iterator[None]:
    """Turns what constructors raise about wrong config values into a :class:`UsageError`.

    The traceback goes to the log at debug level.
    """
    try:
        yield
    except UsageError:
        raise
    except (
        KeyError, TypeError, ValueError, AssertionError, OSError, ImportError, ZeroDivisionError,
        AttributeError, IndexError, RuntimeError,
    ) as error:  # fmt: skip
        logging.getLogger(__name__).debug("while building %s", what, exc_info=True)
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"while building {what}: {type(error).__name__}: {reason}") from error
