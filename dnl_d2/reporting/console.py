"""What of a run's log a person sees; ``log.txt`` has all of it."""

import copy
import logging
import sys

# Whose messages below warnings are for log.txt alone: environment, configs, structure of the model,
# tables of datasets. A name stands for the loggers below it too, but for Detectron2's uppermost.
_FULL_LOG_ONLY = (
    "detectron2.checkpoint",
    "detectron2.data",
    "detectron2.engine.defaults",
    "detectron2.engine.train_loop",
    "detectron2.utils.env",
)
_UPPERMOST = "detectron2"  # of default_setup
_MOST_LINES = 6  # of a warning


class _Essentials(logging.Filter):
    """Lets warnings pass, and messages of those that have something to say to a person."""

    def filter(self, record: logging.LogRecord) -> bool:
        name = record.name
        details = name == _UPPERMOST or any(
            name == other or name.startswith(f"{other}.") for other in _FULL_LOG_ONLY
        )
        return record.levelno >= logging.WARNING or not details


class _Shortened(logging.Formatter):
    """Writes warnings in a few lines, and errors without their traceback, in another's form."""

    def __init__(self, form: logging.Formatter):
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:  # what ends a program, Python or the program itself tells once more
            record = copy.copy(record)
            record.msg = f"{record.getMessage()} (the traceback is in log.txt)"
            record.args, record.exc_info, record.exc_text = (), None, None
        lines = self._form.format(record).splitlines()
        if record.levelno < logging.WARNING or len(lines) <= _MOST_LINES:
            return "\n".join(lines)
        more = len(lines) - _MOST_LINES + 1
        return "\n".join([*lines[: _MOST_LINES - 1], f"... {more} more lines are in log.txt"])


def show_essentials(logger: logging.Logger) -> None:
    """Makes what a logger writes to standard output short; its other handlers stay as they are."""
    for handler in logger.handlers:
        on_console = getattr(handler, "stream", None) is sys.stdout
        if on_console and not any(isinstance(f, _Essentials) for f in handler.filters):
            handler.addFilter(_Essentials())
            handler.setFormatter(_Shortened(handler.formatter or logging.Formatter()))
