"""TLS that is asked for is honoured or refused, against a server with a certificate of its own making."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from solidjq import Database
from solidjq.database import answers, tls
from solidjq.database.urls import parse_url
from solidjq.errors import DatabaseUnreachableError, DatabaseURLError
from support.servers import mariadb, mariadb_programs, missing_program, server_folder


@pytest.fixture(scope="module")
def server() -> Iterator[SimpleNamespace]:
    """A MariaDB whose certificate is for the name localhost; user ada needs no password."""
    if missing := missing_program((*mariadb_programs(), "openssl")):
        pytest.skip(f"{missing} is not installed")
    with server_folder("tls") as name:
        folder = Path(name)
        subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        files = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject)
        other, key = folder / "other.pem", folder / "other-key.pem"
        encrypting = (f"--ssl-cert={folder}/cert.pem", f"--ssl-key={folder}/key.pem")
        with mariadb(*encrypting, folder=name) as url:
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", other, *subject)
            yield SimpleNamespace(port=url.port, ca=folder / "cert.pem", other=other)


def run(*arguments: object) -> None:
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def cipher(server: SimpleNamespace, options: str, host: str = "127.0.0.1") -> str:
    database = Database(parse_url(f"mysql2://root@{host}:{server.port}/mysql{options}"))
    try:
        with database.read() as connection:
            (_, value) = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()
            return str(value)
    finally:
        database.close()


def test_every_mode_against_a_certificate_of_its_own_making(server: SimpleNamespace) -> None:
    assert cipher(server, "?ssl_mode=disabled") == ""
    for options in ("", "?ssl_mode=preferred", "?ssl_mode=required", "?sslmode=SSL_MODE_REQUIRED"):
        assert cipher(server, options), options
    for mode in ("verify_ca", "verify_identity"):  # nobody known has signed it
        with pytest.raises(DatabaseUnreachableError, match="certificate"):
            cipher(server, f"?ssl_mode={mode}")
    assert cipher(server, f"?ssl_mode=verify_ca&ssl_ca={server.ca}")  # it is for another name than 127.0.0.1
    assert cipher(server, f"?ssl_ca={server.ca}")
    with pytest.raises(DatabaseUnreachableError, match="certificate"):
        cipher(server, f"?ssl_ca={server.other}")
    with pytest.raises(DatabaseUnreachableError, match=r"127\.0\.0\.1"):
        cipher(server, f"?ssl_mode=verify_identity&ssl_ca={server.ca}")
    assert cipher(server, f"?ssl_mode=verify_identity&ssl_ca={server.ca}", host="localhost")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_mode=on", "ssl_mode is 'on'; write one of disabled, preferred, required, verify_ca, verify_identity"),
        ("ssl_mode=verify_ca&ssl_ca=/missing.pem", "cannot use the certificates /missing.pem"),
        ("tls_min_version=3", "has the option 'tls_min_version', which jq cannot honour"),
        ("tls_ciphersuites=TLS_AES_128_GCM_SHA256", "'tls_ciphersuites', which jq cannot honour"),
        ("sslverify=true", "'sslverify', which jq cannot honour"),
        ("ssl_cipher=AES128-SHA", "'ssl_cipher', which jq cannot honour"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: str, words: str) -> None:
    with pytest.raises(DatabaseURLError, match=words):
        Database(parse_url(f"mysql2://root@127.0.0.1:1/mysql?{options}"))


def test_no_certificate_authorities_are_read_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take 65 ms for each connection."""

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(ssl, "create_default_context", read)
    kind = answers._quick_connection()
    assert kind is not None
    assert kind(defer_connect=True).ctx.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("/run", True),
        ("db.internal", False),
        ("10.0.0.1", False),
    ],
)
def test_hosts_that_are_this_one(host: str, here: bool) -> None:  # noqa: FBT001
    assert tls._is_here(host) == here
