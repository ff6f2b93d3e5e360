"""Checks of the code behind a queue: classes that jobs name and no code defines, and retries that never happen."""

from collections.abc import Collection, Iterator

from sqlalchemy import Connection, select

from solidjq.database.statements import distinct_values
from solidjq.database.tables import jobs, recurring_tasks
from solidjq.doctor.checks import MOST_NAMED, DoctorCheck, DoctorFinding, DoctorTerms, Severity, everywhere, how_many
from solidjq.rails.job_code import MOST_FILES, IdleHandler, JobCode

MOST_CLASSES = 1000  # that one check looks at
# Namespaces of Rails' own gems, whose jobs stand in no application's files.
FRAMEWORK = frozenset(
    (
        *("ActionMailbox", "ActionMailer", "ActionText", "ActiveJob", "ActiveRecord", "ActiveStorage"),
        *("MissionControl", "Rails", "SolidCable", "SolidCache", "SolidQueue", "Turbo"),
    )
)


def _find_unknown(connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    if terms.code is None and terms.registered is None:
        return
    if terms.code is not None and not terms.code.complete:
        yield DoctorFinding(
            f"the application has more than {MOST_FILES} Ruby files: classes were not looked for",
            "look for them by hand: jq jobs list, and the files of the application",
            Severity.NOTE,
        )
        return
    where = _places(terms)
    for name in unknown_classes(distinct_values(connection, jobs.c.class_name)[:MOST_CLASSES], terms):
        unfinished = select(jobs.c.id).where(jobs.c.class_name == name, jobs.c.finished_at.is_(None))
        ids = tuple(connection.scalars(unfinished.limit(MOST_NAMED + 1)))
        if ids:
            yield DoctorFinding(
                f"{how_many(ids, 'unfinished job is', 'unfinished jobs are')} of {name}, which was not found {where}",
                "if it was renamed or removed, its jobs fail when they run: discard them (jq discard, jq jobs "
                "discard), or keep a class of that name until they have run. A class of a gem cannot be seen here",
                Severity.NOTE,
                ids[:MOST_NAMED],
                frozenset([name]),
            )
    tasks = select(recurring_tasks.c.key, recurring_tasks.c.class_name).where(recurring_tasks.c.class_name.is_not(None))
    named = {row.key: row.class_name for row in connection.execute(tasks.order_by(recurring_tasks.c.key))}
    missing = set(unknown_classes(list(dict.fromkeys(named.values()))[:MOST_CLASSES], terms))
    for key, name in named.items():
        if name in missing:
            yield DoctorFinding(
                f"the recurring task {key!r} enqueues {name}, which was not found {where}",
                "correct the task, or remove it (config/recurring.yml; jq recurring list). A class of a gem or an "
                "engine cannot be seen here",
                Severity.NOTE,
                subjects=frozenset([key]),
            )


def unknown_classes(names: Collection[str], terms: DoctorTerms) -> list[str]:
    """Return the names that neither the application's files nor the imported modules define, those of Rails excepted.

    Python's names are compared whole; Ruby's as Zeitwerk does, apart from acronyms.
    """
    return [
        name
        for name in names
        if not (terms.code is not None and (terms.code.has(name) or name.split("::")[0] in FRAMEWORK))
        and name not in (terms.registered or ())
    ]


def _places(terms: DoctorTerms) -> str:
    read = ["under app, lib"] if terms.code is not None else []
    imported = ["among the functions of the imported modules"] if terms.registered is not None else []
    return " or ".join(read + imported)


def _find_idle(_connection: Connection, terms: DoctorTerms) -> Iterator[DoctorFinding]:
    return judge_handlers(terms.code)


def judge_handlers(code: JobCode | None) -> Iterator[DoctorFinding]:
    """Warn of each handler of an error that no job ever raises."""
    for handler in () if code is None else code.idle_handlers:
        yield DoctorFinding(
            f"{_who(handler)} {handler.handler} {handler.error} never runs ({handler.place}): Solid Queue stores this "
            "error in a job whose process is gone, and no job raises it",
            "remove it; such jobs come back by jq retry --safe, once (jq incidents list) or from cron or a timer "
            "(solidjq recover)",
            Severity.WARNING,
            subjects=frozenset([handler.place]),
        )


def _who(handler: IdleHandler) -> str:
    return f"{handler.class_name}'s" if handler.class_name else "a"


CHECKS = (
    DoctorCheck(
        name="job-classes",
        asks="With --rails: unfinished jobs and recurring tasks of classes that no file under app or lib defines, by "
        "its text or by its name as Zeitwerk reads it; packs, packages, components and engines of the application "
        "included. With --import: of names that the imported modules do not register.",
        why="A job whose class was renamed or removed fails as soon as a worker takes it, and each retry of it again.",
        advice="Discard such jobs, or keep a class of the old name until they have run. Classes of gems cannot be "
        "seen, so these are notes.",
        finds=everywhere(_find_unknown),
        of_code=True,
    ),
    DoctorCheck(
        name="retry-on",
        asks="With --rails: retry_on, discard_on, rescue_from and rescue of ProcessPrunedError, ProcessExitError or "
        "ProcessMissingError in the text of the application's Ruby files.",
        why="These errors are written into the failures of jobs whose process is gone; no job raises them, so the "
        "handler never runs and nothing is retried.",
        advice="Remove the handler, and let jq retry --safe or solidjq recover put such jobs back.",
        finds=everywhere(_find_idle),
        of_application=True,
    ),
)
