"""Diff: telling failures apart. Which fail the same way, what is new since a deploy, how two jobs differ.

Read the files in this order:

- ``signatures``: an error without what varies, which names its group. Pure functions over text.
- ``folding``: signatures whose messages differ in one word become one.
- ``failure_groups``: a group with its counts.
- ``pages``: pages of failures, those with equal errors as one row that the database counts.
- ``groups``: failures grouped by signature.
- ``windows``: two spans of time compared: groups that are new, gone, grown or shrunk.
- ``sides``: two jobs, groups or incidents compared field by field.
- ``contrast``: traits that failed jobs have more often than finished jobs.

Only the command line imports this room. It imports ``incidents``, ``ledger``, ``queue``, ``rails``, ``processes``,
``database`` and the ground, and neither ``doctor`` nor ``recovery``.
"""
