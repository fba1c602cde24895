"""Serving the page from this machine, and to nobody else unless that is asked for."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator

from starlette.middleware import Middleware

from dnl_d2.errors import UsageError
from dnl_d2.page.answers import Answers
from dnl_d2.page.appearance import POINTING, STYLE, theme
from dnl_d2.page.layout import build_page
from dnl_d2.page.visitors import OwnVisitors

LARGEST = "50mb"  # of a picture's file
_NAMES = ("127.0.0.1", "localhost", "::1")  # of this machine
_LOCAL = ",".join(_NAMES)


@contextlib.contextmanager
def serve(answers: Answers, *, host: str = "127.0.0.1", port: int = 7860) -> Iterator[str]:
    """Serves the page while the context lasts, and gives its address.

    Nothing is asked of other machines: fonts are the system's, and there is no telemetry, no public
    link, no programming interface and no history. Pictures lie in a temporary folder for an hour,
    and not beyond the context.

    Args:
        answers: the models.
        host: who may see it: ``127.0.0.1`` this machine alone, and no web page of others in its
            browser; ``0.0.0.0`` whoever reaches this machine, without a password.
        port: of the address.

    Raises:
        UsageError: the port is taken, or the host is no address of this machine.
    """
    require_free(host, port)
    visitors = [Middleware(OwnVisitors, names=_NAMES)] if is_local(host) else []
    with tempfile.TemporaryDirectory(prefix="dnl_d2-page-") as folder, _environment(folder):
        page = build_page(answers)
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True,
                share=False, inbrowser=False, inline=False, footer_links=[], run_history=False,
                enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
                max_file_size=LARGEST, theme=theme(), css=STYLE, head=POINTING,
                app_kwargs={"middleware": visitors},
            )  # fmt: skip
            yield address
        finally:
            page.close(verbose=False)


def require_free(host: str, port: int) -> None:
    """Raises a UsageError unless something can be served there."""
    if not 1 <= port <= 65535:  # Gradio does not take 0, any free one
        raise UsageError(f"a port is a number from 1 to 65535, not {port}")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise UsageError(
            f"the page cannot be served at {host}, port {port} ({reason}): choose another --host "
            "or --port"
        ) from error


def is_local(host: str) -> bool:
    """Whether only this machine reaches what is served there."""
    return host in _NAMES


@contextlib.contextmanager
def _environment(folder: str) -> Iterator[None]:
    """Tells Gradio where to keep files, and not to look for its own server behind a proxy."""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    direct = ",".join(filter(None, (others, _LOCAL)))
    told = {"GRADIO_TEMP_DIR": folder, "no_proxy": direct, "NO_PROXY": direct}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
