"""``merge`` for models and files in memory, ``merge_files`` for files that are read in blocks."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft import checkpoint
from regraft.errors import InputError
from regraft.files import Header, NetworkWriter, PathLike, atomic_write
from regraft.merging import keys
from regraft.merging.align import Align
from regraft.merging.align.named import aligned, by_name
from regraft.merging.blocks import BLOCK, Piece
from regraft.merging.combine import Rule
from regraft.merging.fill import fill
from regraft.merging.keep import Density, Scope, budgets, check_scope, resparsified, value_score
from regraft.merging.networks import (
    Layer,
    Network,
    Source,
    data_of,
    layers_of,
    open_network,
    opened,
    parent_of,
)
from regraft.merging.recipe import Recipe, collect, known_score, merged_layers, score_name, sparse_names
from regraft.merging.resparsify import resparsify
from regraft.probe import Probe
from regraft.scores import Score


def merge(
    networks: Sequence[Source],
    weights: str | Rule = "magnitude",
    biases: str | Rule = "average",
    density: Density = "keep",
    *,
    align: str | Align | None = None,
    normalise: bool = False,
    scope: Scope = "layer",
    score: str | Score = "magnitude",
    probe: Probe | None = None,
    over: str = "networks",
    bias_density: float | None = None,
    generator: torch.Generator | None = None,
    into: nn.Module | None = None,
    out: PathLike | None = None,
) -> nn.Module:
    """Merge networks of one architecture and different topologies into one (thesis 1, section 4).

    At each position in the union of the topologies the weight rule combines the values of the networks that
    have it; then the best connections are kept, so that the merged network is as sparse as its parents. Sums
    are taken in float64. The parents are not changed.

    Args:
        networks: models, paths of network files, or both. A dense layer is one of density 1. Values take the
            types of the first network.
        weights: rule for parameters of two or more dimensions: ``"magnitude"``, ``"average"``,
            ``"addition"``, ``"random"``, ``"nothing"``, a ``Combine``, or a function
            ``(values, present) -> merged`` (see ``regraft.merging.combine``).
        biases: rule for all other parameters. Floating point buffers (running statistics) are averaged;
            integers come from the first network.
        density: ``"keep"``: each layer keeps the mean count of its parents, rounded; a number in (0, 1]: this
            share of positions of each layer, or of all together; None: the whole union. A layer whose union
            is smaller keeps all of it. Layers that are dense in every network stay dense, unless all are and
            a number is given.
        align: number the hidden units of all networks alike before they are merged: ``"weights"``,
            ``"activations"`` (from the probe's batches), a ``WeightMatching``, an ``ActivationMatching``, or
            any function of that signature. Files are read into memory for it.
        normalise: bring each network to its canonical scale first (see ``normalise_scale``), so that a
            network whose layers are scaled up does not win by that. The two alignments do so unless told not
            to.
        scope: ``"layer"``, or ``"global"``: the best of all layers together.
        score: what is kept first: ``"magnitude"``, ``"random"``, or a score ``(model, probe) -> vectors`` of
            the merged model, also by name (see ``scores.parse``).
        probe: what a score or an alignment may look at; its batches or its input_shape also say what the
            models take, where that cannot be told from the first model.
        over: what the average divides by: the number of ``"networks"``, or of those in which the weight is
            ``"present"``.
        bias_density: share in (0, 1] of the bias of each linear and convolutional layer that stays, its
            largest entries; the others become 0 (thesis 1, future work 3). None: all stay.
        generator: for the random rule, equal scores and alignment. The same seed gives the same network, from
            models, files or a ``Merger``.
        into: the model to fill, in place. Default: a copy of the first model, or a model built from the first
            file.
        out: a file to write the merged network to as well.

    >>> from regraft import sparsify, Topology
    >>> def network(seed):
    ...     torch.manual_seed(seed)
    ...     generator = torch.Generator().manual_seed(seed)
    ...     return sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.1, generator=generator)
    >>> a, b = network(0), network(1)
    >>> Topology.of(merge([a, b])).nnz
    20
    >>> Topology.of(merge([a, b], density=None)) == Topology.of(a) | Topology.of(b)
    True

    Raises:
        InputError: an unknown rule, score, scope, alignment or density, no network, one network or a model
            that cannot be traced to align, NaN or infinite weights.
        MismatchError: the networks differ in architecture.
        FileError: a file cannot be read or written.
    """
    rule = None if align is None else by_name(align)
    recipe = Recipe.of(weights, biases, over, keys.draw_seed(generator), bias_density)
    check_scope(scope)
    score = known_score(score)
    with opened(networks) as parents:
        layers = layers_of(parents)
        counts = budgets(layers, density)
        sources: Sequence[Network] = parents
        if rule is not None or normalise:
            models = aligned(networks, rule, normalise, probe, generator)
            sources = [open_network(model, number) for number, model in enumerate(models, 1)]
        merged = merged_layers(sources, layers, recipe)
        if isinstance(score, str):
            rank = value_score(score)
            merged = resparsified(merged, layers, counts, scope=scope, score=rank, seed=recipe.seed)
        model = _template(networks[0]) if into is None else into
        fill(model, layers, collect(merged), sparse_names(layers, density))
        if not isinstance(score, str) and counts:
            resparsify(model, counts=counts, scope=scope, score=score, probe=probe, generator=generator)
        if out is not None:
            what = recipe.plain(density, scope, score_name(score), len(parents))
            what |= {} if align is None else {"align": align if isinstance(align, str) else repr(align)}
            what |= {"normalise": True} if normalise else {}
            origin = {"made_by": "regraft.merge", **data_of(parents), "merge": what}
            checkpoint.save(model, out, provenance={**origin, "parents": [parent_of(n) for n in parents]})
    return model


@dataclass(frozen=True)
class MergedLayer:
    """What became of one sparse weight.

    Attributes:
        name: of the weight.
        shape: its dense shape.
        parents: connections of each network.
        union: connections of all networks together.
        kept: connections of the merged network.
    """

    name: str
    shape: tuple[int, ...]
    parents: tuple[int, ...]
    union: int
    kept: int


def merge_files(
    paths: Sequence[PathLike],
    out: PathLike,
    weights: str | Rule = "magnitude",
    biases: str | Rule = "average",
    density: Density = "keep",
    *,
    scope: Scope = "layer",
    score: str = "magnitude",
    over: str = "networks",
    bias_density: float | None = None,
    generator: torch.Generator | None = None,
    block: int = BLOCK,
    provenance: Mapping[str, Any] | None = None,
    on_layer: Callable[[str], None] | None = None,
) -> list[MergedLayer]:
    """Merge network files into a file, reading them block by block; the result equals that of ``merge``.

    Memory is one block and the connections that the largest layer keeps (with scope ``"global"``, that all
    keep), whatever the number and the size of the files; time is O(sum of their connections). With
    ``density=None`` not even a layer's union is held.

    Alignment compares whole networks, so it is not to be had here: use ``merge``, which reads files into
    memory, or align models and save them first.

    Args:
        paths: network files of one architecture.
        out: the file to write, whole or not at all; it may be one of ``paths``.
        score: ``"magnitude"`` or ``"random"``. A score that looks at the model needs it in memory: use
            ``merge``, or ``density=None`` here and ``regraft.resparsify``.
        block: positions that are merged at a time; changes memory and speed, not the result.
        provenance: more for the header of the merged file; parents and rules are in it anyway.
        on_layer: called with the name of each layer when it is done.

    The other arguments are those of ``merge``.

    Returns:
        counts of each sparse weight.

    >>> import tempfile
    >>> from regraft import save, sparsify
    >>> a, b = (sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.1) for _ in range(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [f"{folder}/a.safetensors", f"{folder}/b.safetensors"]
    ...     save(a, paths[0]); save(b, paths[1])
    ...     layers = merge_files(paths, f"{folder}/m.safetensors", weights="average")
    >>> [(layer.name, layer.parents, layer.kept) for layer in layers]
    [('0.weight', (20, 20), 20)]

    Raises:
        InputError, MismatchError, FileError: as ``merge``.
    """
    if block < 1:
        raise InputError(f"block is {block}, but must be at least 1 position")
    recipe = Recipe.of(weights, biases, over, keys.draw_seed(generator), bias_density)
    rank = value_score(score)
    check_scope(scope)
    union: dict[str, int] = {}
    kept: dict[str, int] = {}
    with opened(_paths_only(paths)) as parents:
        layers = layers_of(parents)
        counts = budgets(layers, density)
        sparse = sparse_names(layers, density)
        header = Header(
            shapes={layer.name: layer.shape for layer in layers if layer.name in sparse},
            model=next((n.spec for n in parents if n.spec is not None), None),
            provenance={
                "made_by": "regraft merge",
                **data_of(parents),
                **(provenance or {}),
                "merge": recipe.plain(density, scope, score, len(parents)),
                "parents": [parent_of(network) for network in parents],
            },
            buffers=tuple(layer.name for layer in layers if layer.kind == "buffer"),
        )
        merged = _counted(merged_layers(parents, layers, recipe, block), union)
        final = resparsified(merged, layers, counts, scope=scope, score=rank, seed=recipe.seed)
        _write(out, header, layers, _counted(final, kept), on_layer or (lambda name: None))
    return [
        MergedLayer(x.name, x.shape, x.stored, union[x.name], kept[x.name])
        for x in layers
        if x.name in sparse
    ]


def _write(
    out: PathLike,
    header: Header,
    layers: Sequence[Layer],
    merged: Iterable[tuple[Layer, Iterator[Piece]]],
    on_layer: Callable[[str], None],
) -> None:
    dims: dict[str, int] = {}
    for layer in layers:
        sparse = layer.name in header.shapes
        dims |= (
            {f"{layer.name}.index": 1, f"{layer.name}.values": 1}
            if sparse
            else {layer.name: len(layer.shape)}
        )
    with atomic_write(out) as file:
        writer = NetworkWriter(file, header, dims)
        for layer, pieces in merged:
            if layer.name in header.shapes:
                writer.weight(layer.name, layer.dtype, pieces)
            else:
                writer.tensor(layer.name, layer.dtype, _values(pieces), layer.shape)
            on_layer(layer.name)
        writer.finish()


def _values(pieces: Iterable[Piece]) -> Iterator[Tensor]:
    return (values for _, values in pieces)


def _counted(
    merged: Iterable[tuple[Layer, Iterator[Piece]]], counts: dict[str, int]
) -> Iterator[tuple[Layer, Iterator[Piece]]]:
    """Pass on, and note how many entries of each layer went by."""

    def counting(name: str, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for index, values in pieces:
            counts[name] += index.numel()
            yield index, values

    for layer, pieces in merged:
        counts[layer.name] = 0
        yield layer, counting(layer.name, pieces)


def _paths_only(paths: Sequence[PathLike]) -> Sequence[PathLike]:
    for path in paths if not isinstance(paths, str | os.PathLike) else ():
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"merge_files takes paths, not a {type(path).__name__}: use merge for models")
    return paths


def _template(first: Source) -> nn.Module:
    """A model of the first network's architecture, free to be filled."""
    if isinstance(first, nn.Module):
        return copy.deepcopy(first)
    return checkpoint.load(first)
