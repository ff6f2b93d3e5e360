"""A TCP proxy before a database server, which a test lets break: cut, or silent without a word."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import URL

POLL = 0.02  # seconds


class Proxy:
    """Forwards bytes between its clients and a server; ``silent`` keeps every connection open and forwards nothing.

    ``delay`` is how many seconds all that is forwarded waits before. ``round_trips`` counts how often the server has
    answered a client: its greeting and a client's farewell are none.
    """

    delay = 0.0
    round_trips = 0
    _resets = 0
    _commits_left = 0  # until the one that is lost
    _commits = False  # whether the server gets that one

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._silent = threading.Event()
        self._ended = threading.Event()
        self._refusing = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """From now on, forward nothing; new connections are accepted and get no answer."""
        self._silent.set()

    def cut(self) -> None:
        """Close every connection, and each new one at once."""
        self._refusing.set()
        self._close_all()

    def reset(self) -> None:
        """Reset every connection, without a farewell; new ones are served."""
        for client, _ in list(self._pairs):
            with suppress(OSError):  # it has just been closed
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._resets += 1

    def lose_commit(self, number: int, *, committed: bool) -> None:
        """Close the connection that sends the ``number``-th COMMIT of inserts from now on, and forward no answer.

        With ``committed``, the server got it and has answered; else it never did.
        """
        self._commits_left, self._commits = number, committed

    @property
    def lost_commit(self) -> bool:
        """Whether there was such a COMMIT."""
        return not self._commits_left

    def _loses(self) -> bool:
        """Count one of these; return whether it is the one to be lost."""
        if not self._commits_left:
            return False
        self._commits_left -= 1
        return not self._commits_left

    def heal(self, *, closing: bool = False) -> None:
        """Forward again; with ``closing``, only on new connections."""
        if closing:
            self._close_all()
        self.delay = 0.0
        self._silent.clear()
        self._refusing.clear()

    def end(self) -> None:
        self._ended.set()
        self._listener.close()
        self._close_all()

    def _close_all(self) -> None:
        for pair in list(self._pairs):
            for side in pair:
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    @property
    def _forwards(self) -> bool:
        """Whether connections stay open: one that was accepted just before a cut was not closed with the others."""
        return not (self._ended.is_set() or self._refusing.is_set())

    def _readable(self, *sides: socket.socket) -> list[socket.socket]:
        """Wait a moment; return the sides that have sent something, none if the proxy has fallen silent meanwhile."""
        found = select.select([] if self._silent.is_set() else sides, [], [], POLL)[0]
        return [] if self._silent.is_set() else found

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing.is_set():
                client.close()
            else:
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if isinstance(self._target, str):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
        else:
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                return
        resets, inserted, asked = self._resets, False, False
        self._pairs.add((client, server))
        try:
            while self._forwards and resets == self._resets:
                for source in self._readable(client, server):
                    data = source.recv(65536)
                    if not data:
                        return
                    # The statement of MySQL, and of PostgreSQL, which is not always sent its text, the answer.
                    inserted = inserted or b"INSERT INTO" in data or b"INSERT 0 " in data
                    if source is client and b"COMMIT" in data:
                        if inserted and self._loses():
                            if self._commits:
                                server.sendall(data)
                                server.recv(65536)
                            return
                        inserted = False
                    self.round_trips += asked and source is server
                    asked = source is client
                    time.sleep(self.delay)
                    (server if source is client else client).sendall(data)
        except OSError:
            return
        finally:
            self._pairs.discard((client, server))
            client.close()
            server.close()


@contextmanager
def proxied(url: URL) -> Iterator[tuple[Proxy, URL]]:
    """Give a proxy before a database's server, and the URL of the database behind it."""
    folder = url.query.get("host")
    if isinstance(folder, str):  # the tests' PostgreSQL listens on a socket alone
        proxy = Proxy(str(next(path for path in Path(folder).glob(".s.PGSQL.*") if path.suffix != ".lock")))
        behind = url.difference_update_query(["host"])
    else:
        proxy = Proxy((url.host or "127.0.0.1", url.port or 3306))
        behind = url
    try:
        yield proxy, behind.set(host="127.0.0.1", port=proxy.port)
    finally:
        proxy.end()
