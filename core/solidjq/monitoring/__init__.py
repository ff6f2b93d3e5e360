"""Monitoring: what a monitor asks, answered as checks with a level and as metrics. Behind ``jq check``, ``jq metrics``.

In reading order:

- ``levels``: OK, warning, critical and unknown; ranges, and what one check reports;
- ``checks``: the checks of a queue, each a few statements with a time limit;
- ``alive_file``: whether ``jq work`` lives, by the file that it touches; asks no database;
- ``idle``: waits until no job of a queue runs;
- ``families``: what a metric is;
- ``scrape``: the metrics of a queue, read within about a second however many jobs have failed;
- ``exposition``: metrics as the text that Prometheus reads.

Only the command line imports this room. It imports ``incidents``, ``processes``, ``ledger``, ``queue``, ``rails``,
``database``, ``settings`` and the ground. ``levels``, ``alive_file``, ``families`` and ``exposition`` load no
SQLAlchemy.
"""
