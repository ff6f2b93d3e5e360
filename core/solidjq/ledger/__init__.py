"""The ledger: what ``jq`` writes down beside Solid Queue's tables, about one file for each ``jq_`` table.

Read the files in this order:

- ``operations``: ``jq_operations``, one row for each command that changed jobs: who, when, why, how many.
- ``actors``: who acts, by the operating system and the environment.
- ``archive``: ``jq_failures``, each failure that left ``failed_executions``, with its whole job for an undo.
- ``positions``: where long jobs stood at their deaths.
- ``stop_requests``: rows of the archive that ask the worker of a running job to stop it.
- ``on_death``: the jobs that are enqueued because another died.
- ``crashes``: ``jq_crashes``, one row for each death that a job was in flight at.
- ``deaths``: ``jq_deaths``, each end of a process with its evidence.
- ``chain``: ``jq_chain``, the seals of operations that have ended.
- ``verification``: whether the record is as it was sealed.
- ``history``: one job's whole life, read from all of these.

``database.setup`` makes and migrates the tables. The ledger may be missing, or older than this program: readers work
without it, and writers ask ``operations.exists`` or call ``operations.require`` first.

``processes``, ``incidents``, ``runtime``, ``recovery``, ``diff``, ``doctor`` and the command line may import this room;
``queue`` never does. It imports ``queue``, ``rails``, ``database`` and the ground. A sample's format belongs to
``processes``, so ``crashes.note_runs`` takes runs that the caller has parsed.
"""
