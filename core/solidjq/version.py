"""The version, in a module of its own: a worker reads it without loading the public names."""

VERSION = "0.1.0"
