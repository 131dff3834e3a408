"""The server of a review: for this machine alone, and for nobody who lacks its secret.

Other web pages can make a browser send requests to 127.0.0.1. None of them knows the secret part of
the address, a request under another host's name is refused (DNS rebinding), and so is a decision
that comes from another origin. The page may load what this server sends, and nothing else.
"""

import hmac
import json
import secrets
import socketserver
import sys
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isekai import files
from isekai.errors import DataError, IsekaiError
from isekai.reviewing.desk import Asked, Desk, Refused

HOST = "127.0.0.1"
LARGEST_BODY = 16_384
"""Bytes; the longest note takes 12,000 at most, as JSON escapes it."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_GUARDS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOR_EVER = "private, max-age=31536000, immutable"
"""A picture's address holds its hash."""


class Server(ThreadingHTTPServer):
    """Listens as soon as it is made; `serve_forever` answers."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        """IsekaiError if the port can't be had; 0 is any that is free."""
        self.desk = desk
        self.secret = secrets.token_urlsafe(24)
        if not 0 <= port <= 65535:
            raise IsekaiError(f"port {port}; it lies between 0 and 65535")
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            told = error.strerror or error
            raise IsekaiError(
                f"port {port}: {told}; give another --port, or none to take any that is free"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.secret}/"

    def server_bind(self) -> None:
        """As the parent's, which asks the network for this machine's name first."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up in the middle of a picture is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        place = self._place()
        if place is None:
            return
        name, _, image_id = place.partition("/")
        if name == "content":
            self._json(self.server.desk.content())
        elif name == "changes":
            self._json(self.server.desk.changes(self._since()))
        elif name in ("picture", "thumbnail"):
            self._picture(name, image_id)
        elif (place or "page.html") in _assets():
            name = place or "page.html"
            self._send(HTTPStatus.OK, _assets()[name], _KINDS[name[name.rindex(".") :]])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        self.close_connection = True  # until the body is read, what follows is no request
        place = self._place()
        if place is None:
            return
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            self._refuse(HTTPStatus.FORBIDDEN, "decisions are taken from the review's own page")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a decision is sent as JSON")
        elif place != "decisions":
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
        elif (body := self._body()) is not None:
            self.close_connection = False
            self._decide(body)

    def _decide(self, body: bytes) -> None:
        try:
            asked = files.parse(Asked, json.loads(body), "the request", problem=Refused)
            self._json(self.server.desk.decide(asked))
        except (Refused, ValueError, RecursionError) as error:
            told = str(error) if isinstance(error, Refused) else "the request is not JSON"
            self._refuse(HTTPStatus.BAD_REQUEST, told)
        except DataError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))

    def _picture(self, name: str, image_id: str) -> None:
        pictures = self.server.desk.pictures
        if image_id not in pictures:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such picture")
            return
        try:
            found = pictures.whole(image_id) if name == "picture" else pictures.small(image_id)
        except DataError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
            return
        self._send(HTTPStatus.OK, found.data, found.kind, _FOR_EVER)

    # ------------------------------------------------------------ who asks, and for what

    def _place(self) -> str | None:
        """What follows the secret in the address; None once a stranger has been refused."""
        port = self.server.server_port
        if self.headers.get_all("Host") not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            self._refuse(HTTPStatus.FORBIDDEN, f"this is {HOST}:{port} and goes by no other name")
            return None
        secret, _, place = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            self._refuse(
                HTTPStatus.FORBIDDEN,
                "this address lacks the secret of the running review; open the one that "
                "`isekai review` printed last",
            )
            return None
        return place

    def _since(self) -> int:
        given = parse_qs(urlsplit(self.path).query).get("since", ["0"])[0]
        return int(given) if given.isdecimal() and len(given) < 10 else 0

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        elif len(length) > 9 or int(length) > LARGEST_BODY:
            told = f"a decision has at most {LARGEST_BODY} bytes"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
        else:
            return self.rfile.read(int(length))
        return None

    # ------------------------------------------------------------ answers

    def _json(self, value: object) -> None:
        data = json.dumps(value, separators=(",", ":")).encode()
        self._send(HTTPStatus.OK, data, "application/json")

    def _refuse(self, status: HTTPStatus, told: str) -> None:
        self._send(status, f"{told}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, data: bytes, kind: str, keep: str = "no-store") -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": keep}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in (headers | _GUARDS).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        return "isekai"

    def log_message(self, format: str, *args: object) -> None:
        """Addresses hold the secret: none is logged."""


@cache
def _assets() -> dict[str, bytes]:
    """The page and its parts by name."""
    folder = resources.files("isekai.reviewing") / "_page"
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
