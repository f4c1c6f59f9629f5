"""Who has which samples: uniform, by a Dirichlet distribution, or a few classes for each client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from regraft.data import Split
from regraft.errors import InputError, unknown


class Partition(Protocol):
    """``(labels, clients, generator) -> positions of each client's samples``, ascending; every sample belongs
    to one client, and every client has at least one."""

    def __call__(self, y: Tensor, clients: int, generator: torch.Generator) -> list[Tensor]: ...


@dataclass(frozen=True)
class IID:
    """Samples at random, as many for each client.

    >>> parts = IID()(torch.zeros(10, dtype=torch.int64), 3, torch.Generator().manual_seed(0))
    >>> [len(part) for part in parts]
    [4, 3, 3]
    """

    def __call__(self, y: Tensor, clients: int, generator: torch.Generator) -> list[Tensor]:
        """See ``Partition``."""
        _check_clients(y, clients)
        order = torch.randperm(len(y), generator=generator)
        return [part.sort().values for part in order.tensor_split(clients)]


@dataclass(frozen=True)
class Dirichlet:
    """The clients' shares of each class are drawn from a Dirichlet distribution (Hsu et al. 2019,
    arXiv:1909.06335, in the form of Li et al. 2022, arXiv:2102.02079, section 4.1).

    Attributes:
        alpha: concentration, positive: 0.1 gives most of a class to one or two clients, 100 is nearly IID.
        least: fewest samples of a client; drawn anew until all have them.

    Raises:
        InputError: alpha not positive; when called: no draw of 1000 gives every client enough.
    """

    alpha: float = 0.3
    least: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf") or self.least < 1:
            raise InputError(
                f"alpha is {self.alpha!r} and least {self.least!r}, but must be positive: 0.3 is usual"
            )

    def __call__(self, y: Tensor, clients: int, generator: torch.Generator) -> list[Tensor]:
        """See ``Partition``."""
        _check_clients(y, clients)
        least = min(self.least, len(y) // clients)
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed)
        sizes = torch.bincount(y).numpy()
        for _ in range(1000):
            shares = drawn.dirichlet(np.full(clients, self.alpha), size=len(sizes))
            ends = np.rint(shares.cumsum(1) * sizes[:, None]).astype(np.int64)
            counts = np.diff(ends, prepend=0, axis=1)
            if counts.sum(0).min() >= least:
                return _dealt(y, counts, generator)
        raise InputError(
            f"no draw of 1000 from Dirichlet({self.alpha:g}) gives each of {clients} clients {least} of "
            f"{len(y)} samples: take a larger alpha, fewer clients or more samples"
        )


@dataclass(frozen=True)
class ByClass:
    """Samples sorted by class, cut into ``clients * classes`` pieces, of which each client gets ``classes``
    at random (McMahan et al. 2017, arXiv:1602.05629, section 3): most clients see so many classes alone.

    >>> y = torch.arange(4).repeat_interleave(5)
    >>> parts = ByClass(1)(y, 4, torch.Generator().manual_seed(0))
    >>> sorted(y[part].unique().tolist() for part in parts)
    [[0], [1], [2], [3]]

    Raises:
        InputError: fewer than 1 class; when called: fewer samples than pieces.
    """

    classes: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 1:
            raise InputError(f"classes is {self.classes!r}, but must be a whole number of 1 or more")

    def __call__(self, y: Tensor, clients: int, generator: torch.Generator) -> list[Tensor]:
        """See ``Partition``."""
        _check_clients(y, clients)
        if clients * self.classes > len(y):
            raise InputError(
                f"{clients} clients of {self.classes} classes need {clients * self.classes} samples, but "
                f"there are {len(y)}: take fewer clients"
            )
        shuffled = torch.randperm(len(y), generator=generator)
        pieces = shuffled[torch.argsort(y[shuffled], stable=True)].tensor_split(clients * self.classes)
        dealt = torch.randperm(len(pieces), generator=generator).view(clients, self.classes)
        return [torch.cat([pieces[i] for i in own]).sort().values for own in dealt.tolist()]


def parse(text: str) -> Partition:
    """``iid``, ``dirichlet:ALPHA`` or ``classes:K`` as a partition.

    >>> parse("dirichlet:0.3"), parse("classes:2")
    (Dirichlet(alpha=0.3, least=10), ByClass(classes=2))

    Raises:
        InputError: another word, or a number that cannot be.
    """
    word, _, number = text.strip().lower().partition(":")
    if word not in ("iid", "dirichlet", "classes"):
        raise unknown("partition", word, ("iid", "dirichlet", "classes"))
    if word == "iid" and not number:
        return IID()
    if word == "dirichlet" and re.fullmatch(r"\d*\.?\d+(e-?\d+)?|", number):
        return Dirichlet(float(number)) if number else Dirichlet()
    if word == "classes" and re.fullmatch(r"\d*", number):
        return ByClass(int(number)) if number else ByClass()
    raise InputError(
        f"the partition is {text!r}, but must be 'iid', 'dirichlet:ALPHA' (as in dirichlet:0.3) or "
        "'classes:K' (as in classes:2)"
    )


def partitioned(split: Split, partition: Partition, clients: int, generator: torch.Generator) -> list[Split]:
    """Each client's samples.

    Raises:
        InputError: more clients than samples, or a client without any.
    """
    parts = partition(split.y.cpu(), clients, generator)
    for number, part in enumerate(parts):
        if not len(part):
            raise InputError(
                f"client {number} of {clients} has no sample: take fewer clients, more samples or another "
                "partition"
            )
    return [split.select(part) for part in parts]


def _dealt(y: Tensor, counts: np.typing.NDArray[np.int64], generator: torch.Generator) -> list[Tensor]:
    """``counts[c, i]`` random samples of class c for client i."""
    own: list[list[Tensor]] = [[] for _ in range(counts.shape[1])]
    for label, row in enumerate(counts):
        members = (y == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        for client, piece in enumerate(torch.split(members, row.tolist())):
            own[client].append(piece)
    return [torch.cat(pieces).sort().values for pieces in own]


def _check_clients(y: Sequence[int] | Tensor, clients: int) -> None:
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
        raise InputError(f"clients is {clients!r}, but must be a whole number of 1 or more")
    if clients > len(y):
        raise InputError(
            f"{clients} clients are more than the {len(y)} samples: take {len(y)} clients or fewer"
        )
