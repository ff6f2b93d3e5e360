"""The doctor: what is wrong with a queue, and how to fix it. Behind ``jq doctor``.

In reading order:

- ``examine``: the table of all checks, and the sequence: choose checks, make them, confirm, fix;
- ``checks``: what a check and a finding are, and what several checks share;
- ``jobs``: jobs in no state or in two, orphaned and endless claims, jobs that failed or died;
- ``slots``: concurrency limits: leaked slots, expired semaphores, jobs blocked although a slot is free, hot keys;
- ``batches``: batches of Solid Queue 1.7 that stand still;
- ``fleet``: processes that are dead or missing, clocks, heartbeats, paused queues;
- ``local_units``: what this host's systemd and kernel grant a process;
- ``shutdown``: whether processes get the time to stop that they need;
- ``application``: whether the Rails application's configuration fits the queue;
- ``code``: classes that jobs name and no code defines, handlers of errors that no job raises;
- ``storage``: tables and indexes, and the list of the checks in the next three files;
- ``postgresql``, ``mysql``, ``sqlite``: what only one kind of database can be asked.

Only the command line may import this room. A new check is a ``DoctorCheck`` in the ``CHECKS`` of its subject's file.
"""
