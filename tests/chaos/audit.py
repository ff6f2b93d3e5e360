"""Triggers that write each change of a job's state, and each end of a process, into a table of the run's own."""

from sqlalchemy.engine import URL

from support.servers import execute

STATES = ("ready", "scheduled", "blocked", "claimed", "failed")

_TABLE = {
    "sqlite": "CREATE TABLE chaos_audit (id INTEGER PRIMARY KEY, what TEXT, subject INTEGER, detail REAL)",
    "postgresql": "CREATE TABLE chaos_audit (id bigserial PRIMARY KEY, what text, subject bigint, detail float8)",
    "mysql": (
        "CREATE TABLE chaos_audit "
        "(id bigint AUTO_INCREMENT PRIMARY KEY, what varchar(20), subject bigint, detail double)"
    ),
}
_AGE = {  # seconds since the last heartbeat of a process
    "sqlite": "(julianday('now') - julianday(OLD.last_heartbeat_at)) * 86400",
    "postgresql": "extract(epoch FROM clock_timestamp() AT TIME ZONE 'UTC' - OLD.last_heartbeat_at)",
    "mysql": "timestampdiff(MICROSECOND, OLD.last_heartbeat_at, utc_timestamp(6)) / 1e6",
}
_ENDED = "OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL"
_CHANGED = "OLD.finished_at IS NOT NULL"


def _events(backend: str) -> list[tuple[str, str, str, str, str, str]]:
    """Return name, event, table, condition, and the values of ``subject`` and ``detail`` of each trigger."""
    of_states = [
        (f"{state}{sign}", event, f"{state}_executions", "1 = 1", f"{row}.job_id", "NULL")
        for state in STATES
        for sign, event, row in (("+", "INSERT", "NEW"), ("-", "DELETE", "OLD"))
    ]
    return [
        *of_states,
        ("job+", "INSERT", "jobs", "1 = 1", "NEW.id", "NULL"),
        ("job-", "DELETE", "jobs", "1 = 1", "OLD.id", "NULL"),
        ("finished+", "UPDATE", "jobs", _ENDED, "NEW.id", "NULL"),
        ("finished again", "UPDATE", "jobs", _CHANGED, "NEW.id", "NULL"),
        ("process-", "DELETE", "processes", "1 = 1", "OLD.pid", _AGE[backend]),
    ]


def install(url: URL) -> None:
    """Make the table and its triggers."""
    backend = url.get_backend_name()
    statements = [_TABLE[backend]]
    for number, (what, event, table, condition, subject, detail) in enumerate(_events(backend)):
        name = f"chaos_{number}"
        write = f"INSERT INTO chaos_audit (what, subject, detail) VALUES ('{what}', {subject}, {detail})"  # noqa: S608
        on = f"TRIGGER {name} AFTER {event} ON solid_queue_{table} FOR EACH ROW"
        if backend == "postgresql":
            body = f"BEGIN IF {condition} THEN {write}; END IF; RETURN NULL; END"
            statements.append(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ {body} $$"
            )
            statements.append(f"CREATE {on} EXECUTE FUNCTION {name}()")
        elif backend == "sqlite":
            statements.append(f"CREATE {on} WHEN {condition} BEGIN {write}; END")
        else:
            statements.append(f"CREATE {on} BEGIN IF {condition} THEN {write}; END IF; END")
    execute(url, *statements)
