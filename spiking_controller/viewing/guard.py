"""Keeps the page to who was given its address: a token, the Origin of sockets, and no way out to other machines.

viser serves whoever asks: it accepts sockets from any web site's page (which could then move the arm), opens a public
tunnel when a page asks for one, and takes the next port where one is taken. This module stands in front of it.
"""

import contextlib
import functools
import http
import io
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import viser
import websockets.asyncio.server
from viser import _messages
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from spiking_controller.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' ws://{host} data: blob:; frame-ancestors 'none'"
)
"""What the page may load, at its own host: nothing of other machines."""
_serving = threading.Lock()


class Guard:
    """Decides which requests are answered.

    Attributes:
        token: in the address that is printed.
    """

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        """Guard a server.

        Args:
            host: that it listens on. On the loopback interface only its own names are answered, so that no web site can
                reach it under a name of its own.
            port: that it listens on.
            token: by default a new random one.
        """
        self.token = secrets.token_urlsafe(24) if token is None else token
        self._is_local = host in LOOPBACK
        self._port = port
        self._cookie = f"spiking_controller_view_{port}"

    @property
    def path(self) -> str:
        """The part of the address after host and port."""
        return f"/?token={self.token}"

    def answer(self, request: Request) -> Response | None:
        """What to answer instead of the page; None: go on."""
        host = request.headers.get("Host", "")
        if self._is_local and host not in {f"{name}:{self._port}" for name in (*LOOPBACK, "[::1]")}:
            return _refusal("this page is only there for this machine.")
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        if is_socket and request.headers.get("Origin") != f"http://{host}":
            return _refusal("this socket is only there for its own page.")
        if self._is_known(request):
            return None
        given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if not is_socket and secrets.compare_digest(given.encode(), self.token.encode()):
            cookie = f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            return Response(http.HTTPStatus.FOUND, "Found", Headers([("Location", "/"), ("Set-Cookie", cookie)]))
        return _refusal("open the address with the token that `spiking_controller view` prints.")

    def _is_known(self, request: Request) -> bool:
        """Whether the browser has shown the token before."""
        cookies = [part.strip() for part in request.headers.get("Cookie", "").split(";")]
        wanted = f"{self._cookie}={self.token}".encode()
        return any(secrets.compare_digest(cookie.encode(), wanted) for cookie in cookies)


def _refusal(sentence: str) -> Response:
    body = f"Forbidden: {sentence}\n".encode()
    headers = Headers([("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", headers, body)


def start_server(host: str, port: int, token: str | None = None) -> tuple[viser.ViserServer, Guard]:
    """A viser server behind a guard.

    Args:
        host, port: to listen on.
        token: of the address; by default a new random one.
    Raises:
        ConfigError: the port is taken, or there is no such address.
    """
    _check_port(host, port)
    guard = Guard(host, port, token)
    # viser prints its address, without the token, to whoever reads it.
    with _serving, _guarded(guard), contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=host, port=port, label="spiking_controller", verbose=False)
    if server.get_port() != port:
        server.stop()
        raise _taken(host, port)
    # Any page could ask for a public tunnel.
    for message in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
        server._websock_server.unregister_handler(message)
    return server, guard


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except PermissionError:
        raise ConfigError(f"port {port} needs rights of the system; give --port a number above 1023.") from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == 99:
            raise ConfigError(f"host '{host}' is no address of this machine; give --host one that is.") from None
        raise _taken(host, port) from None


def _taken(host: str, port: int) -> ConfigError:
    return ConfigError(f"port {port} on {host} is taken by another program; give --port another number.")


@contextlib.contextmanager
def _guarded(guard: Guard) -> Iterator[None]:
    """Inside, servers of websockets ask the guard first. viser has no way to hand that over."""
    module = websockets.asyncio.server
    serve = module.serve

    @functools.wraps(serve)
    def serve_guarded(*arguments: Any, **options: Any) -> Any:
        answer: Callable[..., Response | None] = options["process_request"]

        def process(connection: Any, request: Request) -> Response | None:
            refused = guard.answer(request)
            if refused is not None:
                return refused
            response = answer(connection, request)
            if response is not None:
                response.headers["Content-Security-Policy"] = POLICY.format(host=request.headers["Host"])
                response.headers["X-Content-Type-Options"] = "nosniff"
                response.headers["Referrer-Policy"] = "no-referrer"
            return response

        return serve(*arguments, **options | {"process_request": process})

    module.serve = serve_guarded  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        module.serve = serve  # type: ignore[misc]
