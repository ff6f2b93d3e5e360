"""Where a Rails application keeps its queue: ``config/database.yml``, read as data.

The file is a template that Rails evaluates as Ruby. Nothing is evaluated here: the usual forms that ask for an
environment variable are read, and anything else is an error that shows it, but only if it stands where it matters.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy.engine import URL

from solidjq.database import urls
from solidjq.errors import UsageError
from solidjq.text import MASK

MOST_BYTES = 1_000_000  # of a file
MOST_KEYS = 1000  # of one table in it, and aliases: aliases of aliases grow without end
DEFAULT_ENVIRONMENT = "production"
QUEUE, PRIMARY = "queue", "primary"

_TAG = re.compile(r"<%(?P<mark>[=#-]?)(?P<code>.*?)-?%>", re.DOTALL)
_OPEN, _CLOSE = "jq-tag-", "-gat"  # plain text for YAML, with or without quotation marks
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_STRING = r"""(?:"(?P<{0}_double>[^"\\#]*)"|'(?P<{0}_single>[^'\\]*)'|(?P<{0}_number>\d+))"""
_FETCHED = re.compile(
    rf"ENV\.fetch\(\s*{_STRING.format('name')}\s*(?:,\s*{_STRING.format('given')}\s*)?\)"
    rf"(?:\s*\{{\s*{_STRING.format('block')}\s*\}})?"
)
_NAMED = re.compile(rf"ENV\[\s*{_STRING.format('name')}\s*\]")
_PLAIN = re.compile(_STRING.format("plain"))
_JOINED = re.compile(r"Rails\.root(?:\.join\(\s*(?P<parts>[^()]*)\))?")
_CONVERTED = re.compile(r"\.to_[is]$|\.presence$")
_SECRET = re.compile(r"(?i)\.(?:[^.]*(?:pass|secret|key|token)[^.]*|url)$")  # of a setting: production.queue.password
_NO_LITERAL = re.compile(r"[A-Za-z_.:(),&?\s]*")  # Rails.application.credentials.dig(:db, :password)


def database_url(
    application: Path,
    environment: str | None = None,
    *,
    name: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> URL:
    """Return the URL of a Rails application's queue database.

    ``environment`` is RAILS_ENV's value, else production. Where it has several databases it is the one of this
    ``name``, else ``queue``, else ``primary``. What its URL says is merged into the rest of the entry and wins, as in
    Rails: the entry's own ``url``, else QUEUE_DATABASE_URL or PRIMARY_DATABASE_URL, for the primary also DATABASE_URL.

    Raises UsageError for a file that is not there, or says what only Ruby understands.
    """
    return _url(_entry(application, environment, name, os.environ if variables is None else variables))


def pool_size(
    application: Path,
    environment: str | None = None,
    *,
    name: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> int | None:
    """Return how many connections a process of the application may have to that database; None if it does not say.

    Raises UsageError as ``database_url`` does.
    """
    entry = _entry(application, environment, name, os.environ if variables is None else variables)
    text = entry.text("max_connections") or entry.text("pool")
    return int(text) if text and text.isdecimal() else None


def chosen_environment(environment: str | None, variables: Mapping[str, str]) -> str:
    """Return the Rails environment: the one that is named, else RAILS_ENV's, else production."""
    return environment or variables.get("RAILS_ENV") or DEFAULT_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class _Entry:
    """One database of an application: its settings, and over them what its URL says."""

    path: Path
    root: Path
    parts: Mapping[str, str]
    place: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    template: "Template | None" = None

    def text(self, key: str) -> str | None:
        """Return a setting as text; what nobody asks for may be any Ruby."""
        if key in self.parts or self.template is None:
            return self.parts.get(key)
        return self.template.text(self.settings.get(key), f"{self.place}.{key}")


def _entry(application: Path, environment: str | None, wanted: str | None, given: Mapping[str, str]) -> _Entry:
    path, root = application / "config" / "database.yml", application.absolute()
    environment = chosen_environment(environment, given)
    variable = _variable(PRIMARY, given)
    if variable and not path.exists():
        return _Entry(path, root, _taken_apart(given[variable], variable))
    template = Template(path, root, given)
    settings = template.environment(environment, {} if variable else None)
    name = PRIMARY
    if isinstance(settings, str):  # the whole entry is a URL
        settings = {"url": settings}
    if settings and all(isinstance(value, Mapping) for value in settings.values()):
        if wanted is not None and wanted not in settings:
            raise UsageError(f"{path}: Solid Queue connects to :{wanted}, and {environment} has no such database")
        name = next((each for each in (wanted, QUEUE, PRIMARY) if each in settings), None) or next(iter(settings))
        settings = settings[name]
    place = f"{environment}.{name}"
    parts: dict[str, str] = {}
    if text := template.text(settings.get("url"), f"{place}.url"):
        parts = urls.taken_apart(text)
    elif variable := _variable(name, given):
        parts = _taken_apart(given[variable], variable)
    return _Entry(path, root, parts, place, settings, template)


def _variable(name: str, given: Mapping[str, str]) -> str | None:
    """Return the environment variable that has a URL for the database of this name, if one is set."""
    names = [f"{name.upper()}_DATABASE_URL", *(["DATABASE_URL"] if name == PRIMARY else [])]
    return next((variable for variable in names if variable in given), None)


def _taken_apart(text: str, variable: str) -> dict[str, str]:
    if not text.strip():
        raise UsageError(f"{variable} is empty; fill it in or unset it")
    return urls.taken_apart(text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with merges (``<<``) as Ruby's Psych makes them: of two equal keys the later one counts.

    PyYAML lets a table's own keys win wherever they stand, and of several merged tables one that changes with its
    version. No table grows beyond the keys that are written somewhere, as merges of merges else would.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the keys of merged tables in the place of the merge."""
        pairs, node.value = node.value, []  # a table that merges itself finds itself empty
        for key, value in pairs:
            if key.tag != "tag:yaml.org,2002:merge":
                node.value.append((key, value))
                continue
            # Of a list the first table counts most.
            for table in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(table, yaml.MappingNode):
                    self.flatten_mapping(table)
                    node.value += table.value
        node.value = list({(each[0].tag, str(each[0].value)): each for each in node.value}.values())
        super().flatten_mapping(node)


class Template:
    """A YAML file of Rails. Its tags are taken out before it is read, and put back where a value is asked for."""

    def __init__(self, path: Path, root: Path, variables: Mapping[str, str]) -> None:
        self.path = path
        self.root = root
        self._variables = variables
        self._tags: list[str] = []
        try:
            source = path.read_bytes()[: MOST_BYTES + 1]
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}; --rails names a Rails application's folder"
            ) from None
        if len(source) > MOST_BYTES or max(source.count(b"&"), source.count(b"*")) > MOST_KEYS:
            raise UsageError(f"{path} is too big to be a {path.name}")
        try:
            text = _TAG.sub(self._take, source.decode("utf-8", "replace"))
            self.data = yaml.load(text, _Loader)  # noqa: S506  (it is a SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            where = getattr(error, "problem_mark", None)
            line = "" if where is None else f", line {where.line + 1}"
            problem = getattr(error, "problem", None) or "nested too deep"
            # What it quotes may be a password: one that begins with * is an alias, with ! a tag.
            problem = re.sub("'.*'", MASK, problem, flags=re.DOTALL)
            raise UsageError(f"{path}{line} is not YAML: {problem}") from None

    def environment(self, name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any] | str:
        """Return the settings of an environment. Raises UsageError if there are none, unless a default is given."""
        data = self.data if isinstance(self.data, Mapping) else {}
        settings = default if data.get(name) is None else data[name]
        if not isinstance(settings, Mapping | str):
            known = ", ".join(str(key) for key, value in data.items() if isinstance(value, Mapping))
            raise UsageError(f"{self.path} has no environment {name!r}; it has {known or 'none'}; choose with --env")
        return settings

    def text(self, value: object, key: str) -> str | None:
        """Return a setting as text, its tags filled in."""
        if value is None or isinstance(value, Mapping | list):
            return None
        written = str(value).lower() if isinstance(value, bool) else str(value)
        return _MARK.sub(
            lambda mark: self._value(self._tags[int(mark[1])], key) if int(mark[1]) < len(self._tags) else mark[0],
            written,
        )

    def _take(self, tag: re.Match[str]) -> str:
        if tag["mark"] == "#":
            return ""
        self._tags.append(tag["code"].strip() if tag["mark"] == "=" else "")
        if tag["mark"] != "=":
            raise self._ruby("<%" + tag["code"] + "%>", f"line {tag.string[: tag.start()].count(chr(10)) + 1}")
        return f"{_OPEN}{len(self._tags) - 1}{_CLOSE}"

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
            return self._variables.get(_read(match, "name") or "")
        if match := _FETCHED.fullmatch(term):
            name = _read(match, "name") or ""
            value = self._variables.get(name, _read(match, "given") or _read(match, "block"))
            if value is None:
                raise UsageError(f"{self.path}: {key} asks for the environment variable {name}, which is not set")
            return value
        if match := _PLAIN.fullmatch(term):
            return _read(match, "plain")
        if match := _JOINED.fullmatch(term):
            parts = [_PLAIN.fullmatch(part.strip()) for part in (match["parts"] or "").split(",") if part.strip()]
            if all(parts):
                return str(self.root.joinpath(*(_read(part, "plain") or "" for part in parts if part)))
        shown = MASK if _SECRET.search(key) and not _NO_LITERAL.fullmatch(term) else term
        raise self._ruby(f"<%= {shown} %>", key)

    def _ruby(self, code: str, where: str) -> UsageError:
        return UsageError(
            f"{self.path}: {where} is Ruby that jq does not evaluate: {code}; name the database with --database"
        )


def _read(match: re.Match[str], group: str) -> str | None:
    found = (match[f"{group}_{kind}"] for kind in ("double", "single", "number"))
    return next((text for text in found if text is not None), None)


def _url(entry: _Entry) -> URL:
    keys = urls.CONNECTING & (entry.settings.keys() | entry.parts.keys())
    settings = {key: value for key in sorted(keys) if (value := entry.text(key))}
    adapter = settings.pop("adapter", "")
    database = settings.pop("database", "")
    if adapter in {"sqlite3", "sqlite"}:
        if not database:
            raise UsageError(f"{entry.path} names no SQLite file")
        return URL.create("sqlite", database=str(entry.root / database.removeprefix("file:").partition("?")[0]))
    port = settings.pop("port", "")
    if port and not port.isdecimal():
        raise UsageError(f"{entry.path}: {port!r} is no port")
    host = settings.pop("host", None)
    if host is not None and host.startswith("/"):  # the folder of a socket; it cannot stand in a URL's host
        settings["host"], host = host, None
    user, username = settings.pop("user", None), settings.pop("username", None)
    plain = URL.create(
        adapter or "none",
        username=username or user,
        password=settings.pop("password", None),
        host=host,
        port=int(port) if port else None,
        database=database or None,
        query=settings,
    )
    return urls.with_rails_options(plain)
