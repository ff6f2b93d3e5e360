"""What every test may use; the fixtures are plugins, each beside what it gives."""

import gc
import os
import signal
from collections.abc import Iterator

import compiled_statements
import hypothesis
import pytest
import unhurried

pytest.register_assert_rewrite("support")
pytest_plugins = [
    "support.databases",
    "support.standbys",
    "support.poolers",
    "support.program",
    "support.screen",
    "support.top",
    "support.runtime",
    "support.receiver",
    "support.worker",
    "support.skips",
    "support.groups",
]

# How long an example takes, or making it, says nothing where other processes run.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")
compiled_statements.share()
unhurried.give_time()
# The tests start the program thousands of times; where this is set, each start would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# For each connection to MariaDB, pymysql reads the machine's certificate authorities: 65 ms, and nothing is verified.
os.environ["SSL_CERT_FILE"] = os.devnull
# Started in the background of a script they would ignore Ctrl-C, by nohup the end of the terminal, and so would each
# program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# What is imported and collected stays, and is no garbage: to look for some there took a tenth of the tests' work.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the program has it
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what takes longest and mostly waits: at the end the other processes would idle beside it."""
    items.sort(key=lambda item: item.path.parent.name not in {"whole", "chaos", "runtime", "processes"})


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: two more than there are cores, since tests mostly wait for other processes; from four to eight."""
    return max(4, min((os.cpu_count() or 1) + 2, 8))


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    """A test that leaves a handler of a signal behind fails, not a later one that sends itself a Ctrl-C."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    changed = {number: found for number in before if (found := signal.getsignal(number)) != before[number]}
    for number in changed:
        signal.signal(number, before[number])
    descriptor = signal.set_wakeup_fd(-1)
    assert (changed, descriptor) == ({}, -1), "handlers of signals, or the file that hears of them, are not as before"
