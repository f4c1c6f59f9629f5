"""Each family's laws over all of its members, for odd inputs: tiny, full, empty, tied, infinite, NaN.

A member joins by being in its family's registry; a registry that is in no table here fails.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regraft
from regraft import SparseLinear, SparseWeight, Topology, allocate, graph, losses, schedules, select
from regraft.errors import InputError, RegraftError
from regraft.evolve import DROPS, GROWS, INITS, METHODS, Context
from regraft.federated.gossip.links import LINKS
from regraft.federated.robust import Median, TrimmedMean
from regraft.merging import merge, resparsify
from regraft.merging.align.named import ALIGNMENTS
from regraft.merging.combine import RULES
from regraft.merging.neurons.scores import UNIT_SCORES
from regraft.models import build
from regraft.probe import Probe
from regraft.prune.controls import CONTROLS
from regraft.prune.inits import INITS as START_VALUES
from regraft.prune.inits import initialise
from regraft.prune.paths import PATHS
from regraft.schedules import Progress
from regraft.scores.named import SCORES
from regraft.search import SEARCHES
from regraft.signals import flow, gradient, hessian_gradient
from regraft.studies.statistics.correct import CORRECTIONS

SOURCE = Path(regraft.__file__).parent
# module of each registry -> where its members are tested
TABLES = {
    "allocate.py": "here", "schedules.py": "here", "select.py": "here", "losses.py": "here",
    "evolve/drop.py": "here", "evolve/grow.py": "here", "evolve/grow_rules.py": "here",
    "merging/align/named.py": "here", "merging/combine.py": "here", "merging/neurons/scores.py": "here",
    "prune/controls.py": "here", "prune/inits.py": "here", "prune/paths.py": "here",
    "scores/named.py": "here", "search/named.py": "here", "federated/gossip/links.py": "here",
    "federated/baselines.py": "tests/federated/test_baselines.py",
    "train/optimizers.py": "tests/train/test_optimizers.py",
}  # fmt: skip

SEEDS = st.integers(0, 2**30)
ODD = st.one_of(
    st.floats(allow_nan=False, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 1e-45])
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sorted_below(index: Tensor, size: int) -> bool:
    """Whether these are increasing positions in [0, size)."""
    inside = not index.numel() or (int(index[0]) >= 0 and int(index[-1]) < size)
    return index.dtype == torch.int64 and inside and bool((index[1:] > index[:-1]).all())


def net(seed: int, sizes: tuple[int, ...] = (6, 5, 4), density: float = 0.5) -> nn.Module:
    model = build("mlp:" + "-".join(map(str, sizes)), generator=seeded(seed)).double()
    return regraft.sparsify(model, density=density, generator=seeded(seed))


def probe(seed: int, inputs: int = 6, classes: int = 4) -> Probe:
    x = torch.randn(5, inputs, generator=seeded(seed), dtype=torch.float64)
    y = torch.randint(0, classes, (5,), generator=seeded(seed))
    return Probe(nn.functional.cross_entropy, [(x, y)], seeded(seed), (inputs,))


def test_every_family_with_names_has_its_laws() -> None:
    of_names = re.compile(r"^def (\w+_)?by_name\(", re.MULTILINE)
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if of_names.search(path.read_text())
    }
    assert found == set(TABLES)
    assert all(where == "here" or (SOURCE.parent.parent / where).is_file() for where in TABLES.values())


# allocation


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(allocate.ALLOCATIONS)),
    shapes=st.lists(
        st.lists(st.sampled_from([1, 2, 3, 7, 64, 1000]), min_size=2, max_size=4).map(tuple), min_size=1,
        max_size=6,
    ),
    density=st.one_of(st.floats(0, 1, exclude_min=True), st.sampled_from([5e-324, 1e-9, 0.5, 1.0])),
)  # fmt: skip
def test_allocations_are_exact_and_fit(name: str, shapes: list[tuple[int, ...]], density: float) -> None:
    sizes = [math.prod(s) for s in shapes]
    counts = allocate.ALLOCATIONS[name](shapes, density)
    assert sum(counts) == round(density * sum(sizes))
    assert all(type(c) is int and 0 <= c <= n for c, n in zip(counts, sizes, strict=True))
    assert density < 1 or counts == sizes


@pytest.mark.parametrize("name", allocate.ALLOCATIONS)
@pytest.mark.parametrize("density", [0.0, -0.1, 1.0000001, math.nan, math.inf, "x", None])
def test_allocations_refuse_what_is_no_density(name: str, density: Any) -> None:
    with pytest.raises(InputError, match="density"):
        allocate.ALLOCATIONS[name]([(2, 3)], density)


# schedules and paths

SCHEDULES = [kind() for kind in schedules.RATES.values()] + [schedules.Cubic()]


@given(st.sampled_from(SCHEDULES), st.sampled_from([1, 2, 3, 10, 10**4, 10**9]), st.floats(0, 1.5))
def test_schedules_stay_between_their_ends(schedule: Any, total: int, share: float) -> None:
    ends = [v for k, v in vars(schedule).items() if k in ("value", "high", "low", "start", "end")]
    value = schedule(Progress(round(share * total), total))
    low = 0.0 if isinstance(schedule, schedules.ExponentialDecay) else min(ends)
    assert math.isfinite(value)
    assert low - 1e-12 <= value <= max(ends) + 1e-12
    assert schedule(Progress(0, total)) == pytest.approx(getattr(schedule, "value", max(ends)))


@given(
    st.sampled_from(sorted(PATHS)), st.floats(1e-6, 1), st.floats(1e-6, 1), st.sampled_from([1, 2, 7, 1000])
)
def test_density_paths_fall_and_end_exactly(name: str, a: float, b: float, total: int) -> None:
    start, end = max(a, b), min(a, b)
    at = [PATHS[name](start, end, Progress(i, total)) for i in sorted({0, 1, total // 2, total - 1, total})]
    assert at[-1] == end
    assert at[0] == pytest.approx(start)
    assert all(x >= y * (1 - 1e-12) for x, y in itertools.pairwise(at))


# drop and grow


@given(st.sampled_from(sorted(DROPS)), st.lists(ODD, max_size=40), st.floats(0, 1), SEEDS)
def test_drops_give_sorted_entries_of_the_right_number(
    name: str, values: list[float], fraction: float, seed: int
) -> None:
    n = len(values)
    weight = SparseWeight((1, n + 3), torch.arange(n), torch.tensor(values, dtype=torch.float32))
    entries = DROPS[name](weight, fraction, Context("w", seeded(seed)))
    assert sorted_below(entries, max(n, 1))
    assert abs(entries.numel() - fraction * n) <= 1.0, "half a connection for each sign"
    kept = torch.ones(n, dtype=torch.bool)
    kept[entries] = False
    if name == "magnitude" and bool(kept.any()) and entries.numel():
        magnitudes = weight.values.detach().abs()
        assert magnitudes[entries].max() <= magnitudes[kept].min()
    if fraction == 1:
        assert entries.numel() == n


@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("values", [[math.nan], [1.0, math.nan, math.inf, -math.inf]])
def test_drops_name_the_weight_that_is_nan(name: str, values: list[float]) -> None:
    weight = SparseWeight((1, 9), torch.arange(len(values)), torch.tensor(values))
    with pytest.raises(InputError, match="'w' has 1 NaN"):
        DROPS[name](weight, 0.5, Context("w", seeded(0)))


GROWN = [*(GROWS["random"](init=i) for i in INITS), *(GROWS[g]() for g in GROWS if g != "random")]


@settings(max_examples=80)
@given(st.sampled_from(GROWN), st.integers(1, 6), st.integers(1, 6), SEEDS, st.data())
def test_growth_is_k_positions_that_are_free(grow: Any, rows: int, cols: int, seed: int, data: Any) -> None:
    """For any share of active positions, none and all but one among them, and any number that fits."""
    size = rows * cols
    nnz = data.draw(st.integers(0, size))
    index = torch.randperm(size, generator=seeded(seed))[:nnz].sort().values
    layer = SparseLinear(SparseWeight((rows, cols), index, torch.randn(nnz, generator=seeded(seed))), None)
    dropped = data.draw(st.integers(0, nnz))
    survivors = index[torch.randperm(nnz, generator=seeded(seed))[: nnz - dropped].sort().values]
    k = data.draw(st.integers(0, size - survivors.numel()))
    x, dz = torch.randn(3, cols, generator=seeded(seed)), torch.randn(3, rows, generator=seeded(seed))
    seen = [grow.keep(layer, x, dz, seeded(seed))] if hasattr(grow, "keep") else []
    context = Context("w", seeded(seed), layer=layer, captured=seen)
    grown = grow(layer.weight, survivors, k, context)
    assert sorted_below(grown.index, size)
    assert grown.index.numel() == grown.values.numel() == k
    assert not bool(torch.isin(grown.index, survivors).any())
    assert bool(torch.isfinite(grown.values).all())
    full = torch.arange(size)
    with pytest.raises(InputError, match="inactive"):
        grow(SparseWeight((rows, cols), full, torch.zeros(size)), full, 1, context)


@settings(max_examples=30)
@given(st.sampled_from(sorted(METHODS)), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.floats(0, 1), SEEDS)
def test_methods_keep_counts_whatever_the_density(name: str, density: float, rate: float, seed: int) -> None:
    nnz = round(20 * density)
    weight = SparseWeight((5, 4), torch.arange(nnz), torch.randn(nnz, generator=seeded(seed)))
    model = nn.Sequential(SparseLinear(weight, None))
    before = Topology.of(model)
    evolver = regraft.evolve.method(name, rate=rate, generator=seeded(seed)).attach(model)
    with evolver.watch():
        model(torch.ones(2, 4)).square().sum().backward()
    evolver.step()
    assert {n: c.nnz for n, c in Topology.of(model).items()} == {n: c.nnz for n, c in before.items()}
    assert sorted_below(model[0].weight.index, 20)


# selection

SCORED = st.dictionaries(st.sampled_from("abcd"), st.lists(ODD, max_size=12), min_size=1)


@given(st.sampled_from(sorted(select.SELECTIONS)), SCORED, st.floats(0.01, 1), SEEDS)
def test_selections_fill_the_budget_exactly(
    name: str, lists: dict[str, list[float]], density: float, seed: int
) -> None:
    scores = {n: torch.tensor(v) for n, v in lists.items()}
    sizes = {n: len(v) for n, v in lists.items()}
    budget = {n: round(density * size) for n, size in sizes.items()}
    candidates = {n: int((v > -math.inf).sum()) for n, v in scores.items()}
    rule = select.SELECTIONS[name](density)
    short = any(budget[n] > candidates[n] for n in scores)
    if name == "global":
        short = round(density * sum(sizes.values())) > sum(candidates.values())
    if short:
        with pytest.raises(InputError, match=r"-inf|candidates|keep"):
            rule(scores, sizes, generator=seeded(seed))
        return
    kept = rule(scores, sizes, generator=seeded(seed))
    assert set(kept) == set(scores)
    for n, index in kept.items():
        assert sorted_below(index, max(sizes[n], 1))
        assert not bool((scores[n][index] == -math.inf).any())
        assert name == "global" or index.numel() == budget[n]
    if name == "global":
        assert sum(i.numel() for i in kept.values()) == round(density * sum(sizes.values()))
        out = [scores[n][~torch.isin(torch.arange(sizes[n]), kept[n])] for n in scores]
        best_out = max((float(v.max()) for v in out if v.numel()), default=-math.inf)
        assert all(float(scores[n][i].min()) >= best_out for n, i in kept.items() if i.numel())


@pytest.mark.parametrize("name", select.SELECTIONS)
def test_selections_name_the_layer_with_nan(name: str) -> None:
    with pytest.raises(InputError, match=r"'b'.*NaN"):
        select.SELECTIONS[name](0.5)(
            {"a": torch.ones(2), "b": torch.tensor([math.nan, 1.0])}, {"a": 2, "b": 2}
        )


# signals and scores


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(SCORES)),
    st.sampled_from([(2, 1), (3, 1, 2), (6, 5, 4)]),
    st.sampled_from([0.5, 1.0]),
    SEEDS,
)
def test_scores_line_up_and_are_finite(name: str, sizes: tuple[int, ...], density: float, seed: int) -> None:
    model = net(seed, sizes, density)
    before = copy.deepcopy(model.state_dict())
    vectors = SCORES[name](model, probe(seed, sizes[0], sizes[-1]))
    again = SCORES[name](model, probe(seed, sizes[0], sizes[-1]))
    counts = {n: c.nnz for n, c in Topology.of(model).items()}
    assert {n: tuple(v.shape) for n, v in vectors.items()} == {n: (c,) for n, c in counts.items()}
    assert all(bool(torch.isfinite(v).all()) for v in vectors.values())
    assert all(torch.equal(v, again[n]) for n, v in vectors.items())
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in before.items()), "a score changes nothing"


@settings(max_examples=15)
@given(st.sampled_from([gradient, hessian_gradient, flow]), SEEDS)
def test_signals_line_up_and_are_finite(signal: Callable[..., Any], seed: int) -> None:
    model = net(seed)
    vectors = signal(model, probe(seed))
    assert {n: v.numel() for n, v in vectors.items()} == {n: c.nnz for n, c in Topology.of(model).items()}
    assert all(bool(torch.isfinite(v).all()) for v in vectors.values())


# merging

ONE_VALUE = {"magnitude", "average", "random"}  # the value of one, or between them: copies give the network


@settings(max_examples=40)
@given(st.sampled_from(sorted(RULES)), st.integers(1, 4), SEEDS, st.booleans())
def test_rules_stream_and_know_copies(rule: str, count: int, seed: int, copies: bool) -> None:
    nets = [net(seed if copies else seed + i) for i in range(count)]
    merged = merge(nets, rule, rule, density=None, generator=seeded(seed))
    merger = regraft.Merger(rule, rule, generator=seeded(seed))
    for one in nets:
        merger.add(one)
    streamed = merger.result(density=None).state_dict()
    assert all(torch.equal(v, streamed[n]) for n, v in merged.state_dict().items()), "streamed as at once"
    union = Topology.of(nets[0])
    for one in nets[1:]:
        union = union | Topology.of(one)
    assert Topology.of(merged) == union
    if copies and rule in ONE_VALUE:
        first = nets[0].state_dict()
        assert all(torch.allclose(v, first[n], rtol=1e-14) for n, v in merged.state_dict().items())
    if rule in ("average", "addition", "magnitude", "nothing"):
        turned = merge(nets[::-1], rule, rule, density=None).state_dict()
        assert all(torch.allclose(v.abs(), turned[n].abs()) for n, v in merged.state_dict().items())


@settings(max_examples=40)
@given(
    st.sampled_from(["magnitude", "random", "connectivity"]),
    st.floats(0.05, 1),
    st.sampled_from(["layer", "global"]),
    SEEDS,
)
def test_resparsify_never_invents(score: str, density: float, scope: str, seed: int) -> None:
    model = net(seed, density=0.7)
    before = {
        n: dict(zip(w.index.tolist(), w.values.tolist(), strict=True)) for n, w in weights_of(model).items()
    }
    sizes = {n: w.size for n, w in weights_of(model).items()}
    wanted = {n: round(density * size) for n, size in sizes.items()}
    resparsify(model, density, scope=scope, score=score, generator=seeded(seed))  # type: ignore[arg-type]
    for n, w in weights_of(model).items():
        assert sorted_below(w.index, w.size)
        assert all(before[n][p] == v for p, v in zip(w.index.tolist(), w.values.tolist(), strict=True))
        assert scope == "global" or w.nnz == min(wanted[n], len(before[n]))
    if scope == "global":
        total = sum(w.nnz for w in weights_of(model).values())
        assert total == min(sum(wanted.values()), sum(map(len, before.values())))


def weights_of(model: nn.Module) -> dict[str, SparseWeight]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}


@settings(max_examples=15)
@given(st.sampled_from(sorted(ALIGNMENTS)), st.sampled_from([(3, 1, 2), (4, 6, 5, 3)]), SEEDS)
def test_alignments_change_no_function(name: str, sizes: tuple[int, ...], seed: int) -> None:
    nets = [net(seed + i, sizes) for i in range(3)]
    x = torch.randn(7, sizes[0], generator=seeded(seed), dtype=torch.float64)
    aligned = ALIGNMENTS[name](nets, probe=probe(seed, sizes[0], sizes[-1]), generator=seeded(seed))
    for before, after in zip(nets, aligned, strict=True):
        assert torch.allclose(before(x), after(x), rtol=1e-12, atol=1e-12)
        assert Topology.of(after).nnz == Topology.of(before).nnz


@settings(max_examples=15)
@given(st.sampled_from(sorted(UNIT_SCORES)), st.sampled_from([(3, 1, 2), (4, 6, 5, 3)]), SEEDS)
def test_unit_scores_are_one_number_for_each_unit(name: str, sizes: tuple[int, ...], seed: int) -> None:
    model = net(seed, sizes)
    found = UNIT_SCORES[name](model, graph.trace(model, (sizes[0],)), probe(seed, sizes[0], sizes[-1]))
    assert sorted(v.numel() for v in found.values()) == sorted(sizes[1:-1])
    assert all(bool(torch.isfinite(v).all()) for v in found.values())


# pruning


@settings(max_examples=25)
@given(st.sampled_from(sorted(CONTROLS)), st.floats(0.05, 1), SEEDS)
def test_controls_keep_the_number_of_connections(name: str, density: float, seed: int) -> None:
    dense = build("mlp:6-5-4", generator=seeded(seed))
    topology = Topology.of(regraft.sparsify(copy.deepcopy(dense), density=density, generator=seeded(seed)))
    made = CONTROLS[name](dense, topology, seeded(seed))
    assert Topology.of(made).nnz == topology.nnz
    assert name in ("random",) or {n: c.nnz for n, c in Topology.of(made).items()} == {
        n: c.nnz for n, c in topology.items()
    }


@settings(max_examples=20)
@given(st.sampled_from([*sorted(START_VALUES), "scores:magnitude"]), SEEDS)
def test_initial_values_leave_the_topology(name: str, seed: int) -> None:
    model = net(seed)
    before, parameters = Topology.of(model), [id(p) for p in model.parameters()]
    initialise(model, name, probe(seed), generator=seeded(seed))
    assert Topology.of(model) == before
    assert [id(p) for p in model.parameters()] == parameters
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


# search

HERE = [
    name for name in SEARCHES
    if name not in ("faiss", "hnswlib", "nmslib") or importlib.util.find_spec(name) is not None
]  # fmt: skip


@settings(max_examples=60)
@given(
    st.sampled_from(HERE),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 3),
    SEEDS,
    st.data(),
)
def test_searches_are_sound_for_tiny_inputs(name: str, m: int, n: int, d: int, seed: int, data: Any) -> None:
    rows, columns = torch.randn(m, d, generator=seeded(seed)), torch.randn(n, d, generator=seeded(seed + 1))
    excluded = torch.randperm(m * n, generator=seeded(seed))[: data.draw(st.integers(0, m * n))].sort().values
    k = data.draw(st.integers(0, m * n - excluded.numel()))
    found = SEARCHES[name](rows, columns, k, excluded)
    index = found.index
    assert index.numel() <= k
    assert index.unique().numel() == index.numel()
    assert not bool(torch.isin(index, excluded).any())
    assert name not in ("exact", "bfloat16", "svd") or index.numel() == k


# federated


@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=3, max_size=3), min_size=1, max_size=6
    ),
    SEEDS,
)
def test_robust_rules_lie_between_the_clients_in_any_order(rows: list[list[float | None]], seed: int) -> None:
    present = torch.tensor([[v is not None for v in row] for row in rows])
    values = torch.tensor([[v or 0.0 for v in row] for row in rows], dtype=torch.float64)
    some = present.any(0)
    order = torch.randperm(len(rows), generator=seeded(seed))
    for rule in (Median(), TrimmedMean(), TrimmedMean(0.4)):
        merged = rule(values, present)[some]
        assert torch.allclose(merged, rule(values[order], present[order])[some])
        assert bool((merged >= torch.where(present, values, math.inf).amin(0)[some] - 1e-9).all())
        assert bool((merged <= torch.where(present, values, -math.inf).amax(0)[some] + 1e-9).all())


@given(st.sampled_from(sorted(LINKS)), st.integers(1, 12), SEEDS)
def test_links_go_both_ways_and_reach_everybody(name: str, count: int, seed: int) -> None:
    nodes = list(range(0, 3 * count, 3))
    links = LINKS[name](nodes, seeded(seed))
    assert set(links) == set(nodes)
    assert all(a in links[b] and a != b for a, others in links.items() for b in others)
    reached, edge = {nodes[0]}, [nodes[0]]
    while edge:
        more = [n for n in links[edge.pop()] if n not in reached]
        reached.update(more)
        edge += more
    assert reached == set(nodes)


# losses and statistics


@given(
    st.sampled_from(sorted(losses.LOSSES)),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([1e-3, 1.0, 1e4]),
    SEEDS,
)
def test_losses_are_means_over_samples(name: str, n: int, classes: int, scale: float, seed: int) -> None:
    loss = losses.by_name(name)
    logits = scale * torch.randn(2 * n, classes, generator=seeded(seed), dtype=torch.float64)
    logits = logits.log_softmax(1) if name == "nll" else logits
    y = torch.randint(0, classes, (2 * n,), generator=seeded(seed))
    whole, halves = loss(logits, y), [loss(logits[i : i + n], y[i : i + n]) for i in (0, n)]
    assert whole.ndim == 0
    assert bool(torch.isfinite(whole))
    assert whole >= 0
    assert torch.allclose(whole, torch.stack(halves).mean())


@given(st.sampled_from(sorted(CORRECTIONS)), st.lists(st.floats(0, 1), min_size=1, max_size=8), SEEDS)
def test_corrections_never_lower_a_p_and_keep_the_order(name: str, p: list[float], seed: int) -> None:
    made = CORRECTIONS[name](p)
    assert all(a <= b + 1e-12 and 0 <= b <= 1 for a, b in zip(p, made, strict=True))
    order = torch.randperm(len(p), generator=seeded(seed)).tolist()
    assert CORRECTIONS[name]([p[i] for i in order]) == pytest.approx([made[i] for i in order])
    ranked = [made[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(ranked))


def test_every_error_of_a_family_is_one_of_ours() -> None:
    for wrong in (
        lambda: allocate.by_name("x"), lambda: schedules.by_name("x"), lambda: select.by_name("x"),
        lambda: losses.by_name("x"),
    ):  # fmt: skip
        with pytest.raises(RegraftError, match=r"unknown .* 'x'"):
            wrong()
