"""jq_failures: a failure that left its table says which operation moved it, and why."""

from solidjq import Database
from solidjq.database.tables import failures, operations
from solidjq.ledger.operations import Operation
from support.deaths import die
from support.queue import add_jobs, plain_jobs, rows
from support.recovery import retry_jobs


def test_the_archive_says_which_operation_and_why(database: Database) -> None:
    (job_id,) = add_jobs(database, *plain_jobs(1))
    die(database)
    operation = Operation("retry", command="jq retry --safe", reason="INC-7", chosen={"safe": True})
    retry_jobs(database, [job_id], operation, safe=True)
    (kept,) = rows(database, operations)
    assert kept["id"] == operation.id
    assert (kept["reason"], kept["filter"], kept["verdicts"]) == ("INC-7", '{"safe":true}', '{"retry":1}')
    (archived,) = rows(database, failures)
    assert (archived["operation_id"], archived["restored_by"]) == (operation.id, None)
