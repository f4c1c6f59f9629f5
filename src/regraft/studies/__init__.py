"""Studies: many trainings and merges in a row, and what came out of them."""

from regraft.studies.training import Recipe, Trained, train

__all__ = ["Recipe", "Trained", "train"]
