"""Checks of concurrency limits: leaked or expired semaphores, and jobs that are blocked although a slot is free."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Select, func, or_, select, update

from solidjq.database.among import among
from solidjq.database.engines import lock_limit
from solidjq.database.tables import blocked, processes, semaphores
from solidjq.database.times import ago, clock, utcnow
from solidjq.database.transactions import Database
from solidjq.doctor.checks import (
    MOST_NAMED,
    DoctorCheck,
    DoctorFinding,
    DoctorTerms,
    Severity,
    everywhere,
    fix_some,
    how_many,
)
from solidjq.durations import spell_duration
from solidjq.errors import DatabaseError, RowsRefusedError, concerns_all
from solidjq.ledger.operations import Operation, reverting
from solidjq.queue import slot_maintenance
from solidjq.queue.attempts import LOCK_WAIT, Attempt
from solidjq.queue.concurrency import Limit, Limits, holders
from solidjq.queue.slot_maintenance import STAYS_KEY
from solidjq.untrusted import number, read_object

MOST_SLOTS = 1_000_000  # a limit above this is none
MANY_WAITING = 1000  # jobs of one key
MOST_HOT = 5  # keys that are named
MAINTENANCE = 600.0  # seconds between the maintenances of a dispatcher that registered no interval


def maintenance_margin(connection: Connection) -> float:
    """Return after how many seconds a working dispatcher has certainly freed an expired slot."""
    dispatchers = connection.scalars(select(processes.c.metadata).where(processes.c.kind == "Dispatcher"))
    intervals = [number(read_object(metadata), "concurrency_maintenance_interval") for metadata in dispatchers]
    return 2 * max((seconds for seconds in intervals if seconds is not None), default=MAINTENANCE)


def _leaked() -> Select[tuple[int, str]]:
    """Select semaphores that have no free slot although no job of their key is ready or claimed, so none holds one.

    No enqueue can take a slot of them, and a worker that frees one does so within moments.
    """
    held = holders()
    return (
        select(semaphores.c.id, semaphores.c.key)
        .outerjoin(held, held.c.concurrency_key == semaphores.c.key)
        .where(semaphores.c.value <= 0, semaphores.c.expires_at >= utcnow(), held.c.concurrency_key.is_(None))
        .order_by(semaphores.c.id)
    )


def _find_leaked(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    leaked = connection.execute(_leaked().limit(MOST_NAMED + 1)).all()
    if leaked:
        yield DoctorFinding(
            f"{how_many(leaked, 'concurrency key has', 'concurrency keys have')} no free slot, and no job that holds "
            f"one: {leaked[0].key}{' and others' if len(leaked) > 1 else ''}",
            "jq doctor leaked-slots --fix frees one slot of each; otherwise they are free once their semaphores expire",
            Severity.WARNING,
            subjects=frozenset(row.id for row in leaked),
        )


def _free_leaked(database: Database, terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    """Raise each leaked semaphore to 1, which no limit forbids while no job holds a slot; unblock its next job."""
    return fix_some(database, operation, _free_some, terms, what="key", stays=STAYS_KEY)


def _free_some(connection: Connection, terms: DoctorTerms, operation: Operation, attempt: Attempt) -> list[int] | None:
    attempt.tried = connection.scalars(attempt.of(_leaked().with_only_columns(semaphores.c.id), semaphores.c.id)).all()
    if not attempt.tried:
        return None
    # While a semaphore is locked, no job can take a slot of it. One that another program has locked may just lose one.
    lock = select(semaphores.c.id).where(among(semaphores.c.id, attempt.tried)).order_by(semaphores.c.key)
    locked = connection.scalars(lock.with_for_update(skip_locked=True)).all()
    leaked = connection.execute(_leaked().where(among(semaphores.c.id, locked)))
    key_of = {row.id: row.key for row in leaked}
    unblocked: list[int] = []

    def free(ids: Sequence[int]) -> list[int]:
        connection.execute(update(semaphores).where(among(semaphores.c.id, ids)).values(value=1, updated_at=utcnow()))
        ready = [slot_maintenance.unblock_one(connection, key_of[number], terms.limits) for number in ids]
        unblocked.extend(job_id for job_ids in ready for job_id in job_ids)
        return list(ids)

    freed = attempt.act(connection, key_of, free)
    if freed:
        operation.record_if_possible(connection, len(unblocked))
    return freed


def known_limits(connection: Connection, terms: DoctorTerms) -> Limits:
    """Return the limits of the classes that were imported, and of those that Python's dispatchers registered."""
    dispatchers = connection.scalars(select(processes.c.metadata).where(processes.c.kind == "Dispatcher"))
    registered = [read_object(metadata).get("limits") for metadata in dispatchers]
    limits = {
        name: Limit(int(slots))
        for known in registered
        if isinstance(known, dict)
        for name in known
        if (slots := number(known, name)) is not None and 1 <= slots < MOST_SLOTS
    }
    return {**limits, **terms.limits}


def _find_short(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    short = slot_maintenance.find_short(connection, known_limits(connection, terms), MOST_NAMED + 1)
    if short:
        yield DoctorFinding(
            f"{how_many(short, 'concurrency key has', 'concurrency keys have')} fewer free slots than the limit and "
            f"the jobs that hold slots leave: {short[0]}{' and others' if len(short) > 1 else ''}",
            "jq doctor short-slots --fix gives them back; a dispatcher does so with each concurrency maintenance",
            Severity.WARNING,
            subjects=frozenset(short),
        )


def _refill(database: Database, terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    """Give short keys their free slots back, in batches, and let blocked jobs run in them."""
    with database.read() as connection:
        limits = known_limits(connection, terms)
    return fix_some(database, operation, _refill_some, limits, what="key", stays=STAYS_KEY)


def _refill_some(connection: Connection, limits: Limits, operation: Operation, attempt: Attempt) -> list[int] | None:
    key_of = slot_maintenance.find_short_some(connection, limits, attempt)
    attempt.tried = list(key_of)
    unblocked: list[int] = []

    def refill(ids: Sequence[int]) -> list[int]:
        unblocked.extend(slot_maintenance.refill(connection, [key_of[number] for number in ids], limits))
        return list(ids)

    with lock_limit(connection, LOCK_WAIT):
        refilled = attempt.act(connection, key_of, refill)
    if refilled:
        operation.record_if_possible(connection, len(unblocked))
    return refilled if key_of else None


def _find_impossible(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    below = list(connection.scalars(select(semaphores.c.key).where(semaphores.c.value < 0).limit(MOST_NAMED + 1)))
    if below:
        yield DoctorFinding(
            f"{how_many(below, 'semaphore is', 'semaphores are')} below 0: {below[0]}",
            f"when no job of the key runs, delete its row from {semaphores.name}: the next enqueue inserts it",
            subjects=frozenset(below),
        )
    for class_name, limit in sorted(terms.limits.items()):
        above = list(
            connection.scalars(
                select(semaphores.c.key)
                .where(semaphores.c.key.startswith(f"{class_name}/", autoescape=True), semaphores.c.value > limit.to)
                .limit(MOST_NAMED + 1)
            )
        )
        if above:
            yield DoctorFinding(
                f"{how_many(above, 'semaphore has', 'semaphores have')} more free slots than {class_name}'s limit of "
                f"{limit.to}: {above[0]}",
                f"when no job of the key runs, delete its row from {semaphores.name}; was the limit lowered?",
                subjects=frozenset(above),
            )


def _find_expired(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    late = ago(maintenance_margin(connection))
    ids = list(connection.scalars(select(semaphores.c.id).where(semaphores.c.expires_at < late).limit(MOST_NAMED + 1)))
    if ids:
        yield DoctorFinding(
            f"{how_many(ids, 'semaphore', 'semaphores')} expired long ago and not cleared: no dispatcher does "
            "concurrency maintenance",
            "run a dispatcher (jq work, bin/jobs) with concurrency maintenance on, or jq doctor expired-semaphores "
            "--fix",
            Severity.WARNING,
            subjects=frozenset(ids),
        )


def _clear_expired(database: Database, _terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    return slot_maintenance.expire_semaphores(database, lambda connection: operation.record_if_possible(connection, 0))


def _find_blocked(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    late = ago(maintenance_margin(connection))
    ids = tuple(
        connection.scalars(
            select(blocked.c.job_id)
            .outerjoin(semaphores, semaphores.c.key == blocked.c.concurrency_key)
            .where(blocked.c.expires_at < late, or_(semaphores.c.id.is_(None), semaphores.c.value > 0))
            .limit(MOST_NAMED + 1)
        )
    )
    if ids:
        yield DoctorFinding(
            f"{how_many(ids, 'blocked job waits', 'blocked jobs wait')} past their expiry while a slot is free",
            "run a dispatcher (jq work, bin/jobs) with concurrency maintenance on, or jq doctor blocked-jobs --fix",
            job_ids=ids[:MOST_NAMED],
            subjects=frozenset(ids),
        )


def _unblock(database: Database, terms: DoctorTerms, operation: Operation) -> Iterator[int]:
    """Unblock the next job of each key whose slot is free, as a dispatcher's maintenance does."""
    refused: dict[str, DatabaseError] = {}

    def unblock(connection: Connection, key: str) -> int:
        with lock_limit(connection, LOCK_WAIT):
            moved = len(slot_maintenance.unblock_one(connection, key, terms.limits))
        if moved:
            operation.record_if_possible(connection, moved)
        return moved

    with database.read() as connection:
        keys = slot_maintenance.expired_keys(connection, MOST_NAMED)
    for key in keys:
        try:
            with reverting(operation):
                moved = database.transact(unblock, key)
        except DatabaseError as error:
            if concerns_all(error):
                raise
            refused[key] = error
        else:
            yield moved
    if refused:
        raise RowsRefusedError(str(next(iter(refused.values()))), list(refused), STAYS_KEY)


def _find_hot(connection: Connection, _terms: DoctorTerms) -> Iterator[DoctorFinding]:
    waiting = func.count()
    crowded = (
        select(blocked.c.concurrency_key, waiting.label("waiting"), func.min(blocked.c.created_at).label("oldest"))
        .group_by(blocked.c.concurrency_key)
        .having(waiting >= MANY_WAITING)
        .order_by(waiting.desc(), blocked.c.concurrency_key)
        .limit(MOST_HOT)
    )
    now = clock(connection)
    for row in connection.execute(crowded):
        oldest = row.oldest and spell_duration(max(now - row.oldest, timedelta()))
        yield DoctorFinding(
            f"{row.waiting:,} jobs wait for a slot of {row.concurrency_key}"
            f"{f', the oldest for {oldest}' if oldest else ''}",
            "jq queues keys shows who holds its slots; raise the limit of the class, split the key, or discard jobs "
            "that nobody needs twice (jq jobs discard)",
            Severity.WARNING,
            subjects=frozenset([row.concurrency_key]),
        )


CHECKS = (
    DoctorCheck(
        name="leaked-slots",
        asks="Concurrency keys without a free slot although no job holds one.",
        why="The key's blocked jobs wait, although none runs, until the semaphore expires.",
        advice="Free one slot of each, or wait for the expiry.",
        finds=everywhere(_find_leaked),
        again=True,
        fix=_free_leaked,
        fixes="frees one slot of each key, which no limit forbids, and lets the next blocked job run",
    ),
    DoctorCheck(
        name="short-slots",
        asks="Concurrency keys of Python classes with fewer free slots than their limit and their jobs leave.",
        why="Fewer jobs of the key run at once than the limit allows; under steady traffic that never heals.",
        advice="Give the slots back, or run a dispatcher of the application: jq work --import MODULE.",
        finds=everywhere(_find_short),
        again=True,
        fix=_refill,
        fixes="gives each key the free slots that its jobs leave, and lets blocked jobs run in them",
    ),
    DoctorCheck(
        name="impossible-slots",
        asks="Semaphores below 0, or above the limit of a class that was imported with --import.",
        why="More jobs of the key run at once than the limit allows, or fewer. The limits of Ruby classes are not in "
        "the database and cannot be checked.",
        advice="When no job of the key runs, delete its row from solid_queue_semaphores: the next enqueue inserts it.",
        finds=everywhere(_find_impossible),
        again=True,
    ),
    DoctorCheck(
        name="hot-keys",
        asks="Concurrency keys with 1,000 blocked jobs or more.",
        why="All of them run one after another: jobs come in faster than the limit lets them run, and each that ends "
        "has the database look for the next one.",
        advice="Raise the limit, split the key, or let limits_concurrency discard jobs (on_conflict: :discard).",
        finds=everywhere(_find_hot),
    ),
    DoctorCheck(
        name="expired-semaphores",
        by_clock=True,
        asks="Semaphores that expired more than two maintenance intervals ago and are still there.",
        why="No dispatcher does concurrency maintenance, so blocked jobs whose slot leaked wait for ever.",
        advice="Run a dispatcher, with concurrency_maintenance on.",
        finds=everywhere(_find_expired),
        fix=_clear_expired,
        fixes="deletes the expired semaphores, as a dispatcher does",
    ),
    DoctorCheck(
        name="blocked-jobs",
        by_clock=True,
        asks="Blocked jobs more than two maintenance intervals past their expiry, with a slot free.",
        why="A dispatcher would have made them ready long ago.",
        advice="Run a dispatcher, with concurrency_maintenance on.",
        finds=everywhere(_find_blocked),
        fix=_unblock,
        fixes="makes the next job of each key ready, as a dispatcher does",
    ),
)
