"""Who a page of this machine answers: not the web pages of others that the same browser shows."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnVisitors:
    """Refuses what web pages of other addresses send, which a browser would pass on.

    Such a page could drop files here, and, if its own name is made to mean this machine (DNS
    rebinding), read what is shown.

    Args:
        app: answers the others.
        names: of this machine, as addresses have them.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]):
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._welcome(Headers(scope=scope)):
            refused = PlainTextResponse("only for pages of this address\n", status_code=403)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _welcome(self, headers: Headers) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            known = urlsplit(f"//{host}").hostname in self._names
            return known and (origin is None or urlsplit(origin).netloc == host)
        except ValueError:  # no address
            return False
