"""Shell completion scripts: the command tree as plain data, and one writer a shell that turns it into text.

- ``parts``: what the scripts of all shells share
- ``bash``, ``zsh``, ``fish``: a writer each
- ``script``: returns the script of a shell

Commands, options and choices are in the scripts. What only the database knows, such as ids, the scripts ask the
program for (``commands/complete.py``), and quote what it answers: names in a database are anybody's text.
"""
