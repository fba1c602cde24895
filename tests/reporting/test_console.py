"""What of a log shows: warnings always, details only in the file."""

import io
import logging
import sys

import pytest

from dnl_d2.reporting.console import show_essentials


@pytest.fixture
def loggers(monkeypatch):
    """(console, file, loggers by name), as Detectron2's setup_logger leaves them."""
    console, file = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)
    roots = [logging.getLogger(name) for name in ("detectron2", "dnl_d2")]
    before = [(root, root.handlers[:], root.propagate, root.level) for root in roots]
    for root in roots:
        root.handlers = [logging.StreamHandler(console), logging.StreamHandler(file)]
        root.propagate = False
        root.setLevel(logging.DEBUG)
        show_essentials(root)
        show_essentials(root)  # once more changes nothing
        assert len(root.handlers[0].filters) == 1
    yield console, file
    for root, handlers, propagate, level in before:
        root.handlers, root.propagate = handlers, propagate
        root.setLevel(level)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("detectron2", False),
        ("detectron2.data.build", False),
        ("detectron2.engine.defaults", False),
        ("detectron2.data_of_mine", True),
        ("detectron2.utils.events", True),
        ("detectron2.evaluation.coco_evaluation", True),
        ("dnl_d2.engine.reports", True),
    ],
)
def test_details_are_for_the_file(loggers, name, shown):
    console, file = loggers
    logging.getLogger(name).info("a message\nof lines")
    assert file.getvalue() == "a message\nof lines\n"
    assert console.getvalue() == (file.getvalue() if shown else "")


def test_tracebacks_are_for_the_file(loggers):
    console, file = loggers
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("detectron2").exception("it %s", "failed")
    assert console.getvalue() == "it failed (the traceback is in log.txt)\n"
    assert file.getvalue().startswith("it failed\nTraceback") and "reason" in file.getvalue()


def test_warnings_show_and_are_short(loggers):
    console, file = loggers
    logging.getLogger("detectron2.data.build").warning("one line")
    assert console.getvalue() == "one line\n"
    many = "\n".join(f"line {number}" for number in range(300))
    logging.getLogger("detectron2").warning(many)
    logging.getLogger("dnl_d2").info(many)
    lines = console.getvalue().splitlines()
    assert lines[1:7] == [*many.splitlines()[:5], "... 295 more lines are in log.txt"]
    assert lines[7:] == many.splitlines() and many in file.getvalue()
