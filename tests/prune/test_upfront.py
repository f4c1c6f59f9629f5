"""``prune.upfront``: exact counts on every road, what may revive, who decides ties, and clear refusals."""

import itertools
import math
from collections import Counter

import pytest
import torch
from tests.prune.toys import make_normed, net, probe, same, samples, state
from torch import nn

from regraft import Evolve, Topology, prune, sparsify
from regraft.errors import InputError, MismatchError
from regraft.scores import parse, weights_of
from regraft.select import Globally, PerLayer

SHAPES = {"0.weight": 12 * 30, "2.weight": 30 * 20, "4.weight": 20 * 5}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("revive", [False, True])
@pytest.mark.parametrize("floor", [0, 7])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("path", sorted(prune.PATHS))
@pytest.mark.parametrize("shots", [1, 2, 9])
def test_counts_are_exact(shots, path, scope, floor, revive, sparse):
    model = net(12, 30, 20, 5)
    if sparse:
        sparsify(model, density=0.4, allocate="uniform")
    seen = []
    topology = prune.upfront(
        model, score="magnitude", density=0.11, shots=shots, path=path, scope=scope, floor=floor,
        revive=revive, on_shot=seen.append,
    )  # fmt: skip
    total = sum(SHAPES.values())
    if scope == "global":
        assert topology.nnz == round(0.11 * total)
    else:
        assert {n: c.nnz for n, c in topology.items()} == {n: round(0.11 * s) for n, s in SHAPES.items()}
    assert min(c.nnz for c in topology.values()) >= floor
    assert len(seen) == shots
    assert seen[-1].topology == topology
    start = Topology.of(model).density if sparse else 1.0
    for shot in seen:
        if scope == "global":
            assert sum(k.numel() for k in shot.kept.values()) == round(shot.density * total)
        assert shot.density <= start
    if sparse:
        assert not (topology - Topology.of(model)).nnz


def given(*shots, seen=None):
    """A score that is given, shot by shot: {name: one number per position}, read at the candidates left."""
    calls = []

    def score(model, probe=None, *, values=None, active=None):
        calls.append(active if active is None else {n: a.tolist() for n, a in active.items()})
        if seen is not None:
            seen[:] = calls
        return {n: shots[len(calls) - 1][n][w.index] for n, w in weights_of(model).items()}

    return score


def vectors(first, second):
    return {"0.weight": torch.tensor(first), "2.weight": torch.tensor(second)}


def test_the_best_scores_are_kept():
    """Literal input, literal output."""
    scored = vectors([9.0, 1, 8, 2, 7, 3], [6.0, 0, 5, 4])
    model = net(3, 2, 2)
    globally = prune.upfront(model, score=given(scored), density=0.5)
    assert [c.index.tolist() for c in globally.values()] == [[0, 2, 4], [0, 2]]
    by_layer = prune.upfront(model, score=given(scored), density=0.5, scope="layer")
    assert [c.index.tolist() for c in by_layer.values()] == [[0, 2, 4], [0, 2]]
    floored = prune.upfront(model, score=given(scored), density=0.3, floor=1)
    assert [c.index.tolist() for c in floored.values()] == [[0, 2], [0]]


@pytest.mark.parametrize("score", ["magnitude", "snip", "grasp", "synflow", "stacked(magnitude, synflow)"])
@pytest.mark.parametrize("revive", [False, True])
def test_one_shot_of_many_is_a_single_shot(score, revive):
    model = net(8, 12, 4)
    topology = prune.upfront(model, probe(), score=score, density=0.3, shots=1, revive=revive, floor=1)
    scored = {n: v.detach() for n, v in parse(score)(prune.candidates(model)[0], probe()).items()}
    flat = torch.cat(list(scored.values()))
    best = flat.topk(round(0.3 * flat.numel())).indices.sort().values.tolist()
    kept = topology["0.weight"].index.tolist() + (topology["2.weight"].index + 96).tolist()
    assert kept == best


@pytest.mark.parametrize("score", ["magnitude", "snip", "synflow", "random"])
@pytest.mark.parametrize("path", sorted(prune.PATHS))
def test_what_is_cut_stays_cut_without_revival(score, path):
    kept = []
    prune.upfront(
        net(8, 12, 4), probe(), score=score, density=0.1, shots=6, path=path, floor=1, on_shot=kept.append
    )
    sets = [{(n, i) for n, index in shot.kept.items() for i in index.tolist()} for shot in kept]
    assert all(later < earlier for earlier, later in itertools.pairwise(sets))


SHOTS = (vectors([5.0, 1.0], [2.0, 3.0]), vectors([1.0, 9.0], [0.0, 9.0]))  # 4 connections -> 3 -> 2


def test_what_was_cut_comes_back_with_revival():
    """Position 1 of the first weight is cut by the first shot, and among the best of the second."""
    seen = []
    topology = prune.upfront(
        net(1, 2, 1), score=given(*SHOTS, seen=seen), density=0.5, shots=2, path="linear", revive=True
    )
    assert [c.index.tolist() for c in topology.values()] == [[1], [1]]
    assert seen == [None, {"0.weight": [True, False], "2.weight": [True, True]}]


def test_what_was_cut_is_no_candidate_without_revival():
    seen = []
    topology = prune.upfront(
        net(1, 2, 1), score=given(*SHOTS, seen=seen), density=0.5, shots=2, path="linear"
    )
    assert [c.index.tolist() for c in topology.values()] == [[0], [1]]
    assert seen == [None, None]


def test_snip_with_revival_differs_and_looks_beyond_what_is_active():
    model = net(8, 30, 20, 4)
    options = {"score": "snip", "density": 0.05, "shots": 20, "floor": 2}
    kept = []
    revived = prune.upfront(model, probe(), revive=True, on_shot=kept.append, **options)
    stuck = prune.upfront(model, probe(), revive=False, **options)
    assert revived.nnz == stuck.nnz
    assert revived != stuck
    pairs = itertools.pairwise(shot.topology for shot in kept)
    assert any((later - earlier).nnz for earlier, later in pairs)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("shots", [1, 2])
def test_ties_favour_no_position(scope, shots, generator):
    """Two of six tied connections beside one that is better: chi-square at the 0.1 % level."""
    scored = vectors([1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0])
    seen = Counter()
    n = 300
    for _ in range(n):
        topology = prune.upfront(
            net(2, 2, 2), score=given(scored, scored), density=0.5, shots=shots, scope=scope,
            generator=generator,
        )  # fmt: skip
        seen.update((name, i) for name, c in topology.items() for i in c.index.tolist())
    assert seen.pop(("0.weight", 3)) == seen.pop(("2.weight", 3)) == n
    assert len(seen) == 6
    chi2 = sum((k - n / 3) ** 2 / (n / 3) for k in seen.values())
    assert chi2 < 5 + 4 * math.sqrt(10)


def test_ties_by_magnitude():
    model = net(2, 2, 2)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.1, -4.0], [3.0, 1.0]]))
        model[2].weight.copy_(torch.tensor([[-0.2, 0.3], [2.0, 1.0]]))
    scored = vectors([1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0])
    topology = prune.upfront(model, score=given(scored), density=0.5, ties="magnitude")
    assert [c.index.tolist() for c in topology.values()] == [[1, 2, 3], [3]]


def test_the_same_seed_gives_the_same_topology():
    run = lambda seed: prune.upfront(
        net(8, 12, 4), score="random", density=0.2, shots=3, generator=torch.Generator().manual_seed(seed)
    )
    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("revive", [False, True])
def test_the_model_is_not_touched(sparse, revive):
    model = make_normed().train()
    if sparse:
        sparsify(model, density=0.5)
    before, version = state(model), [p._version for p in model.parameters()]
    prune.upfront(model, probe(), score="snip", density=0.1, shots=3, revive=revive, floor=1)
    assert same(state(model), before)
    assert [p._version for p in model.parameters()] == version
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert model.norm.training


@pytest.mark.parametrize("sparse", [False, True])
def test_layers_left_out_do_not_count_and_stay(sparse):
    model = net(8, 12, 10, 4)
    if sparse:
        sparsify(model, density=0.5)
    before = state(model)
    topology = prune.upfront(model, probe(), score="snip", density=0.2, exclude="4", shots=3, revive=True)
    assert list(topology) == ["0.weight", "2.weight"]
    assert topology.nnz == round(0.2 * (96 + 120))
    prune.apply(model, topology)
    after = state(model)
    assert all(torch.equal(after[n], v) for n, v in before.items() if n.startswith("4."))
    assert (model[0].weight.nnz, model[2].weight.nnz) == tuple(c.nnz for c in topology.values())


def test_a_score_is_told_that_what_is_not_pruned_stays_active():
    model = sparsify(net(3, 2, 2), density=1.0)
    seen = []
    scored = vectors([1.0, 2, 3, 4, 5, 6], [1.0, 2, 3, 4])
    prune.upfront(
        model, score=given(scored, scored, seen=seen), density=0.5, include="2", shots=2, path="linear",
        revive=True,
    )  # fmt: skip
    assert seen[1] == {"0.weight": [True] * 6, "2.weight": [False, True, True, True]}


def test_scope_by_a_function():
    """A density of each layer's own, on every shot."""
    shares = {"0.weight": 1.5, "2.weight": 0.25}

    def scope(density, floor):
        return PerLayer({n: min(1.0, density * s) for n, s in shares.items()}, floor)

    topology = prune.upfront(net(8, 12, 4), score="magnitude", density=0.4, shots=4, scope=scope)
    assert {n: c.nnz for n, c in topology.items()} == {
        "0.weight": round(0.6 * 96),
        "2.weight": round(0.1 * 48),
    }
    by_class = prune.upfront(net(8, 12, 4), score="magnitude", density=0.4, shots=4, scope=Globally)
    assert by_class == prune.upfront(net(8, 12, 4), score="magnitude", density=0.4, shots=4)


def test_layers_of_a_sparse_model_each_follow_the_path_from_their_own_density():
    model = sparsify(net(20, 30, 10), density=0.4, allocate="erdos-renyi")
    kept = []
    prune.upfront(
        model, score="magnitude", density=0.1, shots=4, scope="layer", path="linear", on_shot=kept.append
    )
    for name, weight in weights_of(model).items():
        counts = [shot.kept[name].numel() for shot in kept]
        want = [round(weight.nnz + (0.1 * weight.size - weight.nnz) * i / 4) for i in range(1, 5)]
        assert counts == pytest.approx(want, abs=1)
        assert counts[-1] == round(0.1 * weight.size)


def test_a_dead_layer_is_a_warning_with_its_remedy():
    model = net(8, 12, 4)
    with torch.no_grad():
        model[2].weight.mul_(1e-3)
    with pytest.warns(
        prune.LayerCollapseWarning, match=r"is left at density 0.1 in '2.weight': keep some"
    ) as got:
        topology = prune.upfront(model, score="magnitude", density=0.1)
    assert got[0].filename == __file__
    assert topology["2.weight"].nnz == 0
    alive = prune.upfront(model, score="magnitude", density=0.1, floor=3)
    assert alive["2.weight"].nnz == 3
    prune.apply(model, topology)
    assert torch.equal(model(torch.randn(2, 8)), model[2].bias.expand(2, 4))


def test_scores_that_became_equal_on_the_way_are_told():
    """SNIP on a network cut in two: all gradients are 0 from then on."""
    model = net(8, 12, 4)
    with torch.no_grad():
        model[2].weight.mul_(1e-3)
    first = vectors(torch.arange(1.0, 97).tolist(), [0.0] * 48)
    equal = vectors([0.0] * 96, [0.0] * 48)
    with pytest.warns(prune.LayerCollapseWarning, match="'2.weight'; from shot 2 on all scores were equal"):
        topology = prune.upfront(model, score=given(first, equal, equal), density=0.1, shots=3)
    assert topology.nnz == 14
    even = vectors(torch.arange(96.0).tolist(), torch.arange(0.5, 96, 2).tolist())
    with pytest.warns(prune.LayerCollapseWarning, match="cut the network; from shot 3 on all scores"):
        prune.upfront(model, score=given(even, even, equal), density=0.3, shots=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density is 0.0, but must be in \(0, 1\]"),
        ({"density": 5}, "density is 5, but must be"),
        ({"shots": 0}, "shots is 0, but must be a whole number of 1 or more"),
        ({"shots": 2.5}, "shots is 2.5"),
        ({"shots": True}, "shots is True"),
        ({"floor": -1}, "floor is -1"),
        ({"path": "exponentiel"}, "did you mean 'exponential'"),
        ({"scope": "globally"}, "did you mean 'global'"),
        ({"scope": Globally(0.5)}, r"has a density of its own: pass scope=Globally and density="),
        ({"ties": "position"}, "unknown tie rule 'position'"),
        ({"score": "snop"}, "did you mean 'snip'"),
        ({"include": "9"}, "matches no module"),
        ({"density": 0.001}, r"keeps 0 of 144 connections, too few for 2 layers: take a density of at least"),
        (
            {"density": 0.05, "floor": 5},
            r"a floor of 5 connections in each of 2 layers needs 10, but density",
        ),
        (
            {"density": 0.01, "scope": "layer"},
            r"'2.weight' of shape \(4, 12\) would keep no connection at density 0.01: raise the density, set",
        ),
        ({"score": "snip"}, "needs a loss"),
        ({"score": "random"}, "pass Probe"),
    ],
)
def test_mistakes_are_one_clear_sentence(options, message):
    with pytest.raises(InputError, match=message):
        prune.upfront(net(8, 12, 4), **{"score": "magnitude", "density": 0.3, **options})


def test_nothing_to_prune():
    with pytest.raises(InputError, match="no layer of the Sequential can be made sparse"):
        prune.upfront(nn.Sequential(nn.ReLU()), score="magnitude", density=0.1)


def test_more_than_the_candidates():
    model = sparsify(net(8, 12, 4), density=0.5, allocate="uniform")
    with pytest.raises(InputError, match=r"asks for 86 of 144 positions, but only 72 connections are there"):
        prune.upfront(model, score="magnitude", density=0.6)
    with pytest.raises(InputError, match=r"asks for 58 of the 96 positions of '0.weight', but only 48"):
        prune.upfront(model, score="magnitude", density=0.6, scope="layer")
    full = prune.upfront(net(8, 12, 4), score="magnitude", density=0.9)
    with pytest.raises(MismatchError, match=r"in '0.weight' that the model does not have: prune a topology"):
        prune.apply(model, full)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_scores_that_are_not_numbers(scope):
    bad = vectors([1.0] * 95 + [float("nan")], [2.0] * 48)
    with pytest.raises(InputError, match=r"'0.weight'.*: 1 of 96 scores are NaN"):
        prune.upfront(net(8, 12, 4), score=given(bad), density=0.3, scope=scope)


@pytest.mark.parametrize("revive", [False, True])
def test_scores_that_are_all_equal(revive):
    equal = vectors([1.5] * 96, [1.5] * 48)
    with pytest.raises(InputError, match=r"'score' is 1.5 for every connection, so none can be ranked"):
        prune.upfront(net(8, 12, 4), score=given(equal), density=0.3, revive=revive)
    whole = prune.upfront(net(8, 12, 4), score=given(equal), density=1.0, revive=revive)
    assert whole.density == 1.0


def test_scores_that_do_not_line_up():
    def short(model, probe=None, *, values=None, active=None):
        return {"0.weight": torch.ones(3)}

    with pytest.raises(MismatchError, match=r"'short' gave shape \(3,\) for '0.weight', but it has 96 cand"):
        prune.upfront(net(8, 12, 4), score=short, density=0.3)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_ticket_trains_and_evolves(sparse):
    model = make_normed()
    if sparse:
        sparsify(model, density=0.8)
    topology = prune.upfront(model, probe(), score="synflow", density=0.3, shots=10)
    prune.apply(model, topology)
    assert Topology.of(model) == topology
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    evolver = Evolve(rate=0.3, every=5, generator=torch.Generator().manual_seed(0)).attach(model, optimizer)
    x, y = samples()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        evolver.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert Topology.of(model).nnz == topology.nnz
    assert Topology.of(model) != topology


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_pruning_in_the_middle_of_training_keeps_the_optimizers_state(make):
    model = sparsify(net(8, 12, 4), density=1.0)
    options = {"lr": 0.01, **({"momentum": 0.9} if make is torch.optim.SGD else {})}
    optimizer = make(model.parameters(), **options)
    x, y = samples()
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    key = "momentum_buffer" if make is torch.optim.SGD else "exp_avg_sq"
    before = {n: optimizer.state[w.values][key].clone() for n, w in weights_of(model).items()}
    topology = prune.upfront(model, score="magnitude", density=0.2)
    prune.apply(model, topology, optimizer=optimizer)
    for name, weight in weights_of(model).items():
        assert torch.equal(optimizer.state[weight.values][key], before[name][topology[name].index])
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
