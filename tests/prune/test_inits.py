"""Initial values: scores as weights and the controls, into dense and sparse models."""

import math

import pytest
import torch
from tests.prune.toys import make_normed, net, probe, samples, state
from torch import nn

from regraft import SparseWeight, Topology, prune, scores, sparsify
from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLinear
from regraft.prune import Bimodal, Reinitialised, ScoresAsWeights

ALL = sorted([*prune.INITS, "scores:snip", "scores:stacked(snip, synflow)", "scores:grasp"])


def fresh(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_values_go_in_and_nothing_else_changes(name, sparse):
    model = make_normed()
    if sparse:
        sparsify(model, density=0.4, generator=fresh())
    before, parameters = state(model), dict(model.named_parameters())
    assert prune.initialise(model, name, probe(), exclude="conv", generator=fresh()) is model
    assert {n: id(p) for n, p in model.named_parameters()} == {n: id(p) for n, p in parameters.items()}
    changed = {n for n, v in state(model).items() if not torch.equal(v, before[n])}
    assert changed == {"head.weight.values" if sparse else "head.weight"}
    once = state(model)
    prune.initialise(
        prune.initialise(model, "permuted", generator=fresh(9)), name, probe(), generator=fresh()
    )
    assert all(v.isfinite().all() for v in state(model).values())
    again = make_normed()
    if sparse:
        sparsify(again, density=0.4, generator=fresh())
    prune.initialise(again, name, probe(), exclude="conv", generator=fresh())
    assert all(torch.equal(v, once[n]) for n, v in state(again).items())


@pytest.mark.parametrize("scale", ["global", "layer"])
@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_scores_as_weights(scale, score):
    """The reference: the score of the dense network, by hand."""
    model = net(8, 12, 4)
    copied, _ = prune.candidates(model)
    scored = {n: v.detach().abs() for n, v in scores.parse(score)(copied, probe()).items()}
    most = max(v.max() for v in scored.values())
    want = {
        n: v / (most if scale == "global" else v.max()) * model.get_parameter(n).detach().flatten().sign()
        for n, v in scored.items()
    }
    prune.initialise(model, ScoresAsWeights(scores.parse(score), scale), probe())
    for name, values in want.items():
        torch.testing.assert_close(model.get_parameter(name).flatten(), values.float(), rtol=1e-6, atol=0)
        assert float(values.abs().max()) == 1.0 or scale == "global"


def test_signs_survive_a_zero_weight():
    weight = SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([0.0, -4.0]))

    def score(model, probe=None, *, values=None, active=None):
        return {"weight": torch.tensor([2.0, -1.0])}

    assert ScoresAsWeights(score)(SparseLinear(weight, None))["weight"].tolist() == [1.0, -0.5]


def test_scores_of_zero_cannot_be_scaled():
    model = net(8, 12, 4)
    nn.init.zeros_(model[2].weight)
    with pytest.raises(InputError, match=r"'magnitude' is 0 at most in '2.weight', so it cannot be scaled"):
        prune.initialise(model, ScoresAsWeights(scores.magnitude, "layer"))
    with pytest.raises(InputError, match="is 0 at most"):
        prune.initialise(model, "scores:synflow", probe())


def sparse_layer(n_out, n_in):
    return sparsify(nn.Sequential(nn.Linear(n_in, n_out)), density=0.5, generator=fresh())


def test_bimodal_has_two_bumps_and_hes_mean_square():
    model = prune.initialise(sparse_layer(300, 200), Bimodal(0.2), generator=fresh())
    values = model[0].weight.values.detach()
    n, centre = values.numel(), math.sqrt(2 / 200 / 1.04)
    assert abs(values.square().mean() - 2 / 200) < 5 * 2 / 200 / math.sqrt(n)
    assert abs((values > 0).float().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)
    assert abs(values.abs().mean() - centre) < 5 * 0.2 * centre / math.sqrt(n)
    assert (values.abs() < centre / 3).float().mean() < 0.01


@pytest.mark.parametrize(("kind", "bound"), [("he", math.sqrt(6 / 200)), ("torch", math.sqrt(1 / 200))])
def test_reinitialised_is_uniform_by_the_dense_fan_in(kind, bound):
    model = prune.initialise(sparse_layer(300, 200), Reinitialised(kind), generator=fresh())
    values = model[0].weight.values.detach().sort().values
    even = torch.linspace(-bound, bound, values.numel())
    assert (values - even).abs().max() < bound * 3 / math.sqrt(values.numel())


def test_he_normal_is_normal_with_hes_variance():
    model = prune.initialise(sparse_layer(300, 200), "he-normal", generator=fresh())
    z = model[0].weight.values.detach().sort().values * math.sqrt(200 / 2)
    n = z.numel()
    quantiles = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    middle = slice(n // 100, -n // 100)
    assert (z - quantiles)[middle].abs().max() < 0.05


def test_permuted_keeps_the_values():
    model = net(8, 12, 4)
    before = model[0].weight.detach().flatten().clone()
    prune.initialise(model, "permuted", generator=fresh())
    after = model[0].weight.detach().flatten()
    assert torch.equal(after.sort().values, before.sort().values)
    assert (after == before).float().mean() < 0.2


def test_the_thesis_road_initialise_prune_apply():
    """SynFlow on weights initialised with SNIP scores: the ticket starts with those values."""
    model = net(8, 12, 4)
    prune.initialise(model, "scores:snip", probe())
    topology = prune.upfront(model, probe(), score="synflow", density=0.2, shots=5)
    values = model[0].weight.detach().flatten()[topology["0.weight"].index]
    prune.apply(model, topology)
    assert torch.equal(model[0].weight.values, values)
    assert Topology.of(model) == topology
    assert model(samples()[0]).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: prune.initialise(m, "bimodl"), "unknown initial values 'bimodl': did you mean 'bimodal'"),
        (lambda m: prune.initialise(m, "scores"), "unknown initial values 'scores'"),
        (lambda m: prune.initialise(m, "scores:snop"), "did you mean 'snip'"),
        (lambda m: prune.initialise(m, "bimodal"), "Bimodal draws random numbers: pass generator="),
        (lambda m: prune.initialise(m, "permuted"), "permuted draws random numbers"),
        (lambda m: prune.initialise(m, "reinitialised"), "Reinitialised draws random numbers"),
        (lambda m: ScoresAsWeights(scores.magnitude, "all"), "unknown scale of the scores 'all'"),
        (lambda m: Bimodal(-1.0), "width of Bimodal is -1.0"),
        (lambda m: Reinitialised("kaiming"), "unknown kind of initial values 'kaiming'"),
        (lambda m: prune.initialise(nn.Sequential(nn.ReLU()), "bimodal"), "no layer of the Sequential"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call(net(8, 12, 4))


def test_values_of_the_wrong_number_are_refused():
    def short(model, probe=None, *, generator=None):
        return {"0.weight": torch.ones(3)}

    with pytest.raises(MismatchError, match=r"'0.weight' are not one number for each of its 96 connections"):
        prune.initialise(net(8, 12, 4), short)
