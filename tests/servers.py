"""A file server on this machine that behaves as it is told."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves ``files`` (paths and contents) at ``url``; what it was asked for stands in ``asked``.

    Attributes:
        ranges: whether it can begin in the middle of a file.
        cuts: after how many bytes the next answers end, one number for each.
        kind: the content type.
        hold: set, or answers stop in the middle until it is.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.ranges = True
        self.cuts: list[int] = []
        self.kind = "application/octet-stream"
        self.hold = threading.Event()
        self.hold.set()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.asked.append((request.path, wanted))
        content = self.files.get(request.path)
        if content is None:
            return request.send_error(404)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.ranges else 0
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            return request.end_headers()
        request.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("Content-Type", self.kind)
        request.end_headers()
        until = start + self.cuts.pop(0) if self.cuts else len(content)
        middle = (start + until) // 2
        request.wfile.write(content[start:middle])
        self.hold.wait(20)
        request.wfile.write(content[middle:until])
        request.close_connection = True


@contextlib.contextmanager
def serving():
    """A :class:`FileServer` that runs."""
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, address):
            pass  # who asked has hung up

    with Server(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
