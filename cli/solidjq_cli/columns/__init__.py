"""The columns of each kind of row: a field has the same name in every command and every output.

- ``column``: what a ``Column`` is, and the ``Fields`` of a kind of row
- ``progress``: a job's arguments and how far it got, which several kinds print
- ``failures``, ``jobs``, ``processes``, ``queues``, ``verdicts``, ``waiting``, ``operations``, ``incidents``,
  ``suspects``, ``checks``, ``status``, ``settings``, ``messages``: a kind of row each

A function ``*_fields`` returns what scripts and details get, a function ``*_columns`` what a person gets in a list: the
columns that fit a terminal first, and the other fields behind them without a title, so that ``--sort`` takes the same
names in both. A command imports the file of the rows that it prints, and no other.
"""
