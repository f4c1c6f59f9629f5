"""The studies that regraft brings: one module for each group of tables and figures of a thesis."""

MODULES: dict[str, str] = {}
"""Name of a study to the module that holds it as a member of its ``STUDIES``; in reading order."""
