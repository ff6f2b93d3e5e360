"""Selection: from what an operator names to the failed jobs that are meant, and why there may be none.

Read the files in this order:

- ``request``: what an operator asks for, and the one ``Filter`` that it becomes. Loads little: every list needs it.
- ``beginnings``: the beginning of an Active Job id becomes the whole id.
- ``lookups``: jobs, incidents and groups that were named become failures.
- ``explanations``: why a filter selects nothing: a name that does not exist, or the term that leaves nothing.
- ``job_explanations``: the same for jobs in any state.
- ``completions``: the values that a shell offers: ids, incidents, groups, queues, classes, hosts.

Only the command line imports this room. It imports ``diff``, ``incidents``, ``ledger``, ``queue``, ``rails``,
``database`` and the ground, and neither ``doctor`` nor ``recovery``.
"""
