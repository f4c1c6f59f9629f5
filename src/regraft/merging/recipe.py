"""What a merge does with each part of the networks, and how its outcome is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regraft import scores
from regraft.merging import combine
from regraft.merging.biases import bias_counts, check_bias_density, kept_biases
from regraft.merging.blocks import BLOCK, Piece, merged_pieces
from regraft.merging.combine import Rule
from regraft.merging.keep import VALUE_SCORES, Density, Scope, chosen_layers
from regraft.merging.networks import Layer, Network
from regraft.scores import Score


@dataclass(frozen=True)
class Recipe:
    """The rules of a merge.

    Attributes:
        weights: rule for parameters of two or more dimensions, sparse or dense.
        biases: rule for all other parameters.
        over: what the average divides by: ``"networks"`` or ``"present"``.
        seed: of the random rule and of equal scores.
        bias_density: share of each layer's bias that stays; None for all of it.
    """

    weights: Rule
    biases: Rule
    over: str = "networks"
    seed: int = 0
    bias_density: float | None = None

    @classmethod
    def of(
        cls, weights: str | Rule, biases: str | Rule, over: str, seed: int, bias_density: float | None = None
    ) -> Recipe:
        """From names or rules.

        Raises:
            InputError: an unknown name, or a density outside (0, 1].
        """
        return cls(
            combine.by_name(weights, "weight rule"),
            combine.by_name(biases, "bias rule"),
            combine.check_over(over),
            seed,
            check_bias_density(bias_density),
        )

    def rule(self, layer: Layer) -> tuple[Rule, str]:
        """The rule that a part follows, and what its average divides by."""
        if layer.kind == "weight":
            return self.weights, self.over
        if layer.kind == "bias":
            return self.biases, self.over
        return combine.average, "networks"

    def plain(self, density: Density, scope: Scope, score: str, networks: int) -> dict[str, Any]:
        """For provenance: plain values that say what was done."""
        return {
            "weights": combine.name_of(self.weights), "biases": combine.name_of(self.biases),
            "over": self.over, "density": density, "scope": scope, "score": score, "seed": self.seed,
            "networks": networks, "bias_density": self.bias_density,
        }  # fmt: skip


def merged_layers(
    networks: Sequence[Network], layers: Sequence[Layer], recipe: Recipe, block: int = BLOCK
) -> Iterator[tuple[Layer, Iterator[Piece]]]:
    """Each part with its merged union, in pieces; exhaust the pieces of one before asking for the next."""
    counts = bias_counts(layers, recipe.bias_density)
    for layer in layers:
        if layer.kind == "first":
            yield layer, iter([(torch.arange(layer.size), networks[0].values(layer.name, 0, layer.size))])
        else:
            rule, over = recipe.rule(layer)
            pieces = merged_pieces(layer, networks, rule, over=over, seed=recipe.seed, block=block)
            if layer.name in counts:
                pieces = kept_biases(layer, pieces, counts[layer.name], recipe.seed)
            yield layer, pieces


def sparse_names(layers: Sequence[Layer], density: Density) -> set[str]:
    """Names of the parts that are sparse in the merged network."""
    return {layer.name for layer in chosen_layers(layers, density)}


def score_name(score: str | Score) -> str:
    """What files call a score."""
    return score if isinstance(score, str) else scores.text_of(score)


def known_score(score: str | Score) -> str | Score:
    """A score that single values tell as its name, any other as a function of the model.

    Raises:
        InputError: an unknown name.
    """
    return scores.parse(score) if isinstance(score, str) and score not in VALUE_SCORES else score


def collect(merged: Iterable[tuple[Layer, Iterator[Piece]]]) -> dict[str, tuple[Tensor, Tensor]]:
    """All merged parts in memory: positions, int64, and values, both vectors."""
    found = {}
    for layer, pieces in merged:
        parts = list(pieces)
        index = torch.cat([i.long() for i, _ in parts]) if parts else torch.empty(0, dtype=torch.int64)
        values = torch.cat([v for _, v in parts]) if parts else torch.empty(0)
        found[layer.name] = (index, values.to(layer.dtype))
    return found
