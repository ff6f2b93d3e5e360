r"""Encodings of PostgreSQL databases other than UTF-8: what such a database cannot store is escaped, as JSON does it.

An error or an argument is JSON, where ``\u044f`` means the same letter; in other texts it can still be read. Without
that, one letter in one job's error would fail the whole statement, with the endings of other jobs in it.
"""

import codecs
from typing import TYPE_CHECKING, Any

from solidjq.database.sessions import ANY_BYTES
from solidjq.database.unknown_columns import decode

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import AdaptContext, Buffer

_ESCAPE = "solidjq_escape"  # name of the handler of encoding errors


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


codecs.register_error(_ESCAPE, _escape)


def storable(text: str, codec: str) -> str:
    r"""Return a text with ``\u`` and four digits for each UTF-16 unit of the characters that a codec lacks."""
    return text if text.isascii() else text.encode(codec, _ESCAPE).decode(codec)


def adapt_encoding(driver: "psycopg.Connection[Any]") -> None:
    """Let a new connection read and write every text, whatever its database's encoding is."""
    name = driver.info.parameter_status("server_encoding") or "UTF8"
    if name == "UTF8":
        return
    if name == ANY_BYTES:
        _read_leniently(driver)
    else:
        _write_escaped(driver, _codec(name))


def _codec(name: str) -> str:
    """Return Python's name of an encoding of PostgreSQL; ``ascii``, which each contains, for one that Python lacks."""
    from psycopg._encodings import pg2pyenc  # noqa: PLC0415  (the driver has no public table of them)
    from psycopg.errors import NotSupportedError  # noqa: PLC0415

    try:
        return pg2pyenc(name.encode())
    except NotSupportedError:
        return "ascii"


def _read_leniently(driver: "psycopg.Connection[Any]") -> None:
    from psycopg.adapt import Loader  # noqa: PLC0415

    class TextLoader(Loader):
        def load(self, data: "Buffer") -> str:
            return decode(bytes(data))

    for kind in (0, "text", "varchar", "bpchar", "name"):  # 0: all types that the driver does not know
        driver.adapters.register_loader(kind, TextLoader)


def _write_escaped(driver: "psycopg.Connection[Any]", codec: str) -> None:
    from psycopg.adapt import Dumper, PyFormat  # noqa: PLC0415

    def escaping(exact: Any) -> type[Dumper]:
        class EscapingDumper(Dumper):
            format = exact.format
            oid = exact.oid

            def __init__(self, cls: type, context: "AdaptContext | None" = None) -> None:
                super().__init__(cls, context)
                self._exact = exact(cls, context)

            def dump(self, obj: Any) -> "Buffer | None":
                dumped: Buffer | None = self._exact.dump(storable(obj, codec))
                return dumped

        return EscapingDumper

    # The one that is registered last counts where no format is demanded.
    for format_ in (PyFormat.BINARY, PyFormat.TEXT):
        driver.adapters.register_dumper(str, escaping(driver.adapters.get_dumper(str, format_)))
