"""One cache of compiled statements for all engines of a test process: every test makes an engine, in production few do.

An engine compiles each statement anew that it executes first; that took a quarter of the CPU of the tests.
"""

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine
from sqlalchemy.sql.compiler import Compiled
from sqlalchemy.util import LRUCache

from solidjq.database import hot, tables

MOST = 2000  # statements of each sort
PLAIN = (bool, int, str, tuple, type(None))  # what a dialect keeps of its server is of these types

_kinds: WeakKeyDictionary[Dialect, tuple[object, ...]] = WeakKeyDictionary()


def kind_of(dialect: Dialect) -> tuple[object, ...]:
    """Return what decides how a dialect compiles: its class, what it has found out of its server, the tables' names."""
    if dialect not in _kinds:
        plain = frozenset((name, value) for name, value in vars(dialect).items() if isinstance(value, PLAIN))
        _kinds[dialect] = (type(dialect), plain)
    return (_kinds[dialect], tables.prefix())


class Statements:
    """The cache of one engine, which finds what engines of the same kind have compiled."""

    _compiled: LRUCache[tuple[object, ...], Compiled] = LRUCache(MOST)

    def get(self, key: tuple[Any, ...]) -> Compiled | None:
        return self._compiled.get((kind_of(key[0]), *key[1:]))  # SQLAlchemy's key begins with the dialect

    def __setitem__(self, key: tuple[Any, ...], compiled: Compiled) -> None:
        self._compiled[kind_of(key[0]), *key[1:]] = compiled


def share() -> None:
    """Let all engines that this process makes from now on share what they compile, hot statements too."""
    make, prepare = Engine.__init__, hot._prepare.__wrapped__
    prepared: LRUCache[tuple[object, ...], Any] = LRUCache(MOST)

    def make_sharing(self: Engine, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        self._compiled_cache = Statements()  # type: ignore[assignment]

    def prepare_once(statement: hot.HotStatement[Any], dialect: Dialect, schema: str | None = None) -> Any:
        key = (statement, kind_of(dialect), schema)
        if key not in prepared:
            prepared[key] = prepare(statement, dialect, schema)
        return prepared[key]

    Engine.__init__ = make_sharing  # type: ignore[method-assign]
    hot._prepare = prepare_once  # type: ignore[assignment]
