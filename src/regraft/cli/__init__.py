"""The command line: thin adapters over the Python functions."""

from regraft.cli.app import main

__all__ = ["main"]
