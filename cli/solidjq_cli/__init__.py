"""The command line of solidjq: parse, one call into the core, render."""
