"""Data sets: read, split, chosen, standardised and held as one tensor; batches by index."""

from regraft.data.balanced import balanced_batch
from regraft.data.catalogue import load, names
from regraft.data.loader import Loader
from regraft.data.paths import data_dir
from regraft.data.scale import Scaling
from regraft.data.split import Data, Split
from regraft.data.torchset import from_dataset

__all__ = [
    "Data", "Loader", "Scaling", "Split", "balanced_batch", "data_dir", "from_dataset", "load", "names",
]  # fmt: skip
