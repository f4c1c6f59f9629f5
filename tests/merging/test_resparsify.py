"""What stays after a merge: exact counts, the best entries, ties at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import Merger, SparseWeight, Topology, merge, merge_files, resparsify, save, sparsify
from regraft.errors import InputError, MismatchError
from regraft.merging.keep import Best, budgets, magnitude
from regraft.merging.networks import Layer
from regraft.probe import Probe
from regraft.scores import Connectivity

MakeNet = Callable[..., nn.Module]


def a_layer(name: str = "w", size: int = 100, stored: tuple[int, ...] = (), sparse: bool = True) -> Layer:
    return Layer(name, (1, size), torch.float32, "weight", stored, sparse, True)


def counts(model: nn.Module) -> dict[str, int]:
    return {name: c.nnz for name, c in Topology.of(model).items()}


def test_keep_gives_the_parents_counts_in_each_layer(net: MakeNet) -> None:
    parents = [net(s) for s in range(4)]
    assert counts(merge(parents)) == counts(parents[0])
    assert Topology.of(merge(parents, density=None)).nnz > Topology.of(parents[0]).nnz


@pytest.mark.parametrize(
    ("stored", "kept"), [((4, 4), 4), ((4, 5), 5), ((1, 1, 2), 1), ((1, 2, 2), 2), ((0, 0), 0)]
)
def test_keep_is_the_mean_count_rounded_half_up(stored: tuple[int, ...], kept: int) -> None:
    assert budgets([a_layer(stored=stored)], "keep") == {"w": kept}


def test_the_strongest_of_the_union_stay(net: MakeNet) -> None:
    parents = [net(s) for s in range(3)]
    union, kept = merge(parents, density=None), merge(parents)
    for name, weight in union.named_modules():
        if isinstance(weight, SparseWeight):
            k = kept.get_submodule(name).nnz
            best = weight.values.abs().argsort(descending=True)[:k].sort().values
            assert torch.equal(kept.get_submodule(name).index, weight.index[best])
            assert torch.equal(kept.get_submodule(name).values, weight.values[best])


def test_global_scope_ranks_all_layers_together(net: MakeNet) -> None:
    parents = [net(s) for s in range(3)]
    union, kept = merge(parents, density=None), merge(parents, scope="global")
    everything = torch.cat([w.values.abs() for w in union.modules() if isinstance(w, SparseWeight)])
    total = Topology.of(parents[0]).nnz
    assert Topology.of(kept).nnz == total
    found = torch.cat([w.values.abs() for w in kept.modules() if isinstance(w, SparseWeight)])
    assert torch.equal(found.sort().values, everything.sort().values[-total:])


def test_a_number_is_a_density_of_each_layer_or_of_all(net: MakeNet) -> None:
    parents = [net(s, 0.5) for s in range(3)]
    assert counts(merge(parents, density=0.25)) == {"0.weight": 10, "2.weight": 6}
    assert Topology.of(merge(parents, density=0.25, scope="global")).nnz == 16


def test_a_layer_with_a_smaller_union_keeps_it_all(net: MakeNet) -> None:
    parents = [net(s, 0.1) for s in range(2)]
    assert Topology.of(merge(parents, density=1.0)) == Topology.of(merge(parents, density=None))


def test_dense_parents_stay_dense_unless_a_number_is_given(net: MakeNet) -> None:
    parents = [net(0, None), net(1, None)]
    assert type(merge(parents)[0]) is nn.Linear  # type: ignore[index]
    assert type(merge(parents, density=None)[0]) is nn.Linear  # type: ignore[index]
    sparse = merge(parents, density=0.5)
    assert counts(sparse) == {"0.weight": 21, "2.weight": 12}


def test_layers_that_are_dense_in_every_network_are_left_alone() -> None:
    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
        return sparsify(made, density=0.25, exclude=["1"], generator=torch.Generator().manual_seed(seed))

    merged = merge([model(0), model(1)], "average", density=0.125)
    assert counts(merged) == {"0.weight": 8}
    assert torch.allclose(merged[1].weight, (model(0)[1].weight + model(1)[1].weight) / 2)  # type: ignore[index]


def test_sparse_and_dense_parents_mix(net: MakeNet) -> None:
    sparse, dense = net(0, 0.25), net(1, None)
    merged = merge([dense, sparse])
    assert counts(merged) == {"0.weight": round((42 + counts(sparse)["0.weight"]) / 2 + 1e-9), "2.weight": (
        24 + counts(sparse)["2.weight"] + 1) // 2}  # fmt: skip
    assert counts(merge([sparse, dense], density=None)) == {"0.weight": 42, "2.weight": 24}


PIECES = st.lists(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), max_size=8), max_size=8)


@given(PIECES, PIECES, st.integers(0, 40), st.integers(1, 10))
def test_pieces_of_any_size_leave_the_same(
    first: list[list[float]], second: list[list[float]], k: int, slack: int
) -> None:
    """Ties included: what was forgotten early is what would have been forgotten at the end."""

    def run(cut: bool) -> list[tuple[list[int], list[float]]]:
        layers = [a_layer("a"), a_layer("b")]
        best = Best(layers, k, magnitude, seed=5, slack=slack if cut else 10_000)
        for number, pieces in enumerate((first, second)):
            flat = [v for piece in pieces for v in piece]
            chunks = pieces if cut else [flat]
            at, fed = 0, []
            for piece in chunks:
                fed.append((torch.arange(at, at + len(piece)), torch.tensor(piece)))
                at += len(piece)
            best.add(number, fed)
        return [(i.tolist(), v.tolist()) for i, v in best.result()]

    assert run(True) == run(False)
    total = sum(len(p) for p in first + second)
    assert sum(len(i) for i, _ in run(True)) == min(k, total)


def test_ties_are_decided_at_random_and_reproducibly() -> None:
    def kept(seed: int) -> list[int]:
        best = Best([a_layer(size=2000)], 500, magnitude, seed)
        best.add(0, [(torch.arange(2000), torch.ones(2000))])
        return best.result()[0][0].tolist()

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)
    assert len(set(kept(1))) == 500
    for seed in range(5):
        quarters = torch.tensor(kept(seed)).div(500, rounding_mode="floor").bincount(minlength=4)
        assert (quarters - 125).abs().max() < 45  # 4.6 standard deviations of a hypergeometric draw


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density is 0.0, but must be in"),
        ({"density": 1.5}, "density is 1.5, but must be in"),
        ({"density": "kep"}, "density is 'kep', but must be 'keep', None"),
        ({"density": 0.01}, "'0.weight' of shape .* would keep no connection"),
        ({"scope": "all"}, "scope is 'all', but must be 'layer'"),
        ({"score": "magnitud"}, "unknown score 'magnitud'"),
    ],
)
def test_bad_options(net: MakeNet, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge([net(0), net(1)], **options)


def test_a_score_of_ones_own_sees_the_merged_model(net: MakeNet) -> None:
    def smallest(model: nn.Module, probe: Probe | None = None) -> dict[str, Tensor]:
        return {n: -w.values.abs() for n, w in model.named_modules() if isinstance(w, SparseWeight)}

    parents = [net(s) for s in range(3)]
    merged, union = merge(parents, score=smallest), merge(parents, density=None)
    assert counts(merged) == counts(parents[0])
    kept = merged[0].weight.values.abs().max()  # type: ignore[index]
    everything = union[0].weight.values.abs().sort().values  # type: ignore[index]
    assert kept == everything[counts(merged)["0.weight"] - 1]


def test_resparsify_alone(net: MakeNet) -> None:
    model = net(0, 0.5)
    before = model[0].weight.values  # type: ignore[index]
    same = resparsify(model, 0.25)
    assert same is model
    assert model[0].weight.values is before  # type: ignore[index]
    assert counts(model) == {"0.weight": 10, "2.weight": 6}
    resparsify(model, 0.125, scope="global")
    assert Topology.of(model).nnz == 8
    resparsify(model, counts={"0.weight": 1})
    assert counts(model)["0.weight"] == 1


def test_resparsify_by_a_random_score_follows_the_generator(net: MakeNet) -> None:
    def one(seed: int) -> Topology:
        return Topology.of(
            resparsify(net(0, 0.9), 0.3, score="random", generator=torch.Generator().manual_seed(seed))
        )

    assert one(1) == one(1)
    assert one(1) != one(2)


def test_resparsify_refuses(net: MakeNet) -> None:
    with pytest.raises(InputError, match="has no sparse weight"):
        resparsify(net(0, None), 0.5)
    with pytest.raises(InputError, match="exactly one of density= and counts="):
        resparsify(net(0))
    with pytest.raises(MismatchError, match=r"counts names '9\.weight'"):
        resparsify(net(0), counts={"9.weight": 1})
    with pytest.raises(MismatchError, match=r"gave nothing for '0\.weight'"):
        resparsify(net(0), 0.1, score=lambda model, probe=None: {})
    with pytest.raises(InputError, match=r"would keep no connection at density 0\.001"):
        resparsify(net(0), 0.001)


def test_scores_by_name_see_the_merged_model(net: MakeNet, equal: Callable[..., bool]) -> None:
    parents = [net(s) for s in range(3)]
    by_name, itself = merge(parents, score="connectivity"), merge(parents, score=Connectivity())
    assert equal(by_name, itself)
    assert counts(by_name) == counts(merge(parents))
    assert not equal(by_name, merge(parents))
    merger = Merger()
    for parent in parents:
        merger.add(parent)
    assert equal(merger.result(score="connectivity"), itself)
    assert equal(
        resparsify(merge(parents, density=None), counts=counts(itself), score="connectivity"), itself
    )


def test_files_in_blocks_refuse_scores_that_see_the_model(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        save(sparsify(nn.Sequential(nn.Linear(7, 4)), 0.5), path)
    with pytest.raises(InputError, match="the score 'snip' looks at the whole network"):
        merge_files(paths, tmp_path / "m", score="snip")
    assert not (tmp_path / "m").exists()
