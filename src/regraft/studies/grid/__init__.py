"""Studies that are a grid over the options of ``regraft train``, written in YAML."""

from regraft.studies.grid.build import build
from regraft.studies.grid.cells import train
from regraft.studies.grid.plan import Plan, Point
from regraft.studies.grid.read import read_grid

__all__ = ["Plan", "Point", "build", "read_grid", "train"]
