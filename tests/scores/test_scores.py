"""Scores: vectors that line up with the positions; the better connection has the higher number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.scores.networks import MAKE, made
from torch import Tensor, nn

from regraft import SparseWeight, kernels, sparsify
from regraft import scores as family
from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.scores import Connectivity, Inverted, Learned, Regressor, Saliency, Score, Stacked, weights_of
from regraft.select import Globally
from regraft.signals import HessianGradient, gradient

# Every score by its name, and those that are made of others: a name that is missing here fails a test.
LINE = Regressor("linear", {"coef": torch.tensor([1.0, 0.5, 0.2, 2.0]), "intercept": torch.zeros(1)}, 4)
CASES: dict[str, Score] = {
    "magnitude": family.magnitude,
    "random": family.random,
    "snip": family.snip,
    "grasp": family.grasp,
    "grasp-magnitude": family.grasp_magnitude,
    "synflow": family.synflow,
    "variance-flow": family.variance_flow,
    "connectivity": Connectivity(),
    "stacked": Stacked(family.snip, family.grasp, family.synflow, signed=True),
    "inverted": Inverted(family.snip),
    "learned": Learned(LINE),
}
REVIVES = sorted(set(CASES) - {"random", "stacked", "learned"})  # the last two scale by all candidates


def test_every_named_score_is_tested() -> None:
    assert set(family.SCORES) == set(CASES) - {"stacked", "inverted", "learned"}
    assert all(family.SCORES[n] == CASES[n] for n in family.SCORES)


def snapshot(model: nn.Module) -> list[object]:
    """All that a score must leave alone, tensors as raw bytes."""
    state = [
        (n, t.detach().clone().contiguous().view(-1).numpy().tobytes()) for n, t in model.state_dict().items()
    ]
    grads = [None if p.grad is None else p.grad.clone().numpy().tobytes() for p in model.parameters()]
    modules = [(id(m), m.training, len(m._forward_hooks)) for m in model.modules()]
    tensors = [(id(t), t.requires_grad) for t in (*model.parameters(), *model.buffers())]
    return [state, grads, modules, tensors, torch.get_rng_state().numpy().tobytes(), kernels.current()]


@pytest.mark.parametrize("model_name", sorted(MAKE))
@pytest.mark.parametrize("name", sorted(CASES))
def test_vectors_line_up_and_the_model_is_left_as_it_was(name: str, model_name: str) -> None:
    model, probe = made(model_name)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    list(model.children())[-1].eval()
    weights, before = weights_of(model), snapshot(model)
    with torch.no_grad():  # as a caller may be in the midst of an evaluation
        vectors = CASES[name](model, probe)
    assert snapshot(model) == before
    assert list(vectors) == list(weights)
    for n, vector in vectors.items():
        assert vector.shape == weights[n].values.shape
        assert not vector.requires_grad
        assert bool(vector.isfinite().all())
        assert vector.unique().numel() > 1


class Fault(Exception):
    pass


@pytest.mark.parametrize("model_name", sorted(MAKE))
@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "learned"])
def test_the_model_is_left_as_it_was_after_an_exception(name: str, model_name: str) -> None:
    model, probe = made(model_name)

    def fail(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise Fault

    handle = list(model.children())[-1].register_forward_pre_hook(fail)
    before = snapshot(model)
    with pytest.raises(Fault):
        CASES[name](model, probe)
    assert snapshot(model) == before
    handle.remove()


@pytest.mark.parametrize("model_name", sorted(MAKE))
@pytest.mark.parametrize("name", REVIVES)
def test_connections_that_are_not_active_do_not_compute_but_are_scored(name: str, model_name: str) -> None:
    """What is active scores as in the network that has nothing else, exactly; the rest has a score too."""
    model, probe = made(model_name, dtype=torch.float64)
    g = torch.Generator().manual_seed(5)
    weights = weights_of(model)
    active = {n: torch.rand(w.nnz, generator=g) < 0.6 for n, w in weights.items()}
    found = CASES[name](model, probe, active=active)
    pruned, _ = made(model_name, dtype=torch.float64)
    for n, w in weights_of(pruned).items():
        w.replace(w.index[active[n]], w.values.detach()[active[n]])
    wanted = CASES[name](pruned, probe)
    for n in weights:
        torch.testing.assert_close(found[n][active[n]], wanted[n], rtol=1e-7, atol=1e-13)
    assert torch.cat([found[n][~active[n]] for n in weights]).count_nonzero() > 0


def test_snip_of_an_inactive_connection_is_the_gradient_of_its_mask() -> None:
    model, probe = made("mlp", density=1.0, dtype=torch.float64)
    weights = weights_of(model)
    g = torch.Generator().manual_seed(5)
    active = {n: torch.rand(w.nnz, generator=g) < 0.6 for n, w in weights.items()}
    masks = [active[n].double().view(w.shape).requires_grad_() for n, w in weights.items()]
    biases = [model.get_submodule(n.removesuffix(".weight")).bias.detach() for n in weights]
    x, y = (torch.cat(t) for t in zip(*probe.batches, strict=True))
    for i, (w, mask, bias) in enumerate(zip(weights.values(), masks, biases, strict=True)):
        x = nn.functional.linear(x, w.dense().detach() * mask, bias)
        x = x.relu() if i < 2 else x
    wanted = torch.autograd.grad(nn.functional.cross_entropy(x, y), masks)
    found = family.snip(model, probe, active=active)
    for vector, slope in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(vector, slope.abs().flatten(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("model_name", sorted(MAKE))
@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "variance-flow"])
def test_compressed_and_materialised_kernels_score_alike(name: str, model_name: str) -> None:
    model, probe = made(model_name, density=0.3, dtype=torch.float64)
    found = []
    for mode in ("compressed", "materialised"):
        with kernels.use(mode):
            found.append(CASES[name](model, probe))
    for n in found[0]:
        torch.testing.assert_close(found[0][n], found[1][n], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", sorted(CASES))
def test_values_stand_in_for_the_weights(name: str) -> None:
    model, probe = made("mlp", dtype=torch.float64)
    other, _ = made("mlp", dtype=torch.float64)
    values = {n: w.values.detach().flip(0) * 3 for n, w in weights_of(model).items()}
    with torch.no_grad():
        for n, w in weights_of(other).items():
            w.values.copy_(values[n])
    probes = [replace(probe, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    found, wanted = CASES[name](model, probes[0], values=values), CASES[name](other, probes[1])
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


# Orientation: what each score must keep, of two connections that differ in one respect.


def path_network(*values: float) -> nn.Module:
    """Two paths: inputs 0 and 1, each by its own hidden unit, to one output; weights a0, a1, then b0, b1."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor(values[:2])))
        model[2].weight.copy_(torch.tensor([values[2:]]))
    for layer in (0, 2):
        model[layer] = sparsify(nn.Sequential(model[layer]), density=1.0)[0]
    model[0].weight.replace(torch.tensor([0, 3]), torch.tensor(values[:2]).double())
    return model


def squares(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


DATA = [(torch.tensor([[2.0, 1.0]]).double(), torch.tensor([[10.0]]).double())]
STRONG_SECOND = {  # weights under which the second path is the one to keep
    "magnitude": (1.0, 2.0, 1.0, 2.0),
    "snip": (1.0, 3.0, 1.0, 1.0),  # it carries 3, the first one 2
    "grasp-magnitude": (1.0, 3.0, 1.0, 3.0),
    "synflow": (-1.0, 3.0, 2.0, -1.0),  # 3 against 2
}


@pytest.mark.parametrize("name", sorted(STRONG_SECOND))
def test_the_stronger_path_scores_higher(name: str) -> None:
    model = path_network(*STRONG_SECOND[name])
    for vector in CASES[name](model, Probe(squares, DATA)).values():
        assert vector[1] > vector[0]
    for vector in Inverted(CASES[name])(model, Probe(squares, DATA)).values():
        assert vector[1] < vector[0]


def test_variance_flow_keeps_the_input_that_varies() -> None:
    model = path_network(1.0, 1.0, 1.0, 1.0)
    x = torch.tensor([[3.0, 0.0], [3.1, 2.0], [2.9, -2.0]]).double()
    for vector in family.variance_flow(model, Probe(batches=[(x, x)])).values():
        assert vector[1] > vector[0]


def test_grasp_removes_first_what_lowers_the_gradient_norm_least() -> None:
    """The score is -1/2 the first-order change of the squared gradient norm when a connection goes."""
    model, probe = made("mlp", density=1.0, dtype=torch.float64)
    grasp = Saliency(HessianGradient(1.0))
    scores = torch.cat(list(grasp(model, probe).values()))
    sizes = [w.nnz for w in weights_of(model).values()]

    def norm(factor: Tensor) -> float:
        parts = factor.split(sizes)
        values = {n: w.values * f for (n, w), f in zip(weights_of(model).items(), parts, strict=True)}
        return sum(float(v.square().sum()) for v in gradient(model, probe, values=values).values())

    whole, step = norm(torch.ones(len(scores)).double()), 1e-6
    for i in (int(scores.argmin()), int(scores.argmax()), 5):
        factor = torch.ones(len(scores)).double()
        factor[i] -= step
        assert (norm(factor) - whole) / step == pytest.approx(-2 * float(scores[i]), rel=1e-3)
    few = len(scores) // 20
    order = scores.argsort()
    without = []
    for removed in (order[:few], order[-few:]):
        factor = torch.ones(len(scores)).double()
        factor[removed] = 0
        without.append(norm(factor))
    assert without[0] > without[1]


def test_magnitude_is_the_dense_weight() -> None:
    model, _ = made("mlp")
    for name, weight in weights_of(model).items():
        assert family.magnitude(model)[name].equal(weight.dense().detach().abs().flatten()[weight.index])


def test_magnitude_keeps_the_large_ones() -> None:
    model, _ = made("mlp")
    weights = weights_of(model)
    sizes = {n: w.size for n, w in weights.items()}
    kept = Globally(0.1)(family.magnitude(model), sizes)
    values = torch.cat([w.values.detach().abs() for w in weights.values()])
    stay = torch.cat([w.values.detach().abs()[kept[n]] for n, w in weights.items()])
    assert stay.sort().values.equal(values.sort().values[-round(0.1 * sum(sizes.values())) :])


def test_random_follows_the_generator_only() -> None:
    model, _ = made("mlp")
    a, b, c = (family.random(model, Probe(generator=torch.Generator().manual_seed(s))) for s in (1, 1, 2))
    assert all(a[n].equal(b[n]) for n in a)
    assert not all(a[n].equal(c[n]) for n in a)


def test_normalised_scores_sum_to_one_and_keep_their_order() -> None:
    model, probe = made("mlp", dtype=torch.float64)
    plain, scaled = family.snip(model, probe), replace(family.snip, normalise=True)(model, probe)
    assert sum(float(s.sum()) for s in scaled.values()) == pytest.approx(1.0)
    total = sum(float(s.sum()) for s in plain.values())
    for n in plain:
        torch.testing.assert_close(scaled[n] * total, plain[n])


# What goes wrong


def test_no_weights() -> None:
    for score in CASES.values():
        with pytest.raises(InputError, match="no sparse weight to score"):
            score(nn.Sequential(nn.Linear(2, 2)), Probe(squares, DATA, torch.Generator()))


@pytest.mark.parametrize(
    ("name", "probe", "fault"),
    [
        ("random", None, "random score draws random numbers"),
        ("snip", None, "the gradient needs a loss"),
        ("snip", Probe(squares), "the gradient needs at least one batch"),
        ("grasp", Probe(), "Hessian-gradient product needs a loss"),
        ("synflow", None, r"needs the shape of a sample: pass Probe\(input_shape="),
        ("variance-flow", Probe(input_shape=(12,)), "variance flow needs at least one batch"),
    ],
)
def test_what_the_probe_lacks(name: str, probe: Probe | None, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        family.by_name(name)(made("mlp")[0], probe)


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        (lambda o, y: (o - 1).square(), r"the loss returned shape \(4, 3\), but must be one number"),
        (lambda o, y: 3.0, "the loss returned float, but must be one number"),
        (lambda o, y: o.detach().sum(), "does not depend on the model's sparse weights"),
        (lambda o, y: o.sum() * torch.nan, "scores of 'fc1.weight' are NaN or infinite"),
        (lambda o, y: nn.functional.cross_entropy(o, y[:2]), "the loss cannot compare outputs of shape"),
    ],
)
def test_losses_that_cannot_be_used(loss: Callable[[Tensor, Tensor], Tensor], fault: str) -> None:
    model, probe = made("mlp")
    for name in ("snip", "grasp"):
        with pytest.raises((InputError, MismatchError), match=fault):
            family.by_name(name)(model, replace(probe, loss=loss))


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "variance-flow", "learned"])
def test_batches_that_do_not_fit(name: str) -> None:
    model, probe = made("mlp")
    with pytest.raises(MismatchError, match=r"cannot take a batch of shape \(\d, 5\)"):
        CASES[name](model, replace(probe, batches=[(torch.zeros(2, 5), torch.zeros(2).long())]))


def test_values_and_active_that_do_not_fit() -> None:
    model, probe = made("mlp")
    values = {n: w.values.detach() for n, w in weights_of(model).items()}
    with pytest.raises(MismatchError, match=r"values lacks the weight 'fc2.weight'"):
        family.snip(model, probe, values={"fc1.weight": values["fc1.weight"]})
    with pytest.raises(MismatchError, match=r"values\['fc1.weight'\] has shape \(3,\)"):
        family.synflow(model, probe, values={**values, "fc1.weight": torch.zeros(3)})
    with pytest.raises(InputError, match=r"active\['fc1.weight'\] is of type torch.float32"):
        family.synflow(model, probe, active=values)


def test_a_model_that_returns_no_tensor() -> None:
    model = nn.Sequential(nn.LSTM(3, 3), nn.Linear(3, 3))
    sparsify(model, density=1.0)
    tuples = nn.Sequential(model[1], nn.LSTM(3, 3))
    with pytest.raises(InputError, match="returns a tuple, but a score needs one tensor"):
        family.synflow(tuples, Probe(input_shape=(3,)))


def test_one_sparse_weight_alone() -> None:
    assert isinstance(weights_of(SparseWeight((1, 2), torch.tensor([0]), torch.ones(1)))[""], SparseWeight)
