"""The warning for layers that a pruning left without connections."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

_REMEDY = "keep some in each with floor=, choose scope='layer', or prune in more shots"


class LayerCollapseWarning(UserWarning):
    """Pruning cut the network: a layer has no connection left, or all scores became equal on the way."""


def warn_of_dead(dead: Iterable[str], density: float, tied_since: int | None = None) -> None:
    """Warn of the layers that died, and of a choice that was random because all scores were equal."""
    names = ", ".join(f"'{name}'" for name in dead)
    random = (
        ""
        if tied_since is None
        else f"; from shot {tied_since} on all scores were equal, and the choice was by the tie rule alone"
    )
    if names:
        text = f"no connection is left at density {density:g} in {names}{random}: {_REMEDY}"
    elif random:
        text = f"pruning to density {density:g} cut the network{random}: {_REMEDY}"
    else:
        return
    warnings.warn(text, LayerCollapseWarning, stacklevel=3)
