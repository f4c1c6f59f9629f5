"""``resparsify``: cut a sparse model down to a density, by any score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from regraft import scores, select
from regraft.errors import InputError, MismatchError, check_density
from regraft.merging.biases import check_bias_density, cut_biases
from regraft.merging.keep import Scope, check_scope
from regraft.probe import Probe
from regraft.scores import Score
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def resparsify(
    model: M,
    density: float | None = None,
    *,
    counts: Mapping[str, int] | None = None,
    scope: Scope = "layer",
    score: str | Score = "magnitude",
    probe: Probe | None = None,
    bias_density: float | None = None,
    generator: torch.Generator | None = None,
) -> M:
    """Keep the best connections of the model's sparse weights, in place. Returns the model.

    The Parameters stay the same objects, but are shorter: build the optimizer afterwards.

    Args:
        density: share of positions that stays, in (0, 1]: of each layer, or with scope ``"global"`` of all.
        counts: instead of a density, connections per weight name (summed for scope ``"global"``). Weights
            that are not named stay as they are.
        scope: ``"layer"`` or ``"global"``.
        score: a name (see ``scores.parse``) or a function ``(model, probe) -> {weight name: vector}``; the
            higher is kept.
        probe: what the score may look at.
        bias_density: share in (0, 1] of the bias of each linear and convolutional layer that stays, its
            largest entries; the others become 0 (thesis 1, future work 3). None: all stay. It may be given
            alone.
        generator: decides among equal scores.

    A layer that has fewer connections than asked for keeps them all. Counts are exact otherwise.

    >>> from regraft import sparsify, Topology
    >>> model = sparsify(nn.Sequential(nn.Linear(10, 10)), density=0.5)
    >>> Topology.of(resparsify(model, 0.2)).nnz
    20

    Raises:
        InputError: not exactly one of density and counts, a density outside (0, 1], an unknown score or
            scope, a model without sparse weights, a layer that would keep nothing.
        MismatchError: ``counts`` or the score name other weights than the model has.
    """
    check_scope(scope)
    check_bias_density(bias_density)
    if bias_density is None or density is not None or counts is not None:
        _keep_best(model, density, counts, scope, score, probe, generator)
    if bias_density is not None:
        cut_biases(model, bias_density, generator)
    return model


def _keep_best(
    model: nn.Module,
    density: float | None,
    counts: Mapping[str, int] | None,
    scope: Scope,
    score: str | Score,
    probe: Probe | None,
    generator: torch.Generator | None,
) -> None:
    if (density is None) == (counts is None):
        raise InputError("resparsify needs exactly one of density= and counts=")
    weights = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    if not weights:
        raise InputError(
            f"the {type(model).__name__} has no sparse weight: call regraft.sparsify(model, ...) first"
        )
    wanted = _counts(weights, density) if counts is None else dict(counts)
    for name in wanted:
        if name not in weights:
            raise MismatchError(f"counts names '{name}', but the model's sparse weights are: {list(weights)}")
    rule = scores.parse(score) if isinstance(score, str) else score
    if probe is None and generator is not None:
        probe = Probe(generator=generator)
    with torch.enable_grad():
        scored = rule(model, probe)
    _check_scores(scored, {n: weights[n].nnz for n in wanted})
    scored = {name: scored[name] for name in wanted}
    if scope == "global":
        total = min(sum(wanted.values()), sum(v.numel() for v in scored.values()))
        kept = select.globally(scored, total, generator=generator)
    else:
        capped = {name: min(k, scored[name].numel()) for name, k in wanted.items()}
        kept = select.per_layer(scored, capped, generator=generator)
    for name, entries in kept.items():
        weight, entries = weights[name], entries.to(weights[name].index.device)
        weight.replace(weight.index[entries], weight.values[entries])


def _counts(weights: Mapping[str, SparseWeight], density: float | None) -> dict[str, int]:
    share = check_density(density)  # type: ignore[arg-type]
    counts = {name: round(share * w.size) for name, w in weights.items()}
    for name, k in counts.items():
        if k < 1 <= weights[name].size:
            raise InputError(
                f"'{name}' of shape {tuple(weights[name].shape)} would keep no connection at density {share}"
                ": raise it"
            )
    return counts


def _check_scores(scored: Mapping[str, torch.Tensor], sizes: Mapping[str, int]) -> None:
    for name, nnz in sizes.items():
        if name not in scored or scored[name].shape != (nnz,):
            got = f"shape {tuple(scored[name].shape)}" if name in scored else "nothing"
            raise MismatchError(f"the score gave {got} for '{name}', but it has {nnz} connections")
