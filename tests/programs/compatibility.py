"""Which command works with which version of Solid Queue's schema: the tests try each cell, the document shows them.

python tests/programs/compatibility.py > docs/compatibility.md
"""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from solidjq_cli.exits import Exit


class Generation(NamedTuple):
    """A schema that differs from the others: how it is made of 1.0's, on any database."""

    name: str
    reporting_message: str  # what tells it from the others
    statements: tuple[str, ...] = ()


BEFORE = Generation(
    "before 1.0",
    "no `name` in `solid_queue_processes`",
    (
        "DROP INDEX index_solid_queue_processes_on_name_and_supervisor_id{on_processes}",
        "ALTER TABLE solid_queue_processes DROP COLUMN name",
    ),
)
FIRST = Generation("1.0 to 1.6", "the tables that `jq init` makes")
_BATCHES = """
ALTER TABLE solid_queue_jobs ADD COLUMN batch_id bigint;

CREATE INDEX index_solid_queue_jobs_on_batch_id ON solid_queue_jobs (batch_id);

CREATE TABLE solid_queue_batches (
    id {id}, active_job_batch_id varchar(255), description varchar(255),
    on_finish text, on_success text, on_failure text, metadata text,
    total_jobs integer NOT NULL DEFAULT 0, completed_jobs integer NOT NULL DEFAULT 0,
    failed_jobs integer NOT NULL DEFAULT 0,
    enqueued_at {time} NULL, finished_at {time} NULL, failed_at {time} NULL,
    created_at {time} NOT NULL, updated_at {time} NOT NULL
);

CREATE TABLE solid_queue_batch_executions (
    id {id}, job_id bigint NOT NULL UNIQUE, batch_id bigint NOT NULL, created_at {time} NOT NULL,
    FOREIGN KEY (batch_id) REFERENCES solid_queue_batches (id) ON DELETE CASCADE,
    FOREIGN KEY (job_id) REFERENCES solid_queue_jobs (id) ON DELETE CASCADE
);

INSERT INTO solid_queue_batches (id, total_jobs, enqueued_at, created_at, updated_at)
VALUES (1, 4, {now}, {now}, {now});

UPDATE solid_queue_jobs SET batch_id = 1;

INSERT INTO solid_queue_batch_executions (job_id, batch_id, created_at)
SELECT id, 1, created_at FROM solid_queue_jobs
"""
BATCHES = Generation(
    "1.7",
    "`solid_queue_jobs.batch_id`, `solid_queue_batches` and `solid_queue_batch_executions`",
    tuple(_BATCHES.split(";")),
)
LATER = Generation(
    "with more",
    "columns and tables that `jq` does not know, with a default or NULL",
    (
        "ALTER TABLE solid_queue_jobs ADD COLUMN tenant varchar(20)",
        "ALTER TABLE solid_queue_ready_executions ADD COLUMN shard integer NOT NULL DEFAULT 3",
        "ALTER TABLE solid_queue_processes ADD COLUMN region varchar(20)",
        "ALTER TABLE solid_queue_semaphores ADD COLUMN generation integer NOT NULL DEFAULT 0",
        "CREATE TABLE solid_queue_more (id integer)",
        "CREATE TABLE users (id integer)",
    ),
)
GENERATIONS = (BEFORE, FIRST, BATCHES, LATER)


class Tried(NamedTuple):
    """A command: how it ends, whether it changes rows, and what it does before 1.0."""

    command: str
    changes: bool = False
    ends: Exit = Exit.DONE
    lacks: bool = False  # before 1.0 it is refused
    after: bool = False  # it goes on from the one above, and is not tried where that is refused

    def outcome(self, generation: Generation) -> tuple[Exit, bool]:
        """Return the exit code, and whether rows change."""
        return (Exit.DATABASE, False) if self.is_refused(generation) else (self.ends, self.changes)

    def is_refused(self, generation: Generation) -> bool:
        """Tell whether the schema lacks what the command needs."""
        return generation is BEFORE and self.lacks


WARNING, CRITICAL = Exit(1), Exit(2)  # jq check ends as monitoring plugins do, and unknown is Exit.DATABASE, too
# In this order, on one queue. {last} is the youngest operation.
COMMANDS = (
    Tried("init"),
    Tried("grants somebody"),
    Tried("failed list"),
    Tried("failed show {failed}", lacks=True),
    Tried("failed diff"),
    Tried("jobs show {retried}", lacks=True),
    Tried("jobs list", lacks=True),
    Tried("jobs times"),
    Tried("status", lacks=True),
    Tried("queues list"),
    Tried("queues keys"),
    Tried("processes list", lacks=True),
    Tried("operations list"),
    Tried("operations show {last}"),
    Tried("operations verify"),
    Tried("history {retried}", lacks=True),
    Tried("incidents list"),
    Tried("incidents show {death}"),
    Tried("incidents report {death}", lacks=True),
    Tried("suspects", lacks=True),
    Tried("policy show"),
    Tried("profiles list"),
    Tried("prune --dry-run --force", lacks=True),
    Tried("retry --safe --dry-run", lacks=True),
    Tried("recover --dry-run", lacks=True),
    Tried("jobs stop {retried}", ends=Exit.PARTLY, lacks=True),
    Tried("jobs run-now {retried}", ends=Exit.PARTLY, lacks=True),
    Tried("jobs postpone {retried} --to 2h", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("jobs move {retried} --to elsewhere", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("jobs discard {retried}", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("check failures", ends=WARNING),
    Tried("check deaths", ends=WARNING),
    Tried("check latency"),
    Tried("check processes", ends=CRITICAL, lacks=True),
    Tried("check dispatcher", ends=WARNING, lacks=True),
    Tried("check recurring"),
    Tried("check slots"),
    Tried("check all --skip processes --skip dispatcher", ends=WARNING),
    Tried("check alive-file nowhere", ends=CRITICAL),
    Tried("metrics"),
    Tried("watch --once --since 30d --position watched.json", lacks=True),
    Tried("wait --idle --timeout 0s", ends=Exit.PARTLY, lacks=True),
    Tried("doctor", ends=Exit.PARTLY),
    Tried("doctor orphans --fix --yes", changes=True),
    Tried("enqueue PlainJob", changes=True, lacks=True),
    Tried("queues pause default", changes=True),
    Tried("queues resume default", changes=True),
    Tried("prune --force", changes=True, lacks=True),
    Tried("undo {operation}", changes=True),
    Tried("retry {failed}", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("retry --safe --yes", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("retry --safe --plan-out plan.json", lacks=True),
    Tried("apply plan.json", changes=True, after=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("discard {failed}", changes=True, lacks=True),
    Tried("undo {last}", changes=True, after=True, lacks=True),
    Tried("bisect {death} --yes --wait 1s", ends=Exit.REFUSED, lacks=True),
    Tried("recover --force", changes=True, lacks=True),
    Tried("init --indexes"),
    Tried("completions bash"),
)
TOP = Tried("top", lacks=True)
WORK = Tried("work --import sample_jobs", changes=True, lacks=True)


SQLITE, POSTGRESQL, MARIADB, MYSQL = "SQLite", "PostgreSQL", "MariaDB", "MySQL"
EVERYWHERE = (SQLITE, POSTGRESQL, MARIADB)
# MySQL takes the tests of MariaDB, in ``make test-mysql``, which records here what passed.
MYSQL_RECORD = Path(__file__).parents[1] / "data" / "mysql.json"


class Environment(NamedTuple):
    """What stands around a queue, what jq does there, and the test that shows it."""

    name: str
    outcome: str
    test: str  # file::function
    on: tuple[str, ...] = (POSTGRESQL,)

    def cells(self, mysql: frozenset[str]) -> list[str]:
        """Return the row, with the tests that passed on MySQL."""
        tried = {*self.on, *((MYSQL,) if MARIADB in self.on and self.test in mysql else ())}
        databases = ["yes" if name in tried else "" for name in (SQLITE, POSTGRESQL, MARIADB, MYSQL)]
        return [self.name, self.outcome, *databases, f"`{self.test}`"]


_POOLERS = "tests/whole/test_poolers.py"
_KEYS = "tests/database/test_keys.py"
_TLS = "tests/database/test_tls.py"
_SETTINGS = "tests/whole/test_server_settings.py"
_WAYS = "tests/database/test_ways_to_a_server.py"
ENVIRONMENTS = (
    Environment(
        "PgBouncer in transaction mode",
        "every command works, and workers with fewer sessions than connections; workers poll",
        f"{_POOLERS}::test_work_through_a_pooler",
    ),
    Environment(
        "PgBouncer in session mode", "everything works; workers poll", f"{_POOLERS}::test_work_through_a_pooler"
    ),
    Environment(
        "PgBouncer in statement mode",
        "refused, exit code 3",
        f"{_POOLERS}::test_a_pooler_that_allows_no_transactions",
    ),
    Environment(
        "a pooler that drops startup options",
        "the schema that was chosen, whichever way",
        f"{_POOLERS}::test_ways_to_name_a_schema",
    ),
    Environment(
        "a pooler that refuses startup options",
        "a schema can be chosen",
        f"{_POOLERS}::test_a_pooler_that_refuses_options",
    ),
    Environment(
        "a schema beside another queue's, directly and through a pooler",
        "no command touches the other queue",
        f"{_POOLERS}::test_every_command_in_a_schema",
    ),
    Environment(
        "a session in which another client left a search path",
        "the schema that the role starts with",
        f"{_POOLERS}::test_a_search_path_that_another_client_left",
    ),
    Environment(
        "Solid Queue's tables and `jq`'s in two schemas",
        "works directly for a role that is no superuser; else refused, with the way out",
        f"{_POOLERS}::test_two_schemas_of_one_queue",
    ),
    Environment(
        "a pooler that loses prepared statements",
        "none is prepared any more, the move runs again",
        f"{_POOLERS}::test_a_prepared_statement_that_the_session_lacks",
    ),
    Environment(
        "`init --indexes` through a pooler",
        "works, leaves no lock behind",
        f"{_POOLERS}::test_indexes_through_a_pooler",
    ),
    Environment(
        "several PostgreSQL hosts",
        "the first that fits `target_session_attrs`",
        f"{_WAYS}::test_the_first_host_that_takes_writes",
    ),
    Environment(
        "`PGSERVICE`, `PGPASSFILE`", "read; a schema in it counts", f"{_WAYS}::test_service_and_password_files"
    ),
    Environment(
        "a MySQL option file, `?default_file=~/.my.cnf`",
        "read; TLS options that cannot be honoured are refused",
        f"{_WAYS}::test_a_mysql_option_file",
        (MARIADB,),
    ),
    Environment(
        "keys that are UUIDs (`uuid`, `char(36)`), in one table or all",
        "not supported: every command refuses, exit code 3",
        f"{_KEYS}::test_every_command_says_that_uuids_are_not_supported",
        EVERYWHERE,
    ),
    Environment(
        "claims that name their process by its name (a proposal for Solid Queue)",
        "not supported: nothing is pruned, exit code 3",
        f"{_KEYS}::test_claims_that_name_their_process_are_not_pruned",
        EVERYWHERE,
    ),
    Environment(
        "a pooler that has no session free",
        "what is only told beside an answer is left out after a second and a half",
        f"{_POOLERS}::test_a_glance_waits_for_no_session_of_a_pooler",
    ),
    Environment(
        "TLS on MySQL: `ssl_mode`, `ssl_ca` with and without it",
        "honoured as by MySQL's own client, or refused",
        f"{_TLS}::test_every_mode_against_a_certificate_of_its_own_making",
        (MARIADB,),
    ),
    Environment(
        "TLS options that cannot be honoured: `sslverify`, `ssl_cipher`, `tls_*`",
        "refused, exit code 2",
        f"{_TLS}::test_what_cannot_be_honoured_is_refused",
        (MARIADB,),
    ),
    Environment(
        "PostgreSQL settings: `default_transaction_isolation = serializable`, `standard_conforming_strings`, "
        "`row_security`, `datestyle`, `timezone`, `statement_timeout`, `lock_timeout`, "
        "`idle_in_transaction_session_timeout`, `quote_all_identifiers` and others",
        "every command works",
        f"{_SETTINGS}::test_settings_of_a_postgresql_database",
    ),
    Environment(
        "MySQL settings: `sql_mode`, `transaction_isolation = SERIALIZABLE`, `group_concat_max_len`, latin1, "
        "`lower_case_table_names = 1`, `sort_buffer_size = 1024`, "
        "`default_time_zone`, `autocommit = 0`, and a database with capitals and a hyphen in its name",
        "every command works",
        f"{_SETTINGS}::test_settings_of_a_mariadb_server",
        (MARIADB,),
    ),
    Environment(
        "MySQL's binary log with `binlog_format = STATEMENT`",
        "what writes is refused with the remedy, exit code 3; with `MIXED` or `ROW`, every command works",
        f"{_SETTINGS}::test_a_binary_log_by_statement",
        (MARIADB,),
    ),
    Environment(
        "the server takes no writes any more in the middle of a retry, as after a fail-over",
        "exit code 3; says how far it came and how to go on",
        "tests/recovery/test_stopped_halfway.py::test_a_fail_over_half_way",
        (POSTGRESQL, MARIADB),
    ),
    Environment(
        "standard input, output or errors closed",
        "no error; nothing is asked",
        "tests/whole/test_leaving.py::test_a_closed_stream_is_no_error",
        (SQLITE,),
    ),
    Environment(
        "a table that another session locks",
        "a line on stderr after two seconds",
        "tests/cli/test_beside_the_answer.py::test_a_list_says_that_it_waits_for_a_lock",
    ),
)


_DOCUMENT = """
<!-- Written by `make docs` from tests/programs/compatibility.py; do not edit. -->

# Which version of Solid Queue

`jq` reads the tables, not Solid Queue's code, and by the tables alone it can tell versions apart. 1.0 to 1.6 have the
same: nothing in a database says which of them made it, and nothing that `jq` does depends on it.

{schemas}

## Each command

Each cell was tried on SQLite, PostgreSQL, MariaDB and MySQL {version}, with the same outcome on each, in this order on
one queue with dead processes and orphaned jobs (`{by_command}`). `jq demo` has a queue of its own.

{commands}

- *works*: changes no row; `jq init` finds its tables there.
- *writes*: works, and changes rows.
- *refused*: exit code {code}, nothing is changed, and the error names the missing column and `jq doctor tables`.
- *needs a worker*: exit code {refused}; no worker of the queue `quarantine` lives there.
- *-*: goes on from a command that is refused.

`jq check` works where it answers; where it is refused, its answer is unknown, which is the same exit code.

## Each environment

Each row is a test that ran, on real servers. An empty cell: the row does not concern that database, or was not tried
on it. MySQL is {version}, on which `make test-mysql` runs all that the tests try on MariaDB.

{environments}

## Batches (1.7)

`jq` changes no row of batches; `jq doctor batches` finds those that stand still. A job that it fails or finishes
keeps its row in `solid_queue_batch_executions`, for Solid Queue's own maintenance to find; one that it discards loses
that row with its job. A job that comes back by the undo of a discard belongs to its batch again, by `batch_id` and
without that row: such rows stand for work that is still to be done, and in Solid Queue too a failed job has none. So
it counts as one of the batch's failed jobs, once; a batch that has finished meanwhile stays as it is, and where the
batch is gone, `batch_id` names none, as with every job of a batch that Solid Queue has cleared away.

## Columns that `jq` does not know

A discard keeps them all, a later version's and the application's own, and its undo puts them back (what the database
itself computes is computed again). One that was added since gets its default; one that refers to a row that is gone
meanwhile (a foreign key) is left empty. A job whose columns the table does not take any more, say because another has
its unique value by now, stays discarded, with the reason. A record that an older `jq init` made has no room for such
columns: run `jq init` again. Until then `jq discard` is refused on such a queue, because an undo would lose them;
everything else works.
""".lstrip()


_BY_COMMAND = "tests/whole/test_compatibility.py"


def documented_tests() -> set[str]:
    """Return the tests that the document rests on."""
    return {*(row.test for row in ENVIRONMENTS), f"{_BY_COMMAND}::test_every_command", f"{_BY_COMMAND}::test_work"}


def document() -> str:
    """Return what docs/compatibility.md holds."""
    record = json.loads(MYSQL_RECORD.read_text())
    head = ["schema", "told by"]
    schemas = [[each.name, each.reporting_message] for each in GENERATIONS]
    commands = {f"`{_spelled(each.command)}`": each for each in reversed((*COMMANDS, TOP, WORK))}  # the first
    cells = [[name, *(_cell(each, of) for of in GENERATIONS)] for name, each in reversed(commands.items())]
    environments = ["environment", "outcome", SQLITE, POSTGRESQL, MARIADB, MYSQL, "test"]
    return _DOCUMENT.format(
        schemas=_table(head, schemas),
        commands=_table(["command", *(each.name for each in GENERATIONS)], cells),
        code=Exit.DATABASE.value,
        refused=Exit.REFUSED.value,
        environments=_table(environments, [row.cells(frozenset(record["tests"])) for row in ENVIRONMENTS]),
        version=record["version"],
        by_command=_BY_COMMAND,
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _spelled(command: str) -> str:
    names = {"last": "OPERATION", "operation": "OPERATION", "death": "INCIDENT"}
    return "jq " + re.sub(r"\{(\w+)\}", lambda name: names.get(name[1], "JOB"), command)


def _cell(tried: Tried, generation: Generation) -> str:
    if tried.is_refused(generation):
        return "-" if tried.after else "refused"
    if tried.ends is Exit.REFUSED:
        return "needs a worker"
    return "writes" if tried.changes else "works"


if __name__ == "__main__":
    sys.stdout.write(document())
