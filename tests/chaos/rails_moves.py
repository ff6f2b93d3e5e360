"""What Solid Queue's own processes do to a queue, statement by statement, as plain SQL on a connection of their own.

In the order and the transactions in which Solid Queue 1.5 does it, seen in a server's log. Isolation is the server's
own: REPEATABLE READ on MariaDB. The limit of every class is one job.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

NOW = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "postgresql": "(clock_timestamp() AT TIME ZONE 'UTC')",
    "mysql": "utc_timestamp(6)",
}
LATER = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '+180 seconds')",
    "postgresql": "(clock_timestamp() AT TIME ZONE 'UTC' + interval '180 seconds')",
    "mysql": "(utc_timestamp(6) + interval 180 second)",
}
SILENT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now', '-300 seconds')",
    "postgresql": "(clock_timestamp() AT TIME ZONE 'UTC' - interval '300 seconds')",
    "mysql": "(utc_timestamp(6) - interval 300 second)",
}
PRUNED = '{"exception_class":"SolidQueue::Processes::ProcessPrunedError","message":"pruned","backtrace":null}'


def application(url: URL) -> Engine:
    """Return what a Rails application connects by."""
    engine = create_engine(url)
    if url.get_backend_name() == "sqlite":

        @event.listens_for(engine, "connect")
        def _manual(driver: Any, _record: object) -> None:
            driver.isolation_level = None
            driver.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def _immediate(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Rails:
    """A Rails process. A deadlock ends what it was doing, as an exception does there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kind = engine.dialect.name
        self.failed = False  # something of it was left undone

    def _do(self, connection: Connection, sql: str, **values: Any) -> Any:
        times = {"now": NOW[self._kind], "later": LATER[self._kind], "silent": SILENT[self._kind]}
        for name, expression in times.items():
            sql = sql.replace(f"<{name}>", expression)
        if self._kind == "sqlite":
            sql = sql.replace(" FOR UPDATE SKIP LOCKED", "").replace(" FOR UPDATE", "")
        statement = text(sql.replace("sq_", "solid_queue_"))
        lists = [bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)]
        return connection.execute(statement.bindparams(*lists), values)

    def _ids(self, connection: Connection, sql: str, **values: Any) -> list[Any]:
        return list(self._do(connection, sql, **values).scalars())

    def _move(self, *transactions: Callable[[Connection], Any]) -> None:
        try:
            for transaction in transactions:
                with self._engine.begin() as connection:
                    transaction(connection)
        except OperationalError:
            self.failed = True

    # -- a worker -----------------------------------------------------------------------------------------------------

    def claim(self, process_id: int) -> None:
        """Claim two ready jobs: lock them, insert the claims, delete the ready rows."""

        def claim(connection: Connection) -> None:
            found = self._ids(
                connection,
                "SELECT job_id FROM sq_ready_executions ORDER BY priority, job_id LIMIT 2 FOR UPDATE SKIP LOCKED",
            )
            if not found:
                return
            for job_id in found:
                self._do(
                    connection,
                    "INSERT INTO sq_claimed_executions (job_id, process_id, created_at) VALUES (:job, :process, <now>)",
                    job=job_id,
                    process=process_id,
                )
            claimed = "SELECT job_id FROM sq_claimed_executions WHERE job_id IN :jobs AND process_id = :process"
            claims = self._ids(connection, claimed, jobs=found, process=process_id)
            self._do(connection, "DELETE FROM sq_ready_executions WHERE job_id IN :jobs", jobs=claims)

        self._move(claim)

    def _end(self, claim: Any, sql: str, *, keeps_slot: bool = False, **values: Any) -> None:
        """End a claim under its lock, if it is still there; then give its slot back, in transactions of their own."""

        def end(connection: Connection) -> None:
            locked = "SELECT id FROM sq_claimed_executions WHERE id = :id FOR UPDATE"
            if self._ids(connection, locked, id=claim.id):
                self._do(connection, sql, job=claim.job_id, **values)
                self._do(connection, "DELETE FROM sq_claimed_executions WHERE id = :id", id=claim.id)
                ended.append(True)

        ended: list[bool] = []
        self._move(end)
        if ended and not keeps_slot and claim.concurrency_key is not None:
            self._give_back(claim.concurrency_key)

    def _give_back(self, key: str) -> None:
        raised: list[int] = []

        def signal(connection: Connection) -> None:
            update = "UPDATE sq_semaphores SET value = value + 1, expires_at = <later> WHERE key = :key AND value < 1"
            if self._kind == "mysql":
                update = update.replace(" key = ", " `key` = ")
            raised.append(self._do(connection, update, key=key).rowcount)

        self._move(signal)
        if raised and raised[0]:
            self._unblock_one(key)

    def _unblock_one(self, key: str) -> None:
        def unblock(connection: Connection) -> None:
            first = (
                "SELECT job_id, queue_name, priority FROM sq_blocked_executions WHERE concurrency_key = :key "
                "ORDER BY priority, job_id LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
            for row in self._do(connection, first, key=key).all():
                if self._acquire(connection, key):
                    self._do(
                        connection,
                        "INSERT INTO sq_ready_executions (job_id, queue_name, priority, created_at) "
                        "VALUES (:job, :queue, :priority, <now>)",
                        job=row.job_id,
                        queue=row.queue_name,
                        priority=row.priority,
                    )
                    self._do(connection, "DELETE FROM sq_blocked_executions WHERE job_id = :job", job=row.job_id)

        self._move(unblock)

    def _acquire(self, connection: Connection, key: str) -> bool:
        column = "`key`" if self._kind == "mysql" else "key"
        if not self._ids(connection, f"SELECT id FROM sq_semaphores WHERE {column} = :key", key=key):  # noqa: S608
            insert = (
                f"INSERT INTO sq_semaphores ({column}, value, expires_at, created_at, updated_at) "  # noqa: S608
                "VALUES (:key, 0, <later>, <now>, <now>)"
            )
            skipping = (
                insert.replace("INSERT", "INSERT IGNORE")
                if self._kind == "mysql"
                else f"{insert} ON CONFLICT DO NOTHING"
            )
            if self._do(connection, skipping, key=key).rowcount:
                return True
        update = (
            "UPDATE sq_semaphores SET value = value - 1, expires_at = <later> "  # noqa: S608
            f"WHERE {column} = :key AND value > 0"
        )
        return bool(self._do(connection, update, key=key).rowcount)

    def finish(self, process_id: int) -> None:
        """Finish each job of a worker."""
        for claim in self._claims_of(process_id):
            self._end(claim, "UPDATE sq_jobs SET finished_at = <now>, updated_at = <now> WHERE id = :job")

    def release(self, process_id: int) -> None:
        """Put the jobs of a worker that stops back into their queues; each keeps its slot."""
        insert = (
            "INSERT INTO sq_ready_executions (job_id, queue_name, priority, created_at) "
            "SELECT id, queue_name, priority, <now> FROM sq_jobs WHERE id = :job"
        )
        for claim in self._claims_of(process_id):
            self._end(claim, insert, keeps_slot=True)

    def _claims_of(self, process_id: int) -> Sequence[Any]:
        query = (
            "SELECT c.id, c.job_id, j.concurrency_key FROM sq_claimed_executions c JOIN sq_jobs j ON j.id = c.job_id "
            "WHERE c.process_id = :process ORDER BY c.id"
        )
        with self._engine.begin() as connection:
            return list(self._do(connection, query, process=process_id).all())

    # -- a supervisor and a dispatcher --------------------------------------------------------------------------------

    def prune(self) -> None:
        """Fail the jobs of each silent process one by one, then delete its row: nothing locks it in between."""
        with self._engine.begin() as connection:
            found = "SELECT id FROM sq_processes WHERE last_heartbeat_at <= <silent> ORDER BY id FOR UPDATE SKIP LOCKED"
            dead = self._ids(connection, found)
        for process_id in dead:
            insert = "INSERT INTO sq_failed_executions (job_id, error, created_at) VALUES (:job, :error, <now>)"
            for claim in self._claims_of(process_id):
                self._end(claim, insert, error=PRUNED)
            self._move(partial(self._do, sql="DELETE FROM sq_processes WHERE id = :id", id=process_id))

    def dispatch(self) -> None:
        """Dispatch what is due: jobs without a limit in one statement, the others one by one."""

        def dispatch(connection: Connection) -> None:
            due = self._ids(
                connection,
                "SELECT job_id FROM sq_scheduled_executions WHERE scheduled_at <= <now> "
                "ORDER BY scheduled_at, priority, job_id LIMIT 10 FOR UPDATE SKIP LOCKED",
            )
            self._dispatch_all(connection, due)
            if due:
                self._do(connection, "DELETE FROM sq_scheduled_executions WHERE job_id IN :jobs", jobs=due)

        self._move(dispatch)

    def _dispatch_all(self, connection: Connection, job_ids: list[Any]) -> None:
        if not job_ids:
            return
        jobs = self._do(connection, "SELECT id, concurrency_key FROM sq_jobs WHERE id IN :jobs", jobs=job_ids).all()
        insert = (
            "INSERT INTO sq_ready_executions (job_id, queue_name, priority, created_at) "
            "SELECT id, queue_name, priority, <now> FROM sq_jobs WHERE id IN :jobs"
        )
        block = (
            "INSERT INTO sq_blocked_executions (job_id, queue_name, priority, concurrency_key, expires_at, created_at) "
            "SELECT id, queue_name, priority, concurrency_key, <later>, <now> FROM sq_jobs WHERE id IN :jobs"
        )
        if free := [job.id for job in jobs if job.concurrency_key is None]:
            self._do(connection, insert, jobs=free)
        for job in jobs:
            if job.concurrency_key is not None:
                admitted = self._acquire(connection, job.concurrency_key)
                self._do(connection, insert if admitted else block, jobs=[job.id])

    def maintain(self) -> None:
        """Delete semaphores that have expired, and unblock a job of each key whose wait has expired and has a slot."""
        self._move(partial(self._do, sql="DELETE FROM sq_semaphores WHERE expires_at < <now>"))
        column = "`key`" if self._kind == "mysql" else "key"
        expired = (
            "SELECT DISTINCT b.concurrency_key FROM sq_blocked_executions b "  # noqa: S608
            f"LEFT JOIN sq_semaphores s ON s.{column} = b.concurrency_key "
            "WHERE b.expires_at < <now> AND (s.value > 0 OR s.id IS NULL) ORDER BY 1 LIMIT 10"
        )
        with self._engine.begin() as connection:
            keys = self._ids(connection, expired)
        for key in keys:
            self._unblock_one(key)

    # -- a person at the dashboard ------------------------------------------------------------------------------------

    def _failed(self, connection: Connection) -> list[Any]:
        """Lock the failures, in one transaction with what becomes of them."""
        return self._ids(connection, "SELECT job_id FROM sq_failed_executions ORDER BY job_id FOR UPDATE")

    def retry_all(self) -> None:
        """Retry every failed job."""

        def retry(connection: Connection) -> None:
            job_ids = self._failed(connection)
            self._dispatch_all(connection, job_ids)
            if job_ids:
                self._do(connection, "DELETE FROM sq_failed_executions WHERE job_id IN :jobs", jobs=job_ids)

        self._move(retry)

    def discard_all(self) -> None:
        """Discard every failed job."""

        def discard(connection: Connection) -> None:
            if job_ids := self._failed(connection):
                self._do(connection, "DELETE FROM sq_jobs WHERE id IN :jobs", jobs=job_ids)

        self._move(discard)

    def close(self) -> None:
        with suppress(OperationalError):
            self._engine.dispose()
