"""``jq top``: a live screen of a queue. Only the command ``top`` loads it, and with it Textual.

It has no queries and no rules of its own. What it shows, and what it does, are command lines of ``jq``, which it runs
within itself: so a list, a detail, a plan and its question are those of the command, and the record has its words.

- ``inner``: runs a command line and keeps what it prints
- ``lists``: which command lines there are: the lists, what opens a row, what is done to marked rows
- ``keys``: the keys, what each does and where
- ``painting``: lines with colours as Textual draws them, and what of them fits
- ``polling``: the thread that reads
- ``acting``: the thread that acts, and the screen that shows the plan and asks
- ``pane``: the list: its rows, marks and filter
- ``screens``: a detail, the list of keys
- ``style``: how they look
- ``app``: the program
"""
