"""The one exception that means "the user can fix this"."""


class UsageError(ValueError):
    """Wrong input: a config key, a file, a name or an argument.

    The message is one line that says what was wrong, where, and what to do. The command lines
    print it without a traceback; anything else that escapes is a bug and keeps its traceback.
    """


def one_line(error: UsageError) -> str:
    """The message, also of an error that a data-loading process has wrapped in its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("UsageError: ", 1)[-1] if lines else type(error).__name__
