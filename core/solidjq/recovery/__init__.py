"""Recovery: getting the jobs of dead processes back to work, under a limit, and taking that back if it was wrong.

Read the files in this order:

- ``terms``: what one retry may move, and where to.
- ``verdicts``: may this failed job move, and if not, why. Pure functions over a ``Candidate`` and the ``RetryTerms``.
- ``candidates``: reads the facts that a verdict rests on; groups failures that get the same verdict.
- ``put_back``: carries decisions out: archives the failures, and puts their jobs back to work or deletes them.
- ``retry``: a retry, from a selection to its last batch; a dry run makes the same decisions and moves nothing.
- ``plans``: a dry run written to a file, and carried out later exactly as written.
- ``canary``: a few retried jobs first; the rest follow if none of them dies.
- ``bisect``: finds the job that kills its process by retrying halves of the suspects in quarantine.
- ``undo``: takes a retry or a discard back.
- ``outcome``: what became of the jobs that an operation put back to work.

Only the command line imports this room. It imports ``incidents``, ``ledger``, ``queue``, ``rails``, ``processes``,
``settings``, ``database`` and the ground, and neither ``doctor`` nor ``diff``.
"""
