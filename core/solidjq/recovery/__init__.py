"""Recovery: getting the jobs of dead processes back to work, under a limit, and taking that back if it was wrong.

Read the files in this order:

- ``terms``: which failures a retry takes, what it may move, and where to.
- ``verdicts``: may this failed job move, and if not, why. Pure functions over a ``Candidate`` and the ``RetryTerms``.
- ``candidates``: reads the facts that a verdict rests on; groups failures that get the same verdict.
- ``details``: which job each decision is on, once groups were decided on.
- ``put_back``: carries decisions out: archives the failures, and puts their jobs back to work or deletes them.
- ``planned``: the failures of a plan, and whether each may still move as planned.
- ``run``: one batch of a retry: locks its failures, decides, and moves what may move.
- ``refusals``: jobs that the database refuses to move are found by halves, named, and keep no others.
- ``rests``: between batches, the database is left to workers that claim jobs.
- ``retry``: a retry, from a selection to its last batch; a dry run makes the same decisions and moves nothing.
- ``waiting``: discards, runs now, postpones or moves jobs that wait.
- ``stopping``: asks running jobs to stop.
- ``plans``: the file of a plan, written by a dry run: its format, checksum and signature.
- ``apply``: carries a plan out exactly as written.
- ``fates``: which of the jobs that an operation put back to work died again.
- ``canary``: a few retried jobs first; the rest follow if none of them dies.
- ``bisect``: finds the job that kills its process by retrying halves of the suspects in quarantine.
- ``manners``: whether the deaths of a bisect match those of its incident.
- ``restore``: puts the jobs of one batch back as they are in the archive.
- ``undo``: takes back what moved jobs, batch by batch.
- ``outcome``: what became of the jobs that an operation put back to work.
- ``aftermath``: what became of the jobs of an incident, and which operations moved them.
- ``dossiers``: all that is known about a failed job: its death, its crashes, the verdict on it, its life.

Only the command line imports this room. It imports ``incidents``, ``ledger``, ``queue``, ``rails``, ``processes``,
``settings``, ``database`` and the ground, and neither ``doctor`` nor ``diff``.
"""
