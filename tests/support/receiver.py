"""A real HTTP server that receives what ``jq watch`` posts."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.waiting import until


@dataclass
class Posted:
    """One request."""

    headers: dict[str, str]
    body: bytes
    at: float  # seconds since 1970
    path: str

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """The server. ``answers`` are its next answers, a status with headers each; then it answers 200."""

    port: int
    posted: list[Posted] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)  # cleared, it answers nothing

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/secret/path?token=hidden"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [one.message for one in self.posted]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        until(lambda: len(self.posted) >= count, f"{count} messages have come", instead=lambda: f"; {self.messages}")
        return self.messages


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # its sender was killed
                return
            at = time.time()
            found.held.wait()
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            found.posted.append(
                Posted({key.lower(): value for key, value in self.headers.items()}, body, at, self.path)
            )
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST  # noqa: N815  (a redirect that is followed may come as one)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the server's name for it)
            """Write no line for each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left before the answer
    found = Receiver(server.server_address[1])
    found.held.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield found
    found.held.set()
    server.shutdown()
    server.server_close()
