"""The Python runtime: ``jq work``, the processes that run jobs on Solid Queue's tables.

In reading order:

- ``config``: the settings of a supervisor, and the line of JSON that it sends to each child;
- ``supervisor``: keeps the children running, prunes dead processes, stops everything in order;
- ``children``: one child as its parent sees it: start, reap, collect the evidence of its death;
- ``child_deaths``: writes a child's death to the database;
- ``__main__``: the program of a child, ``python -m solidjq.runtime``;
- ``child``: what every child does: register, work in steps, stop, deregister;
- ``reachable``: waits for a database that is away when a process starts;
- ``worker``, ``dispatcher``: the two kinds of child;
- ``listener``: wakes a worker when jobs are ready, and decides how often it polls;
- ``unrecorded``: the endings that a worker has not committed yet, and those that the database refuses;
- ``contact``: how long the last heartbeat is ago, and what a worker may still do;
- ``performing``, ``eventloop``: run one job, an ``async def`` job on the event loop;
- ``stop_requests``: which of a worker's jobs an operator asked to stop;
- ``last_words``: the stack that a crash leaves, and which job thread's it is;
- ``hands``: which claims a worker holds and which jobs it has begun, in a file that outlives it;
- ``registration``, ``sampler``: a process's row, its heartbeat, and the sample that each heartbeat leaves there;
- ``alive_file``: the file that a liveness probe reads;
- ``wakeup``, ``backoff``, ``logs``: sleep that ends early, delays between attempts, log lines on stderr.

Only the command line's ``work`` may import this room: whatever else needs a process's row reads it through
``processes``.
"""
