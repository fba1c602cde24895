"""Where the page is served, and what is missing; the page itself is tested in a browser."""

import importlib
import socket
import sys

import pytest

import dnl_d2
from dnl_d2.errors import UsageError
from dnl_d2.page import Answers, is_local, require_free, serve
from tests.page.models import Model


def test_a_port_that_is_taken_is_said_in_a_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = rf"at 127.0.0.1, port {port} \(.* in use\): choose another --host or --port"
        with pytest.raises(UsageError, match=line), serve(Answers({"a": Model()}), port=port):
            pass
    for number in (70000, 0, -5):
        with pytest.raises(UsageError, match=rf"a port is .* from 1 to 65535, not {number}"):
            require_free("127.0.0.1", number)
    with pytest.raises(UsageError, match=r"at no\.such\.host\.invalid, port 1 \("):
        require_free("no.such.host.invalid", 1)


def test_who_reaches_it():
    assert is_local("127.0.0.1") and is_local("localhost")
    assert not is_local("0.0.0.0") and not is_local("192.168.1.7")


def test_gradio_is_named_where_it_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("dnl_d2.page")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UsageError, match=r"the page needs gradio: .*, or the extra dnl_d2\[page\]"):
        importlib.import_module("dnl_d2.page")
    monkeypatch.undo()
    assert dnl_d2.page
