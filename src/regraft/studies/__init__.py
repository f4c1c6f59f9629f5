"""Studies: many trainings and merges in a row, and what came out of them."""

from regraft.studies.claims import Number, Order
from regraft.studies.merging import Merged, merge_by_all_rules
from regraft.studies.networks import Network, train_network
from regraft.studies.study import Cell, Outcome, Preset, Result, Rows, Step, Study, Work, step

__all__ = [
    "Cell", "Merged", "Network", "Number", "Order", "Outcome", "Preset", "Result", "Rows", "Step", "Study",
    "Work", "merge_by_all_rules", "step", "train_network",
]  # fmt: skip
