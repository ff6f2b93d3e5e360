"""The session of one command: how it connects, what it has opened, its settings, and the operation it records."""

from __future__ import annotations

import os
import shlex
import sys
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from solidjq_cli import view
from solidjq_cli.arguments import program_name, recorded, typed_words
from solidjq_cli.exits import say
from solidjq_cli.lock_watch import LockWatch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL

    from solidjq import Database
    from solidjq.database.place import Place
    from solidjq.ledger.operations import Operation
    from solidjq.rails.job_code import JobCode
    from solidjq.rails.settings import RailsConfig
    from solidjq.settings.policy import Policy
    from solidjq.settings.sources import Settings

ENVIRONMENT = "JQ_DATABASE_URL"  # as in solidjq.database.opening, which --help must not load


class Connecting(NamedTuple):
    """How to connect: the options before the command, as in ``jq --database URL --read-only failed list``.

    An option takes precedence over the profile. A profile that is read-only stays read-only.
    """

    profile: str | None = None
    database: str | None = None
    rails: Path | None = None
    environment: str | None = None
    schema: str | None = None
    table_prefix: str | None = None
    read_only: bool = False
    alive_threshold: float | None = None  # the profile's
    file: Path | None = None  # with the profiles and the policy
    password_command: tuple[str, ...] = ()  # the profile's
    profile_place: str | None = None  # the profile's file and table, if the database is the profile's
    confirm_name: str | None = None  # what a person must type before a bulk change of the profile's database

    def names_a_database(self) -> bool:
        """Whether a database is named, or a Rails application."""
        return self.database is not None or self.rails is not None


class Session:
    """One command line, from its options to the databases that it opened."""

    def __init__(self, options: Connecting) -> None:
        self._options = options
        self._opened: list[Database] = []
        self._watches: list[LockWatch] = []
        self._creates = False  # whether the command may create the embedded queue
        self._announced = False  # whether it has said that it uses the embedded queue
        self._headed = False  # whether the database was named above what was printed
        self._ignored: set[str] = set()  # the keys of a found file that it has said are ignored
        self._policy_words = ""  # the files of the policy that was loaded
        self._operations: list[Operation] = []  # that it may have recorded

    def add_options(self, database: str | None, config_file: Path | None) -> None:
        """Add the options after the command; they take precedence over those before it."""
        self._options = self._options._replace(
            database=self._options.database if database is None else database,
            file=self._options.file if config_file is None else config_file,
        )

    @cached_property
    def settings(self) -> Settings:
        """The files with the profiles and the policy, read once, so that both are of the same moment."""
        from solidjq.settings.sources import load_settings  # noqa: PLC0415

        return load_settings(self._options.file)

    @property
    def options(self) -> Connecting:
        """How to connect, as it was typed: not completed by a profile."""
        return self._options

    @property
    def config_file(self) -> Path | None:
        """The settings file that the command line names."""
        return self._options.file

    @cached_property
    def connecting(self) -> Connecting:
        """How to connect: the options, completed by the profile.

        Raises UsageError if the options contradict each other.
        """
        options = self._checked()
        if options.profile is not None or not (options.names_a_database() or ENVIRONMENT in os.environ):
            options = self._with_profile(options)
        return _with_its_application(options)

    def _checked(self) -> Connecting:
        from solidjq.errors import UsageError  # noqa: PLC0415

        if self._options.database is not None and self._options.rails is not None:
            raise UsageError("--database and --rails both name a database; leave one out")
        return self._options

    def _with_profile(self, options: Connecting) -> Connecting:
        """Complete the options by the profile that they name, or the default profile."""
        from solidjq.settings import profiles  # noqa: PLC0415

        profile = profiles.choose_profile(self.settings, options.profile)
        if profile is None:
            found = self.settings.found
            if found is not None and profiles.DEFAULT in found.document:
                self._say_ignored((profiles.DEFAULT,))
            return options
        named = options.names_a_database()
        return options._replace(
            database=options.database if named else profile.database,
            rails=options.rails if named else profile.rails,
            environment=options.environment or (None if named else profile.env),
            schema=options.schema if named or options.schema else profile.schema,
            table_prefix=options.table_prefix if named or options.table_prefix else profile.table_prefix,
            read_only=options.read_only or profile.read_only,
            alive_threshold=None if named else profile.alive_threshold,
            password_command=() if named else profile.password_command,
            profile_place=None if named else profile.place,
            confirm_name=profile.name if profile.confirm == profiles.BY_NAME and not named else None,
        )

    @cached_property
    def named(self) -> Connecting:
        """How to connect by the command line alone, without the environment's database and the default profile."""
        options = self._checked()
        return _with_its_application(options if options.profile is None else self._with_profile(options))

    def named_url(self) -> str | URL | None:
        """Return the URL of the database that the command line names; None if it names none."""
        return _url(self.named)

    def source(self) -> str:
        """Return where the database's URL was written, in words."""
        connecting = self.__dict__.get("connecting", self._options)  # without reading a profile now
        if connecting.rails is not None:
            return f"{connecting.rails}/config/database.yml"
        if connecting.profile_place is not None:
            return f"{connecting.profile_place}.database"
        return "--database" if connecting.database is not None else ENVIRONMENT

    # -- the database -------------------------------------------------------------------------------------------------

    @property
    def embedded(self) -> bool:
        """Whether nothing names a database, so that the embedded queue is used."""
        return not self.connecting.names_a_database() and ENVIRONMENT not in os.environ

    def open(
        self, *, create: bool = False, fill: bool = True, watch: bool = True, answer_timeout: float | None = None
    ) -> Database:
        """Open the database that the command line, the environment or the default profile names.

        If none names one, it is the embedded queue, and a line on stderr says so: a command that reads another queue
        than its user thinks must not look like success. With ``create``, a missing one is created, and filled unless
        the caller does it (``fill``). Without, UsageError says how to name a database. With ``watch``, a line on stderr
        says so when the command waits for a lock.
        """
        from solidjq.database.opening import embedded_url, open_database  # noqa: PLC0415

        self._creates = create
        database = open_database(
            embedded_url() if self.embedded and not fill else _url(self.connecting),
            create=create,
            namespace=self.connecting.schema,
            table_prefix=self.connecting.table_prefix,
            read_only=self.connecting.read_only,
            answer_timeout=answer_timeout,
        )
        self._opened.append(database)
        if view.host() is None and self._options.database and database.url.password and sys.stderr.isatty():
            say(
                "the password in --database is in the shell's history, and others could read it while jq started; use "
                "JQ_DATABASE_URL, ~/.pgpass, or password_command in a profile"
            )
        if watch:
            self._watches.append(LockWatch(database))
        if self.embedded and not self._announced and view.host() is None:
            from solidjq.database.place import below_home  # noqa: PLC0415

            access = " (read-only)" if database.read_only else ""
            say(f"using the embedded queue {below_home(database.url)}{access}")
            self._announced = True
            self._headed = sys.stderr.isatty()  # a heading would say the same again
        return database

    def place(self) -> str | None:
        """Name the database, its server, and whether it may be written to; None before one was opened."""
        return str(self._place() or self._opened[-1]) if self._opened else None

    def _place(self) -> Place | None:
        from solidjq.database.place import find_place  # noqa: PLC0415

        database = self._opened[-1]
        return database.glance(find_place, database.url, read_only=database.read_only)

    def places(self) -> list[str]:
        """Return names of the database for a heading, the fullest first; none the second time, and before it is open.

        That it cannot be written to is part of every one.
        """
        host = view.host()
        if self._headed or not self._opened or (host is not None and host.headed):
            return []
        self._headed = True
        place = self._place()
        return [str(self._opened[-1])] if place is None else place.short_forms()

    def close(self) -> None:
        """Close the databases, so that a server ends its sessions and SQLite removes its write-ahead log."""
        while self._watches:
            self._watches.pop().end()
        while self._opened:
            self._opened.pop().close()

    # -- the settings -------------------------------------------------------------------------------------------------

    def alive_threshold(self, option: float | None, *, acts: bool = False) -> float:
        """Return the age of a heartbeat, in seconds, from which on a process is dead.

        The option or its environment variable, else the profile's, else the Rails application's, else Solid Queue's
        300. Where only Ruby can read the application's setting, a command that ``acts`` on it ends with UsageError;
        one that only reads prints a note and uses 300.
        """
        from solidjq.processes.heartbeat import ALIVE_THRESHOLD  # noqa: PLC0415

        connecting = self.connecting
        threshold = connecting.alive_threshold if option is None else option
        if threshold is not None or connecting.rails is None:
            return ALIVE_THRESHOLD if threshold is None else threshold
        from solidjq.errors import UsageError  # noqa: PLC0415
        from solidjq.rails.settings import THRESHOLD, read_settings  # noqa: PLC0415

        setting = read_settings(connecting.rails, connecting.environment).get(THRESHOLD)
        if setting is None:
            return ALIVE_THRESHOLD
        if setting.value is None:
            unread = f"{setting.place} sets {THRESHOLD} in a way that only Ruby can read: {setting.code}"
            if acts:
                raise UsageError(f"{unread}; give --alive-threshold")
            say(f"{unread}; {ALIVE_THRESHOLD:g} s is taken instead: give --alive-threshold")
            return ALIVE_THRESHOLD
        return float(setting.value)

    def require_utc(self, *, force: bool, nothing: str) -> None:
        """Raise RefusedError if the Rails application writes local time, by which nobody can be called dead."""
        if self.connecting.rails is None:
            return
        from solidjq.errors import RefusedError  # noqa: PLC0415
        from solidjq.processes.prune_guard import is_forced  # noqa: PLC0415
        from solidjq.rails.settings import local_time_setting  # noqa: PLC0415

        if is_forced(force=force):
            return
        setting = local_time_setting(self.connecting.rails, self.connecting.environment)
        if setting is not None:
            raise RefusedError(
                f"{nothing}: {setting.place} lets Rails write local time ({setting.code}), and the database's clock "
                "cannot show who is dead; set it to :utc. --force prunes at once"
            )

    def rails_config(self) -> RailsConfig | None:
        """Read which processes and recurring tasks the Rails application configures; None if none is named."""
        if self.connecting.rails is None:
            return None
        from solidjq.rails.settings import read_config  # noqa: PLC0415

        return read_config(self.connecting.rails, self.connecting.environment)

    def rails_code(self) -> JobCode | None:
        """Read the text of the Rails application's Ruby files; None if no application is named."""
        if self.connecting.rails is None:
            return None
        from solidjq.rails.job_code import read_job_code  # noqa: PLC0415

        return read_job_code(self.connecting.rails)

    def policy(self, modules: list[str] | None, *, acts: bool = False, quiet: bool = False) -> Policy:
        """Load the retry policy: the settings files, and the settings of the jobs in these modules.

        A command that ``acts`` on it names the files, and is refused if rules of a found file are missing; both, and
        what of a found file is ignored, are on stderr unless ``quiet``.
        """
        from solidjq.settings.policy import load_policy  # noqa: PLC0415

        if acts:
            self.settings.require_trust()
        if modules:
            from solidjq import registry  # noqa: PLC0415

            registry.import_modules(modules)
        registered = registry.policies() if modules else None
        policy = load_policy(self.settings, registered=registered)
        self._policy_words = policy.words()
        if not quiet:
            if self.settings.distrust is not None:
                say(self.settings.distrust)
            self._say_ignored((*self.settings.ignored_tables(), *policy.ignored()))
            if acts and self._policy_words:
                say(f"policy: {self._policy_words}")
        return policy

    def _say_ignored(self, keys: tuple[str, ...]) -> None:
        """Say which keys of the found file count for nothing, once."""
        found = self.settings.found
        keys = tuple(key for key in keys if key not in self._ignored)
        if found is None or not keys:
            return
        from solidjq.settings.sources import cure  # noqa: PLC0415

        self._ignored.update(keys)
        say(
            f"{found.path} is ignored for {', '.join(keys)}: a file that is found where you stand may only make the "
            f"retry policy stricter; {cure(found.path)}"
        )

    # -- what it may change -------------------------------------------------------------------------------------------

    def require_changeable(self, verb: str) -> None:
        """Raise an error if this command may not change the database; ``verb`` is its name.

        RefusedError if it is opened read-only. UsageError if it is the embedded queue because nothing names another,
        and stderr is no terminal, on which a person would read so: a line in cron that lost its variable would succeed
        for ever. A command that may create the embedded queue may change it too.
        """
        if self.connecting.read_only:
            from solidjq.errors import RefusedError  # noqa: PLC0415

            raise RefusedError(f"jq {verb} changes the database, and it is opened read-only; nothing was changed")
        if self.embedded and not self._creates and view.host() is None and not sys.stderr.isatty():
            from solidjq.database.opening import WAYS_TO_NAME  # noqa: PLC0415
            from solidjq.errors import UsageError  # noqa: PLC0415

            raise UsageError(
                f"jq {verb} changes a queue, and no database is named; without a terminal it must be, even the "
                f"embedded queue; name it with {WAYS_TO_NAME}; nothing was changed"
            )

    # -- the record ---------------------------------------------------------------------------------------------------

    def operation(
        self,
        verb: str,
        reason: str | None = None,
        *,
        chosen: Mapping[str, object] | None = None,
        plan: str | None = None,
        called: str | None = None,
    ) -> Operation:
        """Describe this command for the ledger. Raises as ``require_changeable`` does.

        ``called`` is the name of the command where it is not the recorded verb: ``queues pause``.
        """
        self.require_changeable(called or verb)
        from solidjq.ledger.operations import Operation  # noqa: PLC0415
        from solidjq.text import mask_argument  # noqa: PLC0415

        arguments = recorded(typed_words(), (chosen or {}).get("with_arguments"))
        command = shlex.join([program_name(), *map(mask_argument, arguments)])
        if self._policy_words:
            chosen = {**(chosen or {}), "policy": self._policy_words}
        operation = Operation(verb, command=command, reason=reason, chosen=chosen, plan=plan)
        self._operations.append(operation)
        return operation

    def recorded(self) -> list[int]:
        """Return the ids of the operations that this command has recorded."""
        return [operation.id for operation in self._operations if operation.id is not None]

    def seal(self, *, interrupted: bool) -> None:
        """Append what this command has recorded to the chain of operations; if that fails, a later command does it.

        If it was ``interrupted``, nobody waits for a busy database, or reads of it.
        """
        recorded = self.recorded()
        if not recorded:
            return
        from solidjq.errors import DatabaseError  # noqa: PLC0415
        from solidjq.ledger import chain  # noqa: PLC0415

        try:
            chain.seal(self._opened[-1], recorded, patient=not interrupted)
        except DatabaseError as error:
            if interrupted:
                return
            say(f"the record is not sealed yet, a later command will do it: {error}")


def _with_its_application(connecting: Connecting) -> Connecting:
    """Return it unchanged. Raises UsageError for an environment without a Rails application."""
    if connecting.environment is not None and connecting.rails is None:
        from solidjq.errors import UsageError  # noqa: PLC0415

        raise UsageError(
            "--env chooses an environment of a Rails application; name the application with --rails or a profile"
        )
    return connecting


def _url(connecting: Connecting) -> str | URL | None:
    url: str | URL | None = connecting.database
    if connecting.rails is not None:
        from solidjq.rails.settings import queue_url  # noqa: PLC0415

        url = queue_url(connecting.rails, connecting.environment)
    if url is None or not connecting.password_command:
        return url
    from solidjq.database.urls import parse_url, without_password  # noqa: PLC0415
    from solidjq.settings.password_command import read_password  # noqa: PLC0415

    place = f"{connecting.profile_place}.password_command"
    bare = without_password(parse_url(url) if isinstance(url, str) else url, place)
    return bare.set(password=read_password(connecting.password_command, place))


# -- the current session ----------------------------------------------------------------------------------------------

_current: ContextVar[Session] = ContextVar("session")


def begin(options: Connecting) -> None:
    """Begin the session of a command line; the root of the command tree calls it before the command."""
    _current.set(Session(options))


def current(database: str | None = None, config_file: Path | None = None) -> Session:
    """Return the session of the command that runs, completed by the command's own options."""
    session = _current.get()
    session.add_options(database, config_file)
    return session


def source() -> str | None:
    """Return where the URL of the current session's database was written; None if there is no session."""
    session = _current.get(None)
    return None if session is None else session.source()


def places() -> list[str]:
    """Return names of the current session's database for a heading; none if there is none, or it was named."""
    session = _current.get(None)
    return [] if session is None else session.places()


def seal(*, interrupted: bool) -> None:
    """Seal what the current session's command has recorded; see ``Session.seal``."""
    if (session := _current.get(None)) is not None:
        session.seal(interrupted=interrupted)


def recorded_operations() -> tuple[int, ...]:
    """Return the ids of the operations that the current session's command has recorded."""
    session = _current.get(None)
    return () if session is None else tuple(session.recorded())


def close() -> None:
    """Close the current session, if there is one: ``--help`` begins none."""
    if (session := _current.get(None)) is not None:
        session.close()
