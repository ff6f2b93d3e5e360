"""The server of ``jq metrics --listen``: one page, by the standard library's HTTP server.

A page of text for one client in every few seconds needs no more than that; a framework would add nothing but a
dependency. A scrape reads the database at most once a second, however many clients ask, and one at a time.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RDWR, getaddrinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/metrics"
LEAST = 1.0  # seconds between two readings of the database
PATIENCE = 10.0  # seconds that a client may take to send its request, and again to read the answer
MOST_CLIENTS = 64  # at once; each has a thread


def serve(host: str, port: int, read: Callable[[], Callable[[str], str]], started: Callable[[str], None]) -> None:
    """Serve until KeyboardInterrupt; ``started`` is called with the URL. Raises what ``listen`` does."""
    with listen(host, port, read) as server:
        shown = f"[{host}]" if server.address_family == AF_INET6 else host
        started(f"http://{shown}:{server.server_address[1]}{PATH}")
        server.serve_forever(poll_interval=0.5)


class Pages:
    """The text in each format, no older than ``LEAST`` seconds."""

    def __init__(self, read: Callable[[], Callable[[str], str]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._writer: Callable[[str], str] = str

    def page(self, form: str) -> str:
        """Return the text."""
        with self._lock:
            if time.monotonic() - self._read_at > LEAST:
                self._writer = self._read()
                self._read_at = time.monotonic()
            return self._writer(form)


class _BoundedServer(ThreadingHTTPServer):
    """Serves no more clients than it has room for, and none that takes for ever: one byte every few seconds."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._deadlines: dict[Any, float] = {}  # by the socket of each client

    def wait_for(self, client: Any, seconds: float) -> None:
        """Give a client so many seconds from now."""
        self._deadlines[client] = time.monotonic() + seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._deadlines) >= MOST_CLIENTS:
            super().shutdown_request(request)
            return
        self.wait_for(request, PATIENCE)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off whoever took too long; called at each turn of the loop."""
        now = time.monotonic()
        for client in [client for client, deadline in self._deadlines.copy().items() if deadline < now]:
            with suppress(OSError):  # it left a moment ago
                client.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left before its answer."""


def listen(host: str, port: int, read: Callable[[], Callable[[str], str]]) -> ThreadingHTTPServer:
    """Return a server that listens. ``read`` reads the metrics, and returns what writes them in a format.

    Raises OSError if the address cannot be listened on, UnicodeError if the host can be no name.
    """
    pages = Pages(read)

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version, sys_version = "solidjq", ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            if self.path.partition("?")[0] != PATH:
                self._send(404, f"the metrics are at {PATH}\n", "text/plain; charset=utf-8", body=body)
                return
            form = "openmetrics" if "application/openmetrics-text" in self.headers.get("Accept", "") else "prometheus"
            from solidjq.monitoring.exposition import TYPES  # noqa: PLC0415

            server.wait_for(self.connection, math.inf)  # the database may take longer than a client may
            self._send(200, pages.page(form), TYPES[form], body=body)

        def _send(self, status: int, text: str, kind: str, *, body: bool) -> None:
            content = text.encode()
            server.wait_for(self.connection, PATIENCE)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the server's name for it)
            """Write no line for each scrape."""

    class Server(_BoundedServer):
        address_family = getaddrinfo(host, port)[0][0]

    server = Server((host, port), Handler)
    return server
