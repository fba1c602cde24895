"""Where the page is served, and what is missing; the page itself is tested in a browser."""

import http.client
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


@pytest.fixture(scope="module")
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serve(Answers({"a": Model()}), port=port) as address:
        yield address.rstrip("/")


def answer(address: str, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and text, for a path as it is: no client's tidying."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request("GET" if data is None else "POST", path, data, headers)
    got = connection.getresponse()
    try:
        return got.status, got.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "start",
    [
        "/gradio_api/file=",
        "/file=",
        "/gradio_api/file/",
        "/static/",
        "/assets/",
        "/custom_component/",
        "/theme.css/",
        "/",
    ],
)
@pytest.mark.parametrize("path", ["{}", "..{}", "../../../../../../..{}", "%2e%2e/%2e%2e{}",
                                  "..%2f..%2f..%2f..%2f..{}", "file://{}"])  # fmt: skip
def test_no_file_outside_of_its_folder_is_served(start, path, address, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("not for the page")
    for outside in (str(secret), __file__, "/etc/passwd"):
        status, text = answer(address, start + path.format(outside))
        assert b"not for the page" not in text and b"root:" not in text, (start, path)
        assert status in (403, 404, 405, 500) or b"<html" in text[:300].lower(), (status, text)


def test_uploads_have_a_limit(address):
    border = "x" * 20
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    for size, wanted in ((1000, {200}), (51 << 20, {413})):
        body = head.encode() + bytes(size) + f"\r\n--{border}--\r\n".encode()
        status, text = answer(address, "/gradio_api/upload", body, **kind)
        assert status in wanted, (size, status, text[:200])


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, 200),
        ({"Origin": "{}"}, 200),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "example.org"}, 403),  # a name that was made to mean this machine
        ({"Host": "example.org", "Origin": "http://example.org"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:1234"}, 200),  # through a tunnel
    ],
)
def test_web_pages_of_others_are_not_answered(headers, wanted, address):
    border = "x" * 20
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    headers = {name: value.format(address) for name, value in headers.items()}
    body = f"{head}x\r\n--{border}--\r\n".encode()
    assert answer(address, "/gradio_api/upload", body, **kind, **headers)[0] == wanted
    assert answer(address, "/", **headers)[0] == wanted
