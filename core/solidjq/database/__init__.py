"""The database: from a URL to a transaction, and what PostgreSQL, MySQL, MariaDB and SQLite each spell differently.

No file outside this room asks which database it speaks to, except ``doctor``'s storage checks. The files are cut by
topic: how three databases write a time is read in one place. Read them in this order:

- ``url_options``: the options of a URL: which are passed on, ignored or refused on each database.
- ``urls``: parses what an operator or Rails writes into a URL.
- ``opening``: opens the database that an argument or the environment names.
- ``transactions``: ``Database``, the only place where a transaction begins and drivers' errors become ours.
- ``place``: where a connection leads, for a person: the database, its server, whether it may write.
- ``product``: which product and version answers, and from which Solid Queue its tables are.
- ``standby``: whether the server is a standby, and how far behind.
- ``other_queues``: the queues on the same server or beside the same file, for an error about a database without one.
- ``poolers``: whether a PostgreSQL session is the connection's own or a pooler's, and the schema that statements name.
- ``engines``: connections, isolation, read-only, time limits.
- ``sessions``: what every connection sets first: UTC, strict mode, the encoding.
- ``first_look``: what a new connection is asked before its first statement, in one round trip.
- ``quiet_postgresql``, ``quiet_mysql``: SQLAlchemy's dialects, without the questions that they ask a new server.
- ``encodings``: PostgreSQL databases that are not in UTF-8.
- ``option_files``: checks a MySQL option file that a URL names, such as ``~/.my.cnf``.
- ``tls``: MySQL's ``ssl_mode``, and whether a connection is encrypted.
- ``answers``: how long a connection waits for its server, and how it notices that the server has vanished.
- ``blockers``: who holds the lock that a statement waits for.
- ``keys``: refuses a queue whose ids are not integers.
- ``faults``: what a driver's error code means.
- ``tables``: every table as SQLAlchemy knows it, Solid Queue's and ours.
- ``presence``: which of our tables are there.
- ``any_types``: column types that read whatever SQLite stores in any column.
- ``times``: column types of times, and the database's clock in SQL.
- ``among``: the condition that a column has one of many values.
- ``functions``: functions of SQL that differ.
- ``inserts``: inserts of many rows, or of new ones only.
- ``statements``: what a write returns, and other statements that differ.
- ``grouping``: parts of statements that group rows: ids as a list, texts compared exactly.
- ``digests``: SHA-256 of rows, made by the database.
- ``hot``: ``@hot``, for statements that run every few milliseconds; they are listed in docs/sql.md.
- ``deletions``: deletions of rows by their ids, which lock no other row.
- ``duplicates``: rows that must be unique and are not.
- ``notices``: PostgreSQL's NOTIFY, which wakes workers.
- ``unknown_columns``: columns of a later Solid Queue or of the application, stored and restored as texts.
- ``text_columns``: how long the texts of a MySQL column may be, and in which character set.
- ``setup``: ``jq init``, the tables and their migrations.
- ``indexes``: the indexes that are missing, created while the queue is in use.
- ``grants``: the least rights that a role needs, as SQL for an administrator.
- ``owners``: who owns our tables and functions, whose code runs with the rights of whoever writes to them.
- ``creators``: which other roles may make objects beside the queue's tables.

Every room except ``settings`` may import this one, and so may ``registry`` and the command line. It imports only the
ground.
"""
