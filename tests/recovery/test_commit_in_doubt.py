"""A connection that breaks between a COMMIT and its answer: nobody knows whether the batch was committed."""

import re
from collections import Counter
from itertools import count

import pytest

from solidjq import Database
from solidjq.database.tables import failures, operations
from solidjq.database.urls import url_text
from solidjq.queue.states import State
from support.deaths import die
from support.program import Shell
from support.proxies import proxied
from support.queue import add_jobs, plain_jobs, rows, state_of_each

COUNT, BATCH = 2_000, 200


@pytest.mark.only_on("postgresql", "mariadb")
@pytest.mark.parametrize("committed", [True, False])
def test_a_retry_whose_commits_are_in_doubt(database: Database, shell: Shell, *, committed: bool) -> None:
    """Of one run the first commit is in doubt, of the next the second, until a run has none left that could be."""
    ids = add_jobs(database, *plain_jobs(COUNT))
    die(database)
    amounts = []
    with proxied(database.url) as (proxy, url):
        # MySQL offers TLS, and the proxy looks for a COMMIT.
        plain = url.update_query_dict({"ssl_mode": "disabled"}) if url.get_backend_name() == "mysql" else url
        for number in count(1):
            proxy.lose_commit(number, committed=committed)
            done = shell.run("retry", "--safe", "--yes", "--batch", str(BATCH), url=url_text(plain))
            check_account(database, done.stderr)
            if not proxy.lost_commit:
                break
            assert done.returncode == 3 or "the record is not sealed yet" in done.stderr, done.stderr
            amounts.append(len(rows(database, failures)))
    assert len(set(amounts)) > 3
    assert done.returncode == 0, done.stderr
    assert state_of_each(database) == dict.fromkeys(ids, State.READY)


def check_account(database: Database, said: str) -> None:
    """What was archived is what the operations record and what the command says; and each job moved at most once."""
    archived = rows(database, failures)
    assert set(Counter(row["job_id"] for row in archived).values()) <= {1}
    by_operation = Counter(row["operation_id"] for row in archived)
    assert {row["id"]: row["jobs"] for row in rows(database, operations)} == by_operation
    if found := re.search(r"retried ([\d,]+) jobs? under operation (\d+)", said):
        assert by_operation[int(found[2])] == int(found[1].replace(",", ""))
