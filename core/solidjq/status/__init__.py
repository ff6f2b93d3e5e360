"""Status: how a queue is doing, in a few numbers that an operator reads first.

Read the files in this order:

- ``report``: the numbers, each read within about a second however many jobs have failed.

Only the command line imports this room. It imports ``recovery``, ``diff``, ``incidents``, ``processes``, ``ledger``,
``queue``, ``rails``, ``database`` and the ground, and not ``doctor``.
"""
