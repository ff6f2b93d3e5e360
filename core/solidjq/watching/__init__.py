"""Watching, behind ``jq watch``: reports each silence, death, incident and failure group once, to people and programs.

In reading order:

- ``typed``: dataclasses from JSON that a person may have edited;
- ``id_windows``: which rows of a table are new, although they may commit out of the order of their ids;
- ``position``: how far a watch has read, what it has reported, and what it still has to deliver;
- ``position_file``: the file of a position, and the notes of what was delivered since it was written;
- ``news``: reads the rows that are new, by primary key;
- ``recent_deaths``: the recorded deaths of the last minutes, each read once;
- ``silence``: which processes have fallen silent, before anybody prunes them;
- ``events``: what the new rows mean: deaths with their jobs, incidents, failure groups; and silences with theirs;
- ``messages``: an event as one JSON object, with an id by which a receiver recognises a repetition;
- ``cooldowns``: one message a host, incident or group; the later ones are counted;
- ``slack``: a message in the form that Slack takes;
- ``outcomes``: what became of one attempt to deliver a message;
- ``webhooks``: posts a message, signed, and says whether to try again;
- ``programs``: runs a command with a message on its standard input;
- ``deliveries``: delivers what the position holds, each target in a thread of its own, with back-off;
- ``watch``: the loop: read, report, keep the position.

Only the command line imports this room. It imports ``diff``, ``incidents``, ``processes``, ``ledger``, ``queue``,
``rails``, ``database`` and the ground. ``slack``, ``outcomes``, ``webhooks`` and ``programs``
load no SQLAlchemy.
"""
