"""Time for what is only said beside an answer: on a busy machine a second may be over before the database has answered.

What a command prints would then depend on the machine, as what it leaves out is no error.
"""

from solidjq.database import other_queues, transactions

SECONDS = 15.0


def give_time() -> None:
    """Give what this process says beside an answer more time than a user would wait. Call it before other imports."""
    transactions.GLANCE = SECONDS
    other_queues.PATIENCE = SECONDS
    other_queues.CONNECT_TIMEOUT = int(SECONDS)
    other_queues.STATEMENT_TIMEOUT = int(1000 * SECONDS)
