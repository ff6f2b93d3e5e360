"""TLS: MySQL's ``ssl_mode`` made into what the driver needs, and whether a connection to another host is encrypted."""

import ipaddress
import ssl
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from solidjq.database.url_options import SSL_MODE, last_values
from solidjq.errors import DatabaseURLError
from solidjq.text import one_line

_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_MODES = ("disabled", "preferred", "required", "verify_ca", "verify_identity")


def with_tls(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a MySQL URL without the options of ``ssl_mode``, and the driver's arguments that honour it.

    Raises DatabaseURLError for a mode that there is not, and for a certificate that cannot be read.
    """
    options = last_values(url.query)
    if not options.keys() & {SSL_MODE, *_FILES}:
        return url, {}
    # Files without a mode ask for TLS, and authorities for their verification, as with MySQL's own client.
    mode = options.get(SSL_MODE, "required").lower().removeprefix(":").removeprefix("ssl_mode_").removeprefix("ssl_")
    if mode not in _MODES:
        raise DatabaseURLError(f"{SSL_MODE} is {options[SSL_MODE]!r}; write one of {', '.join(_MODES)}")
    url = url.difference_update_query([SSL_MODE, *_FILES])
    if mode == "disabled":
        return url, {"ssl_disabled": True}
    files = [options.get(name) for name in _FILES]
    if mode == "preferred" and not any(files):
        return url, {}
    try:
        return url, {"ssl": _context(mode, *files)}
    except OSError as error:  # ssl.SSLError is one
        named = ", ".join(filter(None, files)) or "the system's certificate authorities"
        raise DatabaseURLError(f"cannot use the certificates {named}: {one_line(str(error))}") from error


def _context(mode: str, authorities: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Return how to connect: as MySQL's own client does, which verifies ``required``, too, if authorities are named."""
    context = lenient_context()
    if mode.startswith("verify") or authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = mode == "verify_identity"
        context.load_verify_locations(authorities) if authorities else context.load_default_certs()
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def lenient_context() -> ssl.SSLContext:
    """Return how to connect encrypted without verifying anybody: no certificate authority is read, which takes long."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def unencrypted_host(connection: Connection) -> str | None:
    """Return the other host that this connection leads to in clear text; None if it is encrypted or stays here."""
    driver: Any = connection.connection.driver_connection
    match connection.dialect.name:
        case "postgresql":
            host, encrypted = driver.info.host, bool(driver.pgconn.ssl_in_use)
        case "mysql":
            host = "" if driver.unix_socket else driver.host
            row = connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).first()
            encrypted = bool(row and row[1])
        case _:
            return None
    return None if encrypted or not host or _is_here(host) else str(host)


def _is_here(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
