"""A process's life: registered, beating, silent, pruned; and what it leaves behind.

Read the files in this order:

- ``heartbeat``: register, heartbeat, deregister; the registered processes and how old their heartbeats are.
- ``samples``: the last sample that a process wrote into its row.
- ``pids``: whether the process of a row still runs on this host, or another has its pid.
- ``attendance``: the living workers and their queues, a living dispatcher, paused queues: whether a job would wait, and
  whose workers a killer in a queue would kill.
- ``queue_names``: the queues that exist: those that jobs, workers, pauses or recurring tasks name.
- ``local_time``: heartbeats that a Rails application writes in its own zone instead of UTC.
- ``survivors``: how many processes still beat when one fell silent, and how many fell silent too.
- ``prune_guard``: whether processes that look dead are dead, or only cut off from the database.
- ``pruning``: fail the jobs of dead processes and orphaned claims, write the deaths, remove the rows.
- ``prune_sequence``: a whole prune, as the command line and the supervisor both carry it out.

``runtime``, ``incidents``, ``recovery``, ``diff``, ``doctor`` and the command line may import this room. It imports
``ledger``, ``queue``, ``rails``, ``database`` and the ground, never ``incidents``: a prune asks who is dead, not why.
"""
