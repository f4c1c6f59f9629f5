"""The version of regraft, where anybody may import it from."""

__version__ = "0.1.0"
