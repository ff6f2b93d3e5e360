"""The version of this program: its own module, so that a worker need not load the public names to tell it."""

VERSION = "0.1.0"
