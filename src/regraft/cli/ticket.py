"""A network file as ``regraft compare`` sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft import checkpoint, diagnose, models
from regraft.diagnose import Connectivity, Distribution
from regraft.errors import InputError, RegraftError
from regraft.files import Header
from regraft.topology import Topology
from regraft.train import seeds
from regraft.weight import SparseWeight

WHOLE = "whole"


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the networks.

    Attributes:
        values: of each weight, as the file has them.
    """

    path: Path
    header: Header
    model: nn.Module
    topology: Topology
    values: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Compared:
        """The network of a file.

        Raises:
            FileError: the file cannot be read, or holds a model that regraft cannot build.
            InputError: the network is dense.
        """
        header = checkpoint.read_header(path)
        if not header.shapes:
            raise InputError(f"'{path}' has no sparse weight: the topology of a dense network is all of it")
        model = checkpoint.load(path)
        weights = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
        values = {n: w.values.detach() for n, w in weights.items()}
        return cls(path, header, model, Topology.of(model), values)

    @cached_property
    def paths(self) -> Connectivity | None:
        """Which connections are effective; None where the shape of a sample is not known."""
        data = self.header.provenance.get("data")
        shape = data.get("input_shape") if isinstance(data, dict) else None
        known = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
        try:
            return diagnose.connectivity(self.model, shape if known else None)
        except RegraftError:
            return None

    @cached_property
    def initial(self) -> Mapping[str, Tensor] | None:
        """What the connections were drawn as; None where the file does not say how."""
        options = self._drawn()
        if options is None or self.header.model is None:
            return None
        generator = seeds.stream(options["seed"], "init")
        init = (options["init"] or ["he"])[0]
        try:
            dense = models.build(self.header.model, init=init, generator=generator)
            return diagnose.kept_values(dense, self.topology)
        except RegraftError:
            return None

    def _drawn(self) -> dict[str, Any] | None:
        """The options of the ``regraft prune`` that drew the network's values, without scores as weights."""
        found: Any = self.header.provenance
        while isinstance(found, dict) and isinstance(found.get("parents"), list) and found["parents"]:
            parent = found["parents"][0]
            found = parent.get("provenance") if isinstance(parent, dict) else None
        if not isinstance(found, dict) or found.get("made_by") != "regraft prune":
            return None
        options = found.get("options")
        if not isinstance(options, dict) or type(options.get("seed")) is not int:
            return None
        init = options.get("init")
        drawn = isinstance(init, list) and all(name in models.INITS for name in init)
        return options if drawn and options.get("control") is None else None

    @property
    def untrained(self) -> bool:
        """Whether the file has the initial values themselves."""
        return self.initial is not None and all(
            torch.equal(values, self.initial[name]) for name, values in self.values.items()
        )

    def sets(self) -> dict[str, Mapping[str, Tensor]]:
        """The sets of values that are known: what they are -> weight name -> values."""
        if self.initial is None:
            return {"stored": self.values}
        return {"initial": self.values} if self.untrained else {"initial": self.initial, "final": self.values}

    def faults(self) -> tuple[str, ...]:
        """What died."""
        return () if self.paths is None else self.paths.faults()

    def plain(self, bins: int) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path), "density": self.topology.density, "kept": self.topology.nnz,
            "connectivity": None if self.paths is None else self.paths.plain(),
            "warnings": list(self.faults()),
            "weights": {
                kind: {name: d.plain() for name, d in distributions(values, bins).items()}
                for kind, values in self.sets().items()
            },
        }  # fmt: skip


def distributions(values: Mapping[str, Tensor], bins: int) -> dict[str, Distribution]:
    """Of all weights together, under ``WHOLE``, and of each."""
    every = {WHOLE: torch.cat([v.flatten() for v in values.values()]), **values}
    return {name: diagnose.distribution(v, bins=bins) for name, v in every.items()}
