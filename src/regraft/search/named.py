"""Searches by name, for the command line."""

from __future__ import annotations

from regraft.errors import InputError, unknown
from regraft.search.indexes import Faiss, Hnswlib, Nmslib
from regraft.search.lsh import Lsh
from regraft.search.norm_ordered import exact
from regraft.search.protocol import Search
from regraft.search.rounded import Bfloat16
from regraft.search.svd import Svd

NEIGHBOURS: dict[str, type[Faiss | Hnswlib | Nmslib | Lsh]] = {
    "faiss": Faiss,
    "hnswlib": Hnswlib,
    "nmslib": Nmslib,
    "lsh": Lsh,
}
SEARCHES: dict[str, Search] = {
    "exact": exact,
    "bfloat16": Bfloat16(),
    "svd": Svd(),
    **{name: kind() for name, kind in NEIGHBOURS.items()},
}


def by_name(name: str, k_similar: float | None = None) -> Search:
    """The search called ``name``, or an error with the nearest names.

    Args:
        name: ``"exact"``, ``"bfloat16"``, ``"svd"``, ``"faiss"``, ``"hnswlib"``, ``"nmslib"`` or ``"lsh"``.
        k_similar: neighbours for each row, as a fraction of the columns in (0, 1]; only for the last four.

    >>> by_name("exact") is exact
    True
    >>> by_name("lsh", 0.2)
    Lsh(bits=1.0, k_similar=0.2, weighted=False, seed=0)

    Raises:
        InputError: an unknown name; ``k_similar`` out of range, or given to a search that has none.
    """
    if name not in SEARCHES:
        raise unknown("search", name, SEARCHES)
    if k_similar is None:
        return SEARCHES[name]
    if name not in NEIGHBOURS:
        raise InputError(
            f"k_similar is {k_similar!r}, but the search {name!r} does not ask for neighbours: leave "
            f"k_similar out or take one of {', '.join(NEIGHBOURS)}"
        )
    return NEIGHBOURS[name](k_similar=k_similar)
