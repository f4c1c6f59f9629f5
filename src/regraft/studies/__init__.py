"""Studies: many trainings and merges in a row, and what came out of them."""

from regraft.studies.merging import Merged, merge_by_all_rules
from regraft.studies.networks import Network, train_network

__all__ = ["Merged", "Network", "merge_by_all_rules", "train_network"]
