"""Huey on SQLite, with its consumer's threads."""

import time

from huey import SqliteHuey

import marks
import verbs

huey = SqliteHuey(filename=verbs.URL)


@huey.task()
def noop(sent: float) -> None:
    marks.note(sent)


def about() -> dict[str, object]:
    return {
        **verbs.versions("huey"),
        "done": "SELECT NOT EXISTS (SELECT 1 FROM task)",
        "enqueue": [["one at a time", {}]],
        "drain": [["workers=10", {"workers": 10}], ["workers=1 (default)", {"workers": 1}]],
        "retry": "keeps no failed jobs",
        "latency": [],
        "one_by_one": True,
    }


def enqueue(count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        noop(0)
    return time.perf_counter() - start


def work(workers: int) -> None:
    huey.create_consumer(workers=workers).run()


verbs.answer(about=about, install=lambda: None, fill=enqueue, enqueue=enqueue, work=work)
