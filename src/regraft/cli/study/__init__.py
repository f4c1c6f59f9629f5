"""``regraft study``: list, run, report and query studies."""

from regraft.cli.study.group import command

__all__ = ["command"]
