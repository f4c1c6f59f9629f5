"""What a node makes of its own network and those that have arrived."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping

from torch import nn

from regraft.federated.update import Update
from regraft.merging import Merger
from regraft.merging.align import Align
from regraft.merging.align.named import by_name as align_by_name
from regraft.merging.keep import Density
from regraft.train import seeds


def merge_arrivals(
    model: nn.Module,
    arrived: Mapping[int, tuple[int, Update]],
    degree: int,
    *,
    density: Density = "keep",
    align: str | Align | None = None,
    seed: int = 0,
) -> nn.Module:
    """The average of a node's network and those that have arrived, cut down to the density.

    With d_i the number of neighbours of node i, the network of node j weighs 1 / (1 + max(d_i, d_j)), and the
    node's own takes the rest (Metropolis weights, Xiao et al. 2005, equation 9). No node then gives more than
    it gets, so that all nodes are represented equally in what they converge to, whatever their number of
    neighbours; the share of a lost letter stays with the receiver, which is fair where letters are lost both
    ways alike. Where all have as many neighbours, all weights are equal, as the merger's counts are.

    Args:
        model: the node's own network; it is not changed.
        arrived: by sender, how many neighbours it had and what it sent.
        degree: neighbours of the node in this round.
        density, align: as for ``merge``.
        seed: of alignment.

    >>> from regraft import sparsify
    >>> import torch
    >>> a, b = (sparsify(nn.Sequential(nn.Linear(4, 1)), density=1.0) for _ in range(2))
    >>> merged = merge_arrivals(a, {1: (1, Update.of(b, round=0, client="1", examples=1))}, 1)
    >>> x = torch.eye(4)
    >>> torch.allclose(merged(x), (a(x) + b(x)) / 2, atol=1e-6)
    True

    Raises:
        MismatchError: a network of another architecture.
        InputError: NaN or infinite weights.
    """
    if not arrived:
        return copy.deepcopy(model)
    # a letter that comes late may be of a node that is no neighbour now
    heard = max(degree, len(arrived))
    parts = {sender: 1 + max(heard, theirs) for sender, (theirs, _) in arrived.items()}
    whole = math.lcm(*parts.values())
    weights = {sender: whole // part for sender, part in parts.items()}
    shares = [whole - sum(weights.values()), *(weights[sender] for sender in sorted(arrived))]
    received = (arrived[sender][1].put(copy.deepcopy(model)) for sender in sorted(arrived))
    networks: Iterable[nn.Module] = itertools.chain([model], received)
    if align is not None:
        networks = align_by_name(align)(list(networks), generator=seeds.stream(seed, "alignment"))
    merger = Merger("average", "average")
    for network, share in zip(networks, shares, strict=True):
        merger.add(network, weight=share)
    return merger.result(density)


def mean_of(models: Iterable[nn.Module], density: Density = "keep") -> nn.Module:
    """The average of networks that all count alike, cut down to the density.

    >>> from regraft import sparsify
    >>> import torch
    >>> a = sparsify(nn.Sequential(nn.Linear(4, 1)), density=1.0)
    >>> x = torch.eye(4)
    >>> torch.equal(mean_of([a, a])(x), a(x))
    True

    Raises:
        InputError, MismatchError: as ``Merger.add`` and ``Merger.result``.
    """
    merger = Merger("average", "average")
    for model in models:
        merger.add(model)
    return merger.result(density)
