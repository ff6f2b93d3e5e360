"""Settings: ``jq.toml``, the retry policy of each job class and the named databases.

Read the files in this order:

- ``file``: where ``jq.toml`` is searched for, how it is read, and the error messages for what is wrong in it.
- ``policy``: ``[default]`` and ``[classes]``, merged with ``@job``: which jobs may be retried, how often, where to.
- ``profiles``: ``[profiles]``, databases by name.

Every room but ``database`` may import this one; in practice ``registry``, ``recovery`` and the command line do. It
imports nothing but the ground.
"""
