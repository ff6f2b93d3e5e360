"""A Rails application's queue database: ``config/database.yml``, read as data.

The file is a template that Rails evaluates as Ruby. Nothing is evaluated here: the usual expressions that read an
environment variable are understood; any other is an error that shows it, but only in a setting that is needed.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy.engine import URL

from solidjq.database import url_options, urls
from solidjq.errors import UsageError
from solidjq.files import read_file
from solidjq.ownership import weakness
from solidjq.text import MASK, first_of, parse_id

MOST_BYTES = 64_000  # of a YAML file
MOST_CHARACTERS = 10_000  # of a setting
MOST_KEYS = 300  # aliases and anchors in one file: aliases of aliases grow exponentially
DEFAULT_ENVIRONMENT = "production"
_MOST_DIGITS = 50
MOST_NAMES = 10  # environments in a message
MOST_SHOWN = 200  # characters of Ruby in a message
QUEUE, PRIMARY = "queue", "primary"

_OPEN, _CLOSE = "jq-tag-", "-gat"  # plain text in YAML, quoted or not
_MARK = re.compile(f"{_OPEN}(\\d{{1,6}}){_CLOSE}")
_STRING = r"""(?:"(?P<{0}_double>[^"\\#]*)"|'(?P<{0}_single>[^'\\]*)'|(?P<{0}_number>\d+))"""
_FETCHED = re.compile(
    rf"ENV\.fetch\(\s*{_STRING.format('name')}\s*(?:,\s*{_STRING.format('default')}\s*)?\)"
    rf"(?:\s*\{{\s*{_STRING.format('block')}\s*\}})?"
)
_NAMED = re.compile(rf"ENV\[\s*{_STRING.format('name')}\s*\]")
_PLAIN = re.compile(_STRING.format("plain"))
_JOINED = re.compile(r"Rails\.root(?:\.join\(\s*(?P<parts>[^()]*)\))?")
_CONVERTED = re.compile(r"\.to_[is]$|\.presence$")
_OF_A_DATABASE = re.compile(r"(?i)DATABASE|POSTGRES|MYSQL|MARIADB|SQL|QUEUE|RAILS|(?:^|_)(?:DB|PG|RDS)")
_SECRET = re.compile(
    r"(?i)\.(?:[^.]*(?:pass|secret|key|token)[^.]*|url)$"
)  # a setting whose Ruby may contain a secret: production.queue.password
_SECRET_VARIABLE = re.compile(r"(?i)pass|pwd|secret|key|token|url|cred|auth")
_NO_LITERAL = re.compile(r"[A-Za-z_.:(),&?\s]*")  # Rails.application.credentials.dig(:db, :password)


def database_url(
    application: Path,
    environment: str | None = None,
    *,
    name: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> URL:
    """Return the URL of a Rails application's queue database.

    ``environment`` is by default RAILS_ENV's value, else production. If it has several databases, the one called
    ``name`` is used, else ``queue``, else ``primary``. As in Rails, the parts of a URL override the entry's settings:
    the entry's ``url``, else QUEUE_DATABASE_URL or PRIMARY_DATABASE_URL, for the primary also DATABASE_URL.
    ``variables`` replaces the process's environment variables.

    Raises UsageError for a missing or malformed file, and for a needed setting that only Ruby can read.
    """
    return _url(_entry(application, environment, name, os.environ if variables is None else variables))


def pool_size(
    application: Path,
    environment: str | None = None,
    *,
    name: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> int | None:
    """Return the size of the connection pool that a process of the application has for its queue; None if not set.

    The database is the one of ``database_url``. Raises UsageError for a missing or malformed file, and for a needed
    setting that only Ruby can read.
    """
    entry = _entry(application, environment, name, os.environ if variables is None else variables)
    text = entry.text("max_connections") or entry.text("pool")
    return None if text is None else parse_id(text)


def chosen_environment(environment: str | None, variables: Mapping[str, str]) -> str:
    """Return the Rails environment: ``environment``, else RAILS_ENV, else production."""
    return environment or variables.get("RAILS_ENV") or DEFAULT_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class _Entry:
    """One database of an application: its settings, and the parts of its URL, which override them."""

    path: Path
    root: Path
    parts: Mapping[str, str]
    place: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    template: "Template | None" = None
    of_variable: bool = False  # whether the parts are from the user's own environment

    def text(self, key: str) -> str | None:
        """Return a setting as text. Only the settings that are read this way must be free of unknown Ruby."""
        if key in self.parts or self.template is None:
            return self.parts.get(key)
        return self.template.text(self.settings.get(key), f"{self.place}.{key}")


def _entry(application: Path, environment: str | None, wanted: str | None, variables: Mapping[str, str]) -> _Entry:
    path, root = application / "config" / "database.yml", application.absolute()
    environment = chosen_environment(environment, variables)
    variable = _variable(PRIMARY, variables)
    if variable and not path.exists():
        return _Entry(path, root, _url_parts(variables[variable], variable), of_variable=True)
    template = Template(path, root, variables)
    settings = template.environment(environment, {} if variable else None)
    name = PRIMARY
    if isinstance(settings, str):  # the whole entry is a URL
        settings = {"url": settings}
    if settings and all(isinstance(value, Mapping) for value in settings.values()):
        if wanted is not None and wanted not in settings:
            raise UsageError(
                f"{path}: Solid Queue connects to :{wanted}, but {environment} has no such database; use --database"
            )
        name = next((key for key in (wanted, QUEUE, PRIMARY) if key in settings), None) or next(iter(settings))
        settings = settings[name]
    place = f"{environment}.{name}"
    parts: dict[str, str] = {}
    variable = None
    if text := template.text(settings.get("url"), f"{place}.url"):
        with urls.written_in(f"{path}: {place}.url"):
            parts = urls.taken_apart(text)
    elif variable := _variable(name, variables):
        parts = _url_parts(variables[variable], variable)
    return _Entry(path, root, parts, place, settings, template, of_variable=variable is not None)


def _variable(name: str, variables: Mapping[str, str]) -> str | None:
    """Return the name of the environment variable with the URL of the database called ``name``; None if none is set."""
    names = [f"{name.upper()}_DATABASE_URL", *(["DATABASE_URL"] if name == PRIMARY else [])]
    return next((variable for variable in names if variable in variables), None)


def _url_parts(text: str, variable: str) -> dict[str, str]:
    if not text.strip():
        raise UsageError(f"{variable} is empty; set it to a database's URL or unset it")
    with urls.written_in(variable):
        return urls.taken_apart(text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with merge keys (``<<``) as in Ruby's Psych: of two equal keys the later one wins.

    In PyYAML a mapping's own keys win wherever they are, and which of several merged mappings wins depends on the
    version. Duplicate keys are dropped at each merge; merges of merges would grow exponentially without that.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace a merge key by the keys of the mappings that it merges."""
        pairs, node.value = node.value, []  # so a mapping that merges itself merges nothing
        for key, value in pairs:
            if key.tag != "tag:yaml.org,2002:merge":
                node.value.append((key, value))
                continue
            # In a list of mappings the first one wins.
            for mapping in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(mapping, yaml.MappingNode):
                    self.flatten_mapping(mapping)
                    node.value += mapping.value
        node.value = list({(key.tag, str(key.value)): (key, value) for key, value in node.value}.values())
        super().flatten_mapping(node)

    def construct_text(self, node: yaml.ScalarNode) -> object:
        """Return the text of a node as it is written."""
        return self.construct_scalar(node)

    def construct_number(self, node: yaml.ScalarNode) -> object:
        """Return a number; the text as it is written if Python cannot read it, or only in a very long time."""
        text = self.construct_scalar(node)
        if len(text) > _MOST_DIGITS:
            return text
        try:
            return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        except ValueError:  # 0b_
            return text


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_text)


class Template:
    """A YAML file of Rails. Its ERB tags are replaced before it is parsed, and evaluated when a setting is read."""

    def __init__(self, path: Path, root: Path, variables: Mapping[str, str]) -> None:
        self.path = path
        self.root = root
        self._variables = variables
        self._tags: list[str] = []
        try:
            source = read_file(path, MOST_BYTES)
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}; --rails takes the folder of a Rails application"
            ) from None
        if max(source.count(b"&"), source.count(b"*")) > MOST_KEYS:
            raise UsageError(
                f"{path} is too big: more than {MOST_KEYS} anchors or aliases; name the database with --database"
            )
        try:
            text = self._without_tags(source.decode("utf-8", "replace"))
            self.data = yaml.load(text, _Loader)  # noqa: S506  (it is a SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError) as error:
            where = getattr(error, "problem_mark", None)
            line = "" if where is None else f", line {where.line + 1}"
            deep = "nested too deep" if isinstance(error, RecursionError) else "a value is not of the type of its tag"
            problem = getattr(error, "problem", None) or deep
            # The part that the message quotes may be a password: one that begins with * is an alias, with ! a tag.
            problem = re.sub("'.*'", MASK, problem, flags=re.DOTALL)
            raise UsageError(f"{path}{line} is not YAML: {problem}") from None

    def environment(self, name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any] | str:
        """Return the settings of an environment, else ``default``. Raises UsageError if there are neither."""
        data = self.data if isinstance(self.data, Mapping) else {}
        settings = default if data.get(name) is None else data[name]
        if not isinstance(settings, Mapping | str):
            names = first_of([key for key, value in data.items() if isinstance(value, Mapping)], MOST_NAMES)
            raise UsageError(f"{self.path} has no environment {name!r}; it has {names or 'none'}; choose with --env")
        return settings

    def text(self, value: object, key: str) -> str | None:
        """Return a setting as text, with the values of its ERB tags; ``key`` names it in a UsageError."""
        if value is None or isinstance(value, Mapping | list):
            return None
        written = str(value).lower() if isinstance(value, bool) else str(value)
        if len(written) > MOST_CHARACTERS:
            raise UsageError(f"{self.path}: {key} is too long: more than {MOST_CHARACTERS:,} characters")
        return _MARK.sub(
            lambda mark: self._value(self._tags[int(mark[1])], key) if int(mark[1]) < len(self._tags) else mark[0],
            written,
        )

    def _without_tags(self, source: str) -> str:
        """Return the text with a mark in the place of each ERB tag."""
        parts: list[str] = []
        at = 0
        while (start := source.find("<%", at)) >= 0 and (end := source.find("%>", start + 2)) >= 0:
            code = source[start + 2 : end]
            if not code.startswith(("#", "=")) or len(code) > MOST_CHARACTERS:
                number = source.count("\n", 0, start) + 1
                raise self._ruby(f"<%{code}%>", f"line {number}")
            parts.append(source[at:start])
            if code.startswith("="):
                parts.append(f"{_OPEN}{len(self._tags)}{_CLOSE}")
                self._tags.append(code[1:].removesuffix("-").strip())
            at = end + 2
        return "".join([*parts, source[at:]])

    def _value(self, code: str, key: str) -> str:
        for term in code.split("||"):
            plain = _CONVERTED.sub("", term.strip())
            value = self._term(plain, key)
            if value or (value is not None and not term.strip().endswith(".presence")):
                return value
        return ""

    def _term(self, term: str, key: str) -> str | None:
        if term == "nil":
            return None
        if match := _NAMED.fullmatch(term):
            return self._variables.get(self._variable(_read(match, "name") or "", key))
        if match := _FETCHED.fullmatch(term):
            name = self._variable(_read(match, "name") or "", key)
            value = self._variables.get(name, _read(match, "default") or _read(match, "block"))
            if value is None:
                raise UsageError(
                    f"{self.path}: {key} needs the variable {name}, which is not set; set it or use --database"
                )
            return value
        if match := _PLAIN.fullmatch(term):
            return _read(match, "plain")
        if match := _JOINED.fullmatch(term):
            parts = [_PLAIN.fullmatch(part.strip()) for part in (match["parts"] or "").split(",") if part.strip()]
            if all(parts):
                return str(self.root.joinpath(*(_read(part, "plain") or "" for part in parts if part)))
        shown = MASK if _SECRET.search(key) and not _NO_LITERAL.fullmatch(term) else term
        raise self._ruby(f"<%= {shown} %>", key)

    def _variable(self, name: str, key: str) -> str:
        """Return a variable's name. Another's database.yml gets no secret but a database's, and as a password only.

        Anywhere else a secret would be sent unencrypted: as a host it is looked up by name.
        """
        if self.path.name != "database.yml" or name not in self._variables:
            return name
        if not _OF_A_DATABASE.search(name):
            _require_own(self.path, f"asks for the variable {name}, whose name is none of a database's")
        elif _SECRET_VARIABLE.search(name) and not _SECRET.search(key):
            _require_own(self.path, f"asks for the variable {name} in {key}, where no secret belongs")
        return name

    def _ruby(self, code: str, where: str) -> UsageError:
        return UsageError(
            f"{self.path}: {where} is Ruby that jq does not evaluate: {code[:MOST_SHOWN]}; name the database with "
            f"--database"
        )


def _read(match: re.Match[str], group: str) -> str | None:
    texts = (match[f"{group}_{kind}"] for kind in ("double", "single", "number"))
    return next((text for text in texts if text is not None), None)


def _require_own(path: Path, deed: str) -> None:
    """Raise UsageError for what a file may do only if none but this user and root may write it."""
    if problem := weakness(path):
        raise UsageError(f"{path} {deed}, and others may write it: {problem}; name the database with --database")


def _url(entry: _Entry) -> URL:
    with urls.written_in(f"{entry.path}: {entry.place}" if entry.place else str(entry.path)):
        return _url_of(entry)


def _path_of(database: str) -> str:
    """Return the path of an SQLite file, which Rails may name as SQLite's ``file:`` URI with options."""
    if not database.startswith("file:"):
        return database
    path, options = urls.sqlite_parts("sqlite3", database.removeprefix("file:"))
    url_options.check_url_options("sqlite", options)
    return path


def _url_of(entry: _Entry) -> URL:
    backend = urls.backend_of(entry.text("adapter") or "none")
    keys = url_options.PARTS | url_options.entry_options(backend, entry.settings) | entry.parts.keys()
    settings = {key: value for key in sorted(keys) if (value := entry.text(key))}
    of_file = settings.keys() - entry.parts.keys() if entry.of_variable else settings.keys()
    if opening := sorted(url_options.OPENING_FILES & of_file):
        _require_own(entry.path, f"sets {opening[0]}, by which the database's driver opens a file")
    adapter = settings.pop("adapter", "")
    database = settings.pop("database", "")
    if backend == "sqlite":
        path = _path_of(database)
        if not path:
            raise UsageError(f"{entry.path} names no SQLite file; name the database with --database")
        return URL.create("sqlite", database=str(entry.root / path))
    host, port = settings.pop("host", ""), settings.pop("port", "")
    user, username = settings.pop("user", None), settings.pop("username", None)
    plain = URL.create(
        adapter,
        username=username or user,
        password=settings.pop("password", None),
        database=database or None,
        query=settings,
    )
    return urls.with_rails_options(urls.with_hosts(plain, host, port))
