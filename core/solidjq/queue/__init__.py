"""The queue: a job's way through its states, by Solid Queue's own moves of rows between its tables.

Each move is one function that runs in the caller's transaction: it locks the rows that it may still change, changes
those, and returns them. Read the files in this order:

- ``states``: the states and the moves between them, one table; docs/states.md is made from it.
- ``executions``: the table of each state, and inserts of ready, scheduled and blocked rows.
- ``refused``: rows that the database refuses alone, found by halves in savepoints.
- ``enqueue``: inserts new jobs.
- ``dispatch``: makes scheduled jobs ready when they are due.
- ``concurrency``: the limits: semaphores, and blocked jobs that wait for a slot.
- ``slot_maintenance``: expired semaphores, and slots that were lost.
- ``scan_start``: where a worker's scan for ready jobs begins while another transaction is held open.
- ``claim``: gives ready jobs to a worker.
- ``ready_rows``: the first ready rows, and other parts of the statements of a claim.
- ``claim_statements``: the statements of a claim, and which database executes which.
- ``turn_statements``: those of a worker's whole turn on MySQL.
- ``checkpoints``: writes the progress of running jobs, fenced by their claims.
- ``checkpoint_groups``: lets checkpoints of several jobs share a transaction.
- ``endings``: how a claim ends: finish, fail, release, all through one door.
- ``attempts``: moves in batches, of which the database may refuse some rows: they keep no others.
- ``discard``: deletes waiting jobs, or withdraws them from their queues.
- ``waiting``: runs waiting jobs now, postpones them, moves them to another queue.
- ``pauses``: pauses and resumes a queue.
- ``failed``: lists and selects failed jobs.
- ``failure_counts``: counts failed jobs by reason and queue, the newest one by one.
- ``recurring``: recurring tasks with their last run, and how many they missed.
- ``jobs``: finds jobs by id.
- ``listing``: lists and selects jobs in any state.
- ``keys``: concurrency keys with the jobs that hold their slots or wait for them.
- ``job_times``: how long the jobs of each class wait and run.
- ``overview``: the queues with their counts.
- ``patterns``: names with a star, as in ``mail*``.

Every room above may import this one, and so may ``registry`` and the command line. It imports ``rails``, ``database``
and the ground; never the ledger: a move works without a record of it.
"""
