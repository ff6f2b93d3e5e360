"""The server of ``jq metrics --listen`` and clients that mean harm: it has no password, so all it has is bounds."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from solidjq_cli import metrics_server
from support.waiting import PATIENCE, until


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Serve a text without a database; yield the address."""
    with metrics_server.listen("127.0.0.1", 0, lambda: lambda _form: "text\n") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def page(address: tuple[str, int]) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def ends(client: socket.socket) -> bool:
    """Whether the server ends this connection without an answer, however much more is sent."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the request never does."""
    monkeypatch.setattr(metrics_server, "PATIENCE", 0.2)
    with served() as address, socket.create_connection(address, PATIENCE) as client:
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.02):
                with suppress(OSError):
                    client.send(b"G")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert ends(client)
        finally:
            ended.set()
            thread.join()


def test_clients_that_wait_take_only_so_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "MOST_CLIENTS", 3)
    with served() as address:
        waiting = [socket.create_connection(address, PATIENCE) for _ in range(3)]
        with socket.create_connection(address, PATIENCE) as one_more:
            assert ends(one_more)
        for client in waiting:
            client.close()

        def answered() -> bool:
            with suppress(OSError):
                return page(address) == "text\n"
            return False

        until(answered, "the next client is served")


@pytest.mark.parametrize("request_line", [b"GET " + b"/" * 70_000 + b" HTTP/1.0\r\n\r\n", b"\xff\x00\r\n\r\n", b"\r\n"])
def test_a_request_that_makes_no_sense_ends(request_line: bytes) -> None:
    with served() as address:
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(request_line)
            with suppress(OSError):  # a server that closes before it has read all resets the connection
                client.shutdown(socket.SHUT_WR)
                while client.recv(65_536):
                    pass
        assert page(address) == "text\n"
