"""Settings: ``jq.toml``, the retry policy of each job class, promises of each queue and the named databases.

Read the files in this order:

- ``file``: how ``jq.toml`` is read, and the error messages for what is wrong in it.
- ``trust``: the files that the user trusts, by path and content.
- ``sources``: which files count, and for what: a file that is merely found never loosens and names no database.
- ``policy``: ``[default]`` and ``[classes]``, merged with ``@job``: which jobs may be retried, how often, where to.
- ``masks``: ``mask``, names of arguments whose values are not shown.
- ``promises``: ``[queues]`` and ``[workers]``: how long jobs may wait, how many workers there should be.
- ``password_command``: a program of the user's that prints a database's password.
- ``profiles``: ``[profiles]``, databases by name.

Every room but ``database`` may import this one; in practice ``registry``, ``recovery`` and the command line do. It
imports nothing but the ground.
"""
