"""``Merger``: networks arrive one by one, and the result is that of merging them all at once."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from regraft import checkpoint, container, positions
from regraft.errors import FileError, InputError
from regraft.files import Header, PathLike, read_network, write_network
from regraft.merging import combine, keys
from regraft.merging.blocks import PIECE, Piece, checked, fold
from regraft.merging.combine import Combine, Rule
from regraft.merging.fill import fill
from regraft.merging.keep import Density, Scope, budgets, check_scope, resparsified, value_score
from regraft.merging.networks import (
    Kind,
    Layer,
    Network,
    Part,
    Signature,
    Source,
    check_same,
    layers_of,
    open_network,
    parent_of,
)
from regraft.merging.recipe import Recipe, collect, known_score, score_name, sparse_names
from regraft.merging.resparsify import resparsify
from regraft.probe import Probe
from regraft.scores import Score

_STATE = 1  # version of what ``save`` writes


@dataclass(frozen=True)
class _Folded:
    """What the networks so far add up to: positions (None for all of them), folded values, counts."""

    index: Tensor | None
    total: Tensor
    count: Tensor


class Merger:
    """Merges networks as they arrive, in memory O(their union), and can be saved and resumed at any point.

    The result equals ``merge`` of the same networks in the same order, bit for bit, for all rules by name.
    The union is kept until ``result`` prunes it once: pruning at each arrival would end equal representation.

    >>> from regraft import sparsify, Topology
    >>> def network(seed):
    ...     return sparsify(
    ...         nn.Sequential(nn.Linear(20, 10)), density=0.1, generator=torch.Generator().manual_seed(seed))
    >>> merger = Merger(weights="average")
    >>> for seed in range(3):
    ...     _ = merger.add(network(seed))
    >>> len(merger), Topology.of(merger.result()).nnz
    (3, 20)
    """

    def __init__(
        self,
        weights: str | Rule = "magnitude",
        biases: str | Rule = "average",
        *,
        over: str = "networks",
        generator: torch.Generator | None = None,
    ) -> None:
        """Rules as for ``merge``; they must fold, so functions of all networks at once are refused.

        Raises:
            InputError: an unknown rule, or one that needs all networks at once.
        """
        self._recipe = Recipe.of(weights, biases, over, keys.draw_seed(generator))
        for rule in (self._recipe.weights, self._recipe.biases):
            if not isinstance(rule, Combine):
                raise InputError(
                    f"the rule {combine.name_of(rule)} needs all networks at once: use merge or merge_files, "
                    "or write it as a Combine that folds them in one by one"
                )
        self._signature: Signature | None = None
        self._template: nn.Module | None = None
        self._layers: list[Layer] = []
        self._folded: dict[str, _Folded] = {}
        self._parents: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._parents)

    def __repr__(self) -> str:
        names = ", ".join(combine.name_of(r) for r in (self._recipe.weights, self._recipe.biases))
        return f"Merger({names}, {len(self)} networks)"

    def add(self, network: Source, *, weight: int = 1) -> Self:
        """Fold in one more network, a model or the path of a file. Returns the merger.

        Either all of the network is taken or, after an error, nothing of it.

        Args:
            weight: how many networks it counts for, such as the number of its training samples; other than 1
                only where both rules are averages.

        Raises:
            MismatchError: another architecture than the first network's.
            InputError, FileError: NaN or infinite weights, or a file that cannot be read; a weight that is
                not positive, not meant, or beyond 2^31 with those before it.
        """
        self._check_weight(weight)
        opened = open_network(network, len(self) + 1)
        try:
            if self._signature is not None:
                check_same(self._signature, opened)
            layers = layers_of([opened])
            folded = {layer.name: self._fold(layer, opened, weight) for layer in layers}
            parent = parent_of(opened) | ({} if weight == 1 else {"weight": weight})
        finally:
            opened.release()
        if self._signature is None:
            self._signature = Signature(opened.label, dict(opened.parts), opened.spec)
            self._layers = layers
            self._template = copy.deepcopy(network) if isinstance(network, nn.Module) else None
        else:
            self._layers = [
                replace(
                    old, stored=old.stored + new.stored, sparse=old.sparse or new.sparse,
                    prunable=old.prunable and new.prunable,
                )
                for old, new in zip(self._layers, self._in_order(layers), strict=True)
            ]  # fmt: skip
        self._folded = folded
        self._parents.append(parent)
        return self

    @property
    def _weight(self) -> int:
        """How many networks the ones so far count for."""
        return sum(int(parent.get("weight", 1)) for parent in self._parents)

    def _check_weight(self, weight: int) -> None:
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 < weight < 2**31 - self._weight:
            raise InputError(
                f"weight is {weight!r}, but must be a whole number of 1 or more, and below 2^31 in all"
            )
        rules = self._recipe.weights, self._recipe.biases
        if weight != 1 and any(rule is not combine.average for rule in rules):
            raise InputError(
                f"weight is {weight}, but only averages are weighted: take average for weights and biases"
            )

    def _in_order(self, layers: list[Layer]) -> list[Layer]:
        by_name = {layer.name: layer for layer in layers}
        return [by_name[layer.name] for layer in self._layers]

    def _fold(self, layer: Layer, network: Network, weight: int) -> _Folded:
        index = network.index(layer.name, 0, layer.stored[0]) if layer.sparse else None
        values = network.values(layer.name, 0, layer.stored[0])
        before = self._folded.get(layer.name)
        if layer.kind == "first":
            return before or _Folded(None, values.clone(), torch.zeros(0, dtype=torch.int32))
        after = _widened(before, index, layer.size)
        at: Tensor | slice = slice(0, layer.size)
        if index is not None:
            at = index if after.index is None else torch.searchsorted(after.index, index)
        start = keys.base(self._recipe.seed, layer.name, len(self))

        def draw() -> Tensor:
            return keys.uniform(start, torch.arange(layer.size) if index is None else index)

        rule = self._recipe.rule(layer)[0]
        assert isinstance(rule, Combine)
        fold(rule, after.total, after.count, at, values, draw, weight=weight)
        return after

    def result(
        self,
        density: Density = "keep",
        *,
        scope: Scope = "layer",
        score: str | Score = "magnitude",
        probe: Probe | None = None,
        generator: torch.Generator | None = None,
        into: nn.Module | None = None,
    ) -> nn.Module:
        """The merged network so far; more networks may follow.

        Args:
            density, scope, score, probe: as for ``merge``.
            generator: for a score that is a function, among equal scores.
            into: the model to fill, in place. Default: a copy of the first network, if that was a model, or a
                model built from the first file.

        Raises:
            InputError: no network yet, no model to fill, or an unknown option.
            MismatchError: ``into`` has another architecture.
        """
        score = known_score(score)
        merged = self._merged(density, scope, score if isinstance(score, str) else None)
        model = self._model() if into is None else into
        fill(model, self._layers, collect(merged), sparse_names(self._layers, density))
        counts = budgets(self._layers, density)
        if not isinstance(score, str) and counts:
            resparsify(model, counts=counts, scope=scope, score=score, probe=probe, generator=generator)
        return model

    def write(
        self, out: PathLike, density: Density = "keep", *, scope: Scope = "layer", score: str = "magnitude"
    ) -> None:
        """Write the merged network so far to a network file, without building a model.

        Raises:
            InputError: no network yet, or an unknown option.
            FileError: the file cannot be written.
        """
        parts = collect(self._merged(density, scope, score))
        sparse = sparse_names(self._layers, density)
        tensors: dict[str, Tensor] = {}
        for layer in self._layers:
            index, values = parts[layer.name]
            if layer.name in sparse:
                tensors |= {f"{layer.name}.index": index, f"{layer.name}.values": values}
            else:
                tensors[layer.name] = values.view(layer.shape)
        what = self._recipe.plain(density, scope, score_name(score), len(self))
        write_network(out, tensors, self._header(sparse, {"merge": what, "parents": self._parents}))

    def _header(self, sparse: set[str], provenance: dict[str, Any]) -> Header:
        assert self._signature is not None
        return Header(
            shapes={layer.name: layer.shape for layer in self._layers if layer.name in sparse},
            model=self._signature.spec,
            provenance=provenance,
            buffers=tuple(layer.name for layer in self._layers if layer.kind == "buffer"),
        )

    def _merged(
        self, density: Density, scope: Scope, score: str | None
    ) -> Iterator[tuple[Layer, Iterator[Piece]]]:
        if not self._parents:
            raise InputError("the merger has no network yet: call add first")
        check_scope(scope)
        counts = budgets(self._layers, density)
        merged = ((layer, self._pieces(layer)) for layer in self._layers)
        if score is None:
            return merged
        rank, seed = value_score(score), self._recipe.seed
        return resparsified(merged, self._layers, counts, scope=scope, score=rank, seed=seed)

    def _pieces(self, layer: Layer) -> Iterator[Piece]:
        folded = self._folded[layer.name]
        rule, over = self._recipe.rule(layer)
        assert isinstance(rule, Combine)
        for start in range(0, folded.total.numel(), PIECE):
            at = slice(start, min(start + PIECE, folded.total.numel()))
            index = torch.arange(at.start, at.stop) if folded.index is None else folded.index[at]
            if layer.kind == "first":
                yield index, folded.total[at]
                continue
            divisor = torch.tensor(self._weight) if over == "networks" else folded.count[at]
            yield index, checked(rule.finish(folded.total[at], divisor), layer, rule)

    def _model(self) -> nn.Module:
        assert self._signature is not None
        if self._template is not None:
            return copy.deepcopy(self._template)
        if self._signature.spec is None:
            raise InputError(
                "the merger does not know the model to fill: call result(into=model) with a model of the "
                "networks' architecture, or write(path)"
            )
        # through a file, since models are loaded from files without ever making a dense weight
        with tempfile.TemporaryDirectory() as folder:
            self.write(f"{folder}/merged.safetensors", None)
            return checkpoint.load(f"{folder}/merged.safetensors")

    def save(self, path: PathLike) -> None:
        """Write all of the merger's state to a file, so that ``Merger.load`` can go on from here.

        Rules are saved by name, and the architecture by the networks' model spec, not as a model.

        Raises:
            InputError: no network yet.
            FileError: the file cannot be written.
        """
        if self._signature is None:
            raise InputError("the merger has no network yet, so there is nothing to save: call add first")
        tensors: dict[str, Tensor] = {}
        for name, folded in self._folded.items():
            tensors |= {f"{name}/total": folded.total, f"{name}/count": folded.count}
            if folded.index is not None:
                tensors[f"{name}/index"] = folded.index
        state = {
            "state": _STATE, "weights": combine.name_of(self._recipe.weights),
            "biases": combine.name_of(self._recipe.biases), "over": self._recipe.over,
            "seed": self._recipe.seed, "label": self._signature.label, "parents": self._parents,
            "layers": [asdict(layer) | {"dtype": container.CODES[layer.dtype]} for layer in self._layers],
        }  # fmt: skip
        write_network(path, tensors, Header(model=self._signature.spec, provenance={"merger": state}))

    @classmethod
    def load(cls, path: PathLike, *, weights: Rule | None = None, biases: Rule | None = None) -> Self:
        """A merger that goes on where the saved one stopped.

        Args:
            path: what ``save`` wrote.
            weights, biases: the rules, where they are not among those with a name.

        Raises:
            FileError: not a merger's state, or damaged.
            InputError: a rule of one's own that was not passed.
        """
        tensors, header = read_network(path)
        state = header.provenance.get("merger")
        if not isinstance(state, dict) or state.get("state") != _STATE:
            raise FileError(f"'{os.fspath(path)}' is not the state of a merger, as Merger.save writes it")
        rules = [
            _rule(saved, given, kind)
            for saved, given, kind in (
                (state.get("weights"), weights, "weights"), (state.get("biases"), biases, "biases"),
            )
        ]  # fmt: skip
        made = cls(rules[0], rules[1], over=str(state.get("over")))
        try:
            made._restore(state, header, tensors)
        except (AttributeError, KeyError, TypeError, ValueError, InputError) as error:
            raise container.corrupt(Path(path), f"the merger's state is malformed: {error}") from None
        return made

    def _restore(self, state: dict[str, Any], header: Header, tensors: dict[str, Tensor]) -> None:
        self._recipe = replace(self._recipe, seed=int(state["seed"]))
        self._parents = list(state["parents"])
        weights = [parent.get("weight", 1) for parent in self._parents]
        if not all(type(weight) is int and weight > 0 for weight in weights):
            raise ValueError(f"the weights {weights}")
        parts = {}
        for raw in state["layers"]:
            if not container.is_shape(raw["shape"]) or raw["kind"] not in get_args(Kind):
                raise ValueError(f"the layer {raw}")
            layer = Layer(**raw | {
                "dtype": container.DTYPES[raw["dtype"]], "shape": tuple(raw["shape"]),
                "stored": tuple(int(n) for n in raw["stored"]),
            })  # fmt: skip
            self._layers.append(layer)
            index, total = tensors.get(f"{layer.name}/index"), tensors[f"{layer.name}/total"]
            count = tensors[f"{layer.name}/count"]
            if index is not None:
                if layer.sparse is not True:
                    raise ValueError(f"'{layer.name}' is dense, but has positions")
                index = positions.check(index, layer.size, name=layer.name)
            entries = layer.size if index is None else index.numel()
            counts = 0 if layer.kind == "first" else entries
            types = layer.kind == "first" or (total.dtype, count.dtype) == (torch.float64, torch.int32)
            stored = len(layer.stored) == len(self) > 0
            if not types or not stored or total.shape != (entries,) or count.shape != (counts,):
                raise ValueError(f"'{layer.name}' has the wrong number of entries")
            self._folded[layer.name] = _Folded(index, total, count)
            parts[layer.name] = Part(
                layer.shape, layer.dtype, layer.kind, layer.stored[0], layer.sparse, layer.prunable
            )
        self._signature = Signature(str(state["label"]), parts, header.model)


def _widened(before: _Folded | None, index: Tensor | None, size: int) -> _Folded:
    """A copy of what was folded, with room (value 0, count 0) at all positions of ``index`` as well."""
    if before is None:
        n = size if index is None else index.numel()
        index = None if index is None else index.clone()  # the model goes on training
        return _Folded(index, torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int32))
    if before.index is None:
        return _Folded(None, before.total.clone(), before.count.clone())
    union = None if index is None else positions.union(before.index, index)
    n = size if union is None else union.numel()
    at = before.index if union is None else torch.searchsorted(union, before.index)
    total, count = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int32)
    total[at], count[at] = before.total, before.count
    return _Folded(union, total, count)


def _rule(saved: object, given: Rule | None, kind: str) -> Rule:
    if given is not None:
        return given
    if not isinstance(saved, str) or saved not in combine.RULES:
        raise InputError(
            f"the merger was saved with the {kind} rule '{saved}', which has no name here: pass it as "
            f"Merger.load(path, {kind}=...)"
        )
    return combine.RULES[saved]
