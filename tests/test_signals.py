"""Signals against dense float64 references written a second time."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.scores.networks import made
from torch import Tensor, nn
from torch.func import functional_call

from regraft import SparseWeight, signals, sparsify
from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.signals import Flow, weights_of

cross_entropy = nn.functional.cross_entropy


def mlp(density: float = 0.5) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return sparsify(model, density=density, allocate="uniform", generator=torch.Generator().manual_seed(0))


def batches(sizes: tuple[int, ...] = (8,)) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=g).double(), torch.randint(3, (n,), generator=g)) for n in sizes]


class Loss:
    def __init__(self, parts: list[tuple[Tensor, Tensor]], temperature: float = 1.0) -> None:
        self.x, self.y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        self.temperature = temperature

    def __call__(self, output: Tensor) -> Tensor:
        return cross_entropy(output / self.temperature, self.y)


def reference(model: nn.Module, loss: Loss, flat: Tensor) -> Tensor:
    """The loss as a function of all dense weights of the three layers in one vector."""
    shapes = [model[i].weight.shape for i in (0, 2, 4)]
    parts = flat.split([s.numel() for s in shapes])
    w = [p.view(s) for p, s in zip(parts, shapes, strict=True)]
    h = torch.tanh(loss.x @ w[0].t() + model[0].bias.detach())
    h = torch.relu(h @ w[1].t() + model[2].bias.detach())
    return loss(h @ w[2].t() + model[4].bias.detach())


def dense_of(model: nn.Module) -> Tensor:
    return torch.cat([model[i].weight.dense().detach().flatten() for i in (0, 2, 4)])


def positions_of(model: nn.Module) -> Tensor:
    weights, at, found = [model[i].weight for i in (0, 2, 4)], 0, []
    for w in weights:
        found.append(w.index + at)
        at += w.size
    return torch.cat(found)


@pytest.mark.parametrize("sizes", [(8,), (5, 3), (1, 1, 6)])
def test_gradient_is_that_of_the_mean_loss_however_it_is_cut_into_batches(sizes: tuple[int, ...]) -> None:
    model, parts = mlp(), batches(sizes)
    flat = dense_of(model).requires_grad_()
    (wanted,) = torch.autograd.grad(reference(model, Loss(parts), flat), flat)
    found = torch.cat(list(signals.gradient(model, Probe(cross_entropy, parts)).values()))
    torch.testing.assert_close(found, wanted[positions_of(model)], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("sizes", [(8,), (5, 3)])
def test_hessian_gradient_against_the_explicit_hessian(temperature: float, sizes: tuple[int, ...]) -> None:
    model, parts = mlp(), batches(sizes)
    loss, at = Loss(parts, temperature), positions_of(model)
    flat = dense_of(model)
    g = torch.func.grad(lambda f: reference(model, loss, f))(flat)
    h = torch.autograd.functional.hessian(lambda f: reference(model, loss, f), flat)
    wanted = h[at][:, at] @ g[at]
    signal = signals.HessianGradient(temperature)
    found = torch.cat(list(signal(model, Probe(cross_entropy, parts)).values()))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-8)


def functional_flow(model: nn.Module, x: Tensor, power: int = 1) -> dict[str, Tensor]:
    """Paths counted by matrix products, for an MLP of three layers."""
    w = [model[i].weight.dense().detach().double().abs() ** power for i in (0, 2, 4)]
    left = [x, w[0] @ x, w[1] @ w[0] @ x]
    right = [w[2].sum(0) @ w[1], w[2].sum(0), torch.ones(3).double()]
    return {
        f"{2 * i}.weight": torch.outer(right[i], left[i]).flatten()[model[2 * i].weight.index]
        for i in range(3)
    }


def test_flow_counts_paths() -> None:
    model = mlp()
    found = signals.flow(model, Probe(input_shape=(6,)))
    for name, wanted in functional_flow(model, torch.ones(6).double()).items():
        torch.testing.assert_close(found[name], wanted)


def test_functional_call_reference_has_the_same_flow() -> None:
    model = mlp()
    leaves = {
        f"{n}.values": m.values.detach().abs().requires_grad_()
        for n, m in model.named_modules()
        if isinstance(m, SparseWeight)
    }
    zeros = {f"{i}.bias": torch.zeros_like(model[i].bias) for i in (0, 2, 4)}
    linear = nn.Sequential(model[0], nn.Identity(), model[2], nn.Identity(), model[4])
    total = functional_call(linear, {**leaves, **zeros}, (torch.ones(1, 6).double(),)).sum()
    wanted = torch.autograd.grad(total, list(leaves.values()))
    found = signals.flow(model, Probe(input_shape=(6,)))
    for a, b in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(a, b)


def shares(model: nn.Module, probe: Probe, flow: Flow) -> dict[str, Tensor]:
    """What runs through each connection, as a dense weight."""
    signal = flow(model, probe)
    return {n: w.dense(w.values.detach().abs().double() * signal[n]) for n, w in weights_of(model).items()}


@pytest.mark.parametrize("flow", [signals.flow, signals.variance_flow], ids=["synaptic", "variance"])
@pytest.mark.parametrize("name", ["mlp", "lenet-5"])
def test_what_enters_a_hidden_unit_leaves_it_and_layer_sums_are_equal(name: str, flow: Flow) -> None:
    model, probe = made(name)
    found = list(shares(model, probe, flow).values())
    for before, after in itertools.pairwise(found):
        entering = before.flatten(1).sum(1)
        per_unit = after.transpose(0, 1).flatten(1).sum(1)
        leaving = per_unit.view(len(entering), -1).sum(1)  # a flattened channel is several input units
        torch.testing.assert_close(entering, leaving, rtol=1e-12, atol=1e-12)
        assert float(entering.sum()) > 0


@pytest.mark.parametrize("flow", [signals.flow, signals.variance_flow], ids=["synaptic", "variance"])
def test_conservation_with_batch_normalisation_and_a_residual_stream(flow: Flow) -> None:
    model, probe = made("residual")
    model.train()
    found = shares(model, probe, flow)
    torch.testing.assert_close(found["stem.weight"].sum(), found["head.weight"].sum())
    entering, leaving = found["conv1.weight"].flatten(1).sum(1), found["conv2.weight"].sum((2, 3))
    by_channel = torch.stack([leaving[:2, 0], leaving[:2, 1], leaving[2:, 0], leaving[2:, 1]]).sum(1)
    torch.testing.assert_close(entering, by_channel)  # conv2 has two groups
    assert float(entering.sum()) < float(found["stem.weight"].sum())  # the stream goes past the branch


@pytest.mark.parametrize(
    "middle",
    [
        nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(), nn.ReLU6(), nn.Softmax(1),
        nn.PReLU(), nn.Hardswish(), nn.Softplus(), nn.Dropout(0.5), nn.LogSoftmax(1), nn.Mish(),
    ],
)  # fmt: skip
def test_every_activation_lets_all_flow_pass(middle: nn.Module) -> None:
    model = mlp()
    wanted = signals.flow(model, Probe(input_shape=(6,)))
    model[1] = model[3] = middle
    found = signals.flow(model, Probe(input_shape=(6,)))
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", ["layer", "group", "instance", "batch", "rms"])
def test_normalisation_only_scales(kind: str, power: int) -> None:
    torch.manual_seed(1)
    norm = {
        "layer": nn.LayerNorm(5), "group": nn.GroupNorm(1, 5), "rms": nn.RMSNorm(5),
        "instance": nn.InstanceNorm1d(5, affine=True), "batch": nn.BatchNorm1d(5),
    }[kind]  # fmt: skip
    with torch.no_grad():
        norm.weight.normal_()
        scale = norm.weight.detach().abs().double() ** power
        if kind == "batch":
            norm.running_var.uniform_(0.5, 2.0)
            norm.running_mean.normal_()
            scale /= (norm.running_var.double() + norm.eps) ** (power / 2)

    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:  # instance normalisation wants [N, C, L]
            return self.norm(x.unsqueeze(2)).squeeze(2) if kind == "instance" else self.norm(x)

    model = nn.Sequential(nn.Linear(6, 5), Middle(), nn.Linear(5, 3))
    sparsify(model, density=1.0)
    found = Flow(power)(model, Probe(input_shape=(6,)))["0.weight"].view(5, 6)
    first, last = (model[i].weight.dense().detach().abs().double() for i in (0, 2))
    wanted = ((last**power).sum(0) * scale)[:, None] * first ** (power - 1)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_variance_flow_is_the_outputs_variance_under_all_signs_of_the_weights() -> None:
    """Every choice of signs of a small linear network, each propagated exactly: their mean variance."""
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    sparsify(model, density=1.0)
    a, b = (model[i].weight.dense().detach() for i in (0, 1))
    x = torch.randn(20, 3, generator=g).double() * torch.tensor([1.0, 3.0, 0.2])
    variance = x.var(0, correction=0)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=10))).double()
    whole = (signs[:, 6:].view(-1, 2, 2) * b) @ (signs[:, :6].view(-1, 2, 3) * a)
    wanted = (whole.square() @ variance).sum(1).mean()
    found = shares(model, Probe(batches=[(x[:5], x[:5]), (x[5:], x[5:])]), signals.variance_flow)
    for share in found.values():
        torch.testing.assert_close(share.sum(), wanted)


def test_flow_is_float64_and_reaches_through_many_layers() -> None:
    model = nn.Sequential(*(nn.Linear(30, 30) for _ in range(60)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(2.0)  # R = 60^60 overflows float32
    sparsify(model, density=1.0)
    found = signals.flow(model, Probe(input_shape=(30,)))
    assert all(v.dtype == torch.float64 and bool((v > 0).all() & v.isfinite().all()) for v in found.values())


def test_flow_of_a_candidate_is_what_it_would_carry() -> None:
    """The signal at a pruned position is the growth of R per unit of that one connection."""
    model, x = mlp(1.0), torch.ones(6).double()
    g = torch.Generator().manual_seed(3)
    active = {n: torch.rand(w.nnz, generator=g) < 0.5 for n, w in weights_of(model).items()}
    found = signals.flow(model, Probe(input_shape=(6,)), active=active)

    def total(masks: dict[str, Tensor]) -> Tensor:
        out = x
        for n, w in weights_of(model).items():
            out = (w.dense().detach().abs() * masks[n].view(w.shape)) @ out
        return out.sum()

    for name, w in weights_of(model).items():
        i = int((~active[name]).nonzero()[0])
        there = {n: m.clone() for n, m in active.items()}
        there[name][i] = True
        grown = (total(there) - total(active)) / w.values.detach()[i].abs()
        torch.testing.assert_close(found[name][i], grown)


def test_batch_statistics_in_training_mode_and_running_ones_otherwise() -> None:
    model, probe = made("residual", dtype=torch.float64)
    probe = Probe(probe.loss, [tuple(torch.cat(t) for t in zip(*probe.batches, strict=True))])
    x, y = probe.batches[0]
    model.dropout.p = 0.0  # what the reference below would draw
    for training in (True, False):
        model.train(training)
        values = [w.values for w in weights_of(model).values()]
        kept = {n: b.clone() for n, b in model.named_buffers()}
        wanted = torch.autograd.grad(cross_entropy(model(x), y), values)
        for n, b in model.named_buffers():
            b.copy_(kept[n])
        for found, slope in zip(signals.gradient(model, probe).values(), wanted, strict=True):
            torch.testing.assert_close(found, slope)


def test_dropout_is_off_in_training_mode() -> None:
    model, probe = made("residual")
    model.train()
    a, b = (signals.gradient(model, probe) for _ in range(2))
    assert all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), True, "200"])
def test_temperature_must_be_positive(temperature: object) -> None:
    with pytest.raises(InputError, match="must be a positive number; 200 and 1 are usual"):
        signals.HessianGradient(temperature)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0, 1.5, True])
def test_power_must_be_a_positive_integer(power: object) -> None:
    with pytest.raises(InputError, match=r"must be 1 \(synaptic flow\), 2"):
        Flow(power)  # type: ignore[arg-type]


def test_a_model_whose_output_ignores_its_weights() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x

    model = sparsify(Constant(), density=1.0)
    with pytest.raises(InputError, match="does not depend on its sparse weights"):
        signals.flow(model, Probe(input_shape=(2,)))


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature() -> None:
    model = sparsify(nn.Sequential(nn.Linear(3, 2)), density=1.0)
    probe = Probe(lambda output, y: output.sum(), [(torch.ones(2, 3), torch.zeros(2))])
    assert signals.hessian_gradient(model, probe)["0.weight"].tolist() == [0.0] * 6


def test_batches_without_samples_or_of_different_shapes() -> None:
    model = mlp()
    none = torch.zeros(0, 6).double()
    for signal in (signals.gradient, signals.variance_flow):
        with pytest.raises(InputError, match="batches without samples"):
            signal(model, Probe(cross_entropy, [(none, none[:, 0].long())]))
    with pytest.raises(MismatchError, match="samples of different shapes"):
        signals.variance_flow(model, Probe(batches=[(torch.zeros(2, 6), none), (torch.zeros(2, 5), none)]))


def test_frozen_weights_have_signals_and_stay_frozen() -> None:
    model, parts = mlp(), batches()
    wanted = signals.gradient(model, Probe(cross_entropy, parts))
    model.requires_grad_(False)
    found = signals.gradient(model, Probe(cross_entropy, parts))
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)
    assert not any(p.requires_grad for p in model.parameters())
