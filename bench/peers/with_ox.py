"""django-ox, a backend of Django's tasks, with its own command as the worker and persistent connections."""

import time

import django
import psycopg
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import conninfo_to_dict

import pouring
import verbs


def about() -> dict[str, object]:
    return {
        **verbs.versions("django-ox", "Django", "psycopg"),
        "done": "SELECT NOT EXISTS (SELECT FROM django_ox_oxtask WHERE status IN ('READY', 'RUNNING'))",
        "enqueue": [["enqueue_many, 1,000 a call", {"batch": 1000}]],
        "drain": [["--concurrency 10", {"concurrency": 10}]],
        "latency": [["--concurrency 10", {"concurrency": 10}]],
        "load": [["--concurrency 10", {"concurrency": 10}]],
        "idle": [["--concurrency 10", {"concurrency": 10}]],
        "retry": [["retry_many, 1,000 a call", {"batch": 1000}]],
        "recovery-time": [
            ["LOCK_TIMEOUT 300 s (default)", {}, "default"],
            ["LOCK_TIMEOUT 5 s", {"lock_timeout": 5.0}, "short"],
        ],
        "share": 0.2,
    }


def configure() -> None:
    """Configure Django with connections that stay, as django-ox's documentation recommends."""
    place = conninfo_to_dict(verbs.URL)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.get("dbname", ""),
        "USER": place.get("user", ""),
        "HOST": place.get("host", ""),
        "PORT": str(place.get("port", "")),
        "CONN_MAX_AGE": None,
    }
    backend = {"BACKEND": "django_ox.backend.OxBackend"}
    settings.configure(
        DATABASES={"default": database}, INSTALLED_APPS=["django_ox"], TASKS={"default": backend}, USE_TZ=True
    )
    django.setup()


if verbs.URL:
    configure()
    from django_ox.actions import retry_many
    from django_ox.bulk import enqueue_many

    from ox_jobs import noop


def install() -> None:
    call_command("migrate", verbosity=0)


def enqueue(count: int, batch: int = verbs.BATCH) -> float:
    start = time.perf_counter()
    for numbers in verbs.in_batches(range(count), batch):
        enqueue_many(noop, [((0,), {}) for _ in numbers])
    return time.perf_counter() - start


def work(concurrency: int = 10, lock_timeout: float | None = None) -> None:
    call_command("ox_worker", concurrency=concurrency, lock_timeout=lock_timeout, verbosity=0)


def send(count: int) -> None:
    for gap in verbs.gaps(count):
        time.sleep(gap)
        noop.enqueue(time.time())


def pour(count: int, rate: float) -> float:
    return pouring.by_threads(count, rate, lambda times: enqueue_many(noop, [((sent,), {}) for sent in times]))


def hold(count: int) -> None:
    enqueue_many(noop, [((-number,), {}) for number in range(1, count + 1)])


def fail(count: int) -> None:
    """Leave tasks as a worker does that has run out of attempts."""
    enqueue(count)
    with psycopg.connect(verbs.URL) as connection:
        connection.execute("UPDATE django_ox_oxtask SET status = 'FAILED', attempts = 3, finished_at = now()")


def retry(batch: int) -> float:
    with psycopg.connect(verbs.URL) as connection:
        rows = connection.execute("SELECT id FROM django_ox_oxtask WHERE status = 'FAILED' ORDER BY id").fetchall()
    start = time.perf_counter()
    for some in verbs.in_batches([job_id for (job_id,) in rows], batch):
        retry_many(list(some))
    return time.perf_counter() - start


verbs.answer(
    about=about, install=install, fill=enqueue, enqueue=enqueue, work=work, send=send, fail=fail, retry=retry,
    pour=pour, hold=hold,
)  # fmt: skip
