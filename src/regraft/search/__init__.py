"""Search for the connections with the largest inner products: (rows, columns, k, exclude) -> positions."""

from regraft.search.exact import exact
from regraft.search.protocol import METRICS, Found, Metric, Search

__all__ = ["METRICS", "Found", "Metric", "Search", "exact"]
