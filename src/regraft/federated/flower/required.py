"""Flower itself, or one sentence that says how to install it; imported before all that needs it."""

from regraft.errors import MissingDependency

try:
    import flwr
except ImportError as error:
    raise MissingDependency("flwr", "federated", "Flower") from error

VERSION: str = flwr.__version__
"""Flower's version."""
