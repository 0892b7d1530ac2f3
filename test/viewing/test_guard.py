"""Who has not been given the page's address gets nothing of it, and neither does another web site's page."""

import http.client
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from spiking_controller.errors import ConfigError
from spiking_controller.viewing.guard import Guard, start_server

Headers = dict[str, str]


class Page(NamedTuple):
    """A served page."""

    port: int
    guard: Guard

    def get(self, path: str = "/", headers: Headers | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse()

    def cookie(self) -> str:
        answer = self.get(self.guard.path)
        assert answer.status == 302
        assert answer.headers["Location"] == "/"
        return str(answer.headers["Set-Cookie"]).partition(";")[0]

    def socket(self, headers: Headers, origin: str | None) -> None:
        """Open a socket; raises if it is refused."""
        subprotocol = f"viser-v{viser.__version__}"
        with connect(
            f"ws://127.0.0.1:{self.port}",
            additional_headers=headers,
            origin=origin,  # type: ignore[arg-type]
            subprotocols=[subprotocol],  # type: ignore[list-item]
        ) as opened:
            assert opened.recv(timeout=20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    port = free_port()
    server, guard = start_server("127.0.0.1", port)
    yield Page(port, guard)
    server.stop()


def test_without_the_token_there_is_nothing(page: Page) -> None:
    for path in ("/", "/index.html", "/?token=", "/?token=guessed", "/assets/nothing.js"):
        answer = page.get(path)
        assert answer.status == 403
        assert b"spiking_controller view" in answer.read()


def test_with_the_token_the_page_and_its_socket_open(page: Page) -> None:
    cookie = page.cookie()
    answer = page.get("/", {"Cookie": cookie})
    assert answer.status == 200
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert b"<html" in answer.read().lower()
    page.socket({"Cookie": cookie}, f"http://127.0.0.1:{page.port}")


def test_the_cookie_stays_with_this_page(page: Page) -> None:
    given = page.get(page.guard.path).headers["Set-Cookie"]
    assert "HttpOnly" in given
    assert "SameSite=Strict" in given


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", None])
def test_a_socket_of_another_origin_is_refused(origin: str | None, page: Page) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        page.socket({"Cookie": page.cookie()}, origin)


def test_a_socket_without_the_token_is_refused(page: Page) -> None:
    for headers in ({}, {"Cookie": "spiking_controller_view=guessed"}):
        with pytest.raises(InvalidStatus, match="403"):
            page.socket(headers, f"http://127.0.0.1:{page.port}")


def test_another_name_for_this_machine_is_refused(page: Page) -> None:
    """A web site whose name is made to point to 127.0.0.1 would be of the same origin as the page."""
    assert page.get(page.guard.path, {"Host": f"evil.example:{page.port}"}).status == 403


def test_every_start_has_another_token() -> None:
    assert Guard("127.0.0.1", 1).token != Guard("127.0.0.1", 1).token


def test_no_public_tunnel_can_be_asked_for(page: Page) -> None:
    server, _ = start_server("127.0.0.1", free_port())
    try:
        assert not [kind for kind in server._websock_server._incoming_handlers if "Share" in kind.__name__]
    finally:
        server.stop()


def test_a_taken_port_is_a_sentence(page: Page) -> None:
    with pytest.raises(ConfigError, match=f"port {page.port} on 127.0.0.1 is taken by another program; give --port"):
        start_server("127.0.0.1", page.port)
