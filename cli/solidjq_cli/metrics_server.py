"""The server of ``jq metrics --listen``: one page, by the standard library's HTTP server.

A page of text for one client in every few seconds needs no more than that; a framework would add nothing but a
dependency. A scrape reads the database at most once a second, however many clients ask, and one at a time.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, getaddrinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATH = "/metrics"
LEAST = 1.0  # seconds between two readings of the database
PATIENCE = 10.0  # seconds that a client may take to send its request, or to read the answer


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


def serve(host: str, port: int, read: Callable[[], Callable[[str], str]], started: Callable[[str], None]) -> None:
    """Serve until KeyboardInterrupt. ``read`` reads the metrics, and returns what writes them in a format.

    Raises OSError if the address cannot be listened on. ``started`` is called with the URL.
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

            self._send(200, pages.page(form), TYPES[form], body=body)

        def _send(self, status: int, text: str, kind: str, *, body: bool) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the server's name for it)
            """Write no line for each scrape."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = getaddrinfo(host, port)[0][0]

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a client that left before its answer."""

    with Server((host, port), Handler) as server:
        shown = f"[{host}]" if Server.address_family == AF_INET6 else host
        started(f"http://{shown}:{server.server_address[1]}{PATH}")
        server.serve_forever(poll_interval=0.5)
