"""``EvolutionStep``: what one update of ``Evolve`` did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvolutionStep:
    """What one update did.

    Attributes:
        step: optimizer steps done when it happened.
        update: number of updates before it.
        rate: fraction of connections dropped.
        dropped: connections dropped, by weight name; as many were grown.
        regrown: how many of the grown ones had just been dropped, by weight name.
        explored: share of all positions that were ever active, where ``Evolve`` remembers them, else None.
    """

    step: int
    update: int
    rate: float
    dropped: dict[str, int]
    regrown: dict[str, int]
    explored: float | None = None

    @property
    def regrowth(self) -> float:
        """Share of the dropped connections that grew back at once; 0 where none was dropped."""
        return sum(self.regrown.values()) / self.total if self.total else 0.0

    @property
    def grown(self) -> dict[str, int]:
        """Connections grown, by weight name: as many as were dropped."""
        return dict(self.dropped)

    @property
    def total(self) -> int:
        """Connections replaced in all."""
        return sum(self.dropped.values())

    def figures(self) -> dict[str, float]:
        """``rate``, ``dropped``, ``grown`` and ``regrown`` over all weights, and ``explored`` if known."""
        counts = {"dropped": self.total, "grown": self.total, "regrown": sum(self.regrown.values())}
        return {"rate": self.rate, **counts} | ({} if self.explored is None else {"explored": self.explored})
