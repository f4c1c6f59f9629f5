"""Search for the connections with the largest inner products: (rows, columns, k, exclude) -> positions."""

from regraft.search.indexes import Faiss, Hnswlib, Nmslib
from regraft.search.lsh import Lsh
from regraft.search.named import SEARCHES, by_name
from regraft.search.norm_ordered import exact
from regraft.search.protocol import METRICS, Found, Metric, Search
from regraft.search.quality import recall
from regraft.search.rounded import Bfloat16
from regraft.search.svd import Svd

__all__ = [
    "METRICS",
    "SEARCHES",
    "Bfloat16",
    "Faiss",
    "Found",
    "Hnswlib",
    "Lsh",
    "Metric",
    "Nmslib",
    "Search",
    "Svd",
    "by_name",
    "exact",
    "recall",
]
