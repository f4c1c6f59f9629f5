"""Growth by gradients: what is captured, against dense autograd; the search against the dense gradient."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseWeight, Topology, densify, kernels, positions, sparsify
from regraft.errors import InputError
from regraft.evolve import GROWS, Context, Evolve, Gradient, Grow, Growth, InnerProduct, Watching
from regraft.evolve.capture import columns, dense_gradient, recording
from regraft.layers import SparseLayer
from regraft.layers.modules import sparse_layers
from regraft.probe import Probe
from regraft.search import SEARCHES, Found, exact


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(density: float = 0.2, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(14, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 5))
    return sparsify(model, density=density, generator=seeded(seed))


def batch(n: int = 9, seed: int = 5) -> tuple[Tensor, Tensor]:
    g = seeded(seed)
    return torch.randn(n, 14, generator=g), torch.randint(5, (n,), generator=g)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


def weights(model: nn.Module) -> dict[str, SparseWeight]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}


def dense_autograd(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """Gradients of all weights, active or not, through the dense model in float64."""
    dense = densify(copy.deepcopy(model)).double()
    loss(dense).backward()
    return {n: p.grad for n, p in dense.named_parameters() if p.grad is not None}


CONVOLUTIONS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"kernel_size": 3, "stride": 2}, (3, 4, 11)),
    (nn.Conv1d, {"kernel_size": 3, "padding": "same"}, (4, 9)),  # no batch dimension
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (2, 4, 6, 5)),
    (
        nn.Conv2d,
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
        (2, 4, 7, 6),
    ),
    (nn.Conv2d, {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}, (2, 4, 6, 5)),
    (nn.Conv2d, {"kernel_size": 1}, (1, 4, 3, 3)),
    (nn.Conv2d, {"kernel_size": 3, "groups": 2, "padding": 1}, (2, 4, 5, 5)),
    (nn.Conv2d, {"kernel_size": 3, "groups": 4}, (2, 4, 5, 5)),
    (nn.Conv3d, {"kernel_size": 2, "stride": (1, 2, 1)}, (2, 4, 4, 5, 3)),
]


def convolution(case: tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]) -> tuple[nn.Module, Tensor]:
    kind, options, shape = case
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(kind(4, 8, **options))
        return sparsify(model.double(), density=0.3, generator=seeded()), torch.randn(shape).double()


def captured(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}

    def keep(name: str, layer: SparseLayer, x: Tensor, dz: Tensor) -> None:
        found[name] = x, dz

    with recording(sparse_layers(model), keep):
        loss(model).backward()
    assert not any(m._forward_hooks for m in model.modules())
    return found


class TestCapture:
    @pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda c: f"{c[0].__name__}-{c[1]}")
    def test_convolutions_against_dense_autograd(self, case: Any) -> None:
        model, x = convolution(case)

        def loss(m: nn.Module) -> Tensor:
            return m(x).pow(3).sum()

        wanted = dense_autograd(model, loss)["0.weight"]
        layer = model[0]
        rows, cols = columns(layer, *captured(model, loss)["0"])
        groups = layer.groups
        product = torch.stack(
            [r @ c.t() for r, c in zip(rows.chunk(groups), cols.chunk(groups), strict=True)]
        )
        torch.testing.assert_close(product.reshape(wanted.shape), wanted)
        torch.testing.assert_close(dense_gradient(layer, *captured(model, loss)["0"]), wanted)

    @pytest.mark.parametrize("shape", [(6, 8), (8,), (2, 3, 8)])
    def test_linear_against_dense_autograd(self, shape: tuple[int, ...]) -> None:
        model = sparsify(nn.Sequential(nn.Linear(8, 5)).double(), density=0.3, generator=seeded())
        x = torch.randn(shape, generator=seeded()).double()

        def loss(m: nn.Module) -> Tensor:
            return m(x).pow(3).sum()

        rows, cols = columns(model[0], *captured(model, loss)["0"])
        torch.testing.assert_close(rows @ cols.t(), dense_autograd(model, loss)["0.weight"])

    @pytest.mark.parametrize("case", CONVOLUTIONS[2:4], ids=["plain", "strided"])
    def test_some_positions_have_the_expectation_of_all(self, case: Any) -> None:
        model, x = convolution(case)
        seen = captured(model, lambda m: m(x).pow(3).sum())["0"]
        everything = columns(model[0], *seen)
        exact = everything[0] @ everything[1].t()
        g, total = seeded(1), torch.zeros_like(exact)
        for _ in range(400):
            rows, cols = columns(model[0], *seen, 10, g)
            assert rows.shape[1] == cols.shape[1] == 10
            total += rows @ cols.t()
        assert float((total / 400 - exact).norm() / exact.norm()) < 0.2

    def test_a_module_used_twice_is_seen_twice(self) -> None:
        layer = nn.Linear(6, 6)
        model = sparsify(nn.Sequential(layer, nn.ReLU(), layer), density=0.5, generator=seeded())
        evolver = Evolve("magnitude", Gradient(), generator=seeded()).attach(model)
        x = torch.randn(4, 6, generator=seeded())
        dense, bias = model[0].weight.dense().detach().requires_grad_(), model[0].bias.detach()
        hidden = nn.functional.linear(x, dense, bias).relu()
        nn.functional.linear(hidden, dense, bias).pow(2).sum().backward()
        with evolver.watch():
            model(x).pow(2).sum().backward()
        kept = evolver._captured["0.weight"]
        assert len(kept) == 2
        assert dense.grad is not None
        torch.testing.assert_close(sum(dense_gradient(model[0], *pair) for pair in kept), dense.grad)

    def test_inplace_activations(self) -> None:
        model = sparsify(
            nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)),
            density=0.5,
            generator=seeded(),
        )
        x = torch.randn(4, 6, generator=seeded())

        def loss(m: nn.Module) -> Tensor:
            return m(x.to(next(m.parameters()).dtype)).pow(2).sum()

        wanted = dense_autograd(model, loss)
        with kernels.use("materialised"):
            found = captured(model, loss)
        for name, seen in found.items():
            got = dense_gradient(model.get_submodule(name), *seen)
            torch.testing.assert_close(got.double(), wanted[f"{name}.weight"], rtol=1e-5, atol=1e-5)


def by_hand(model: nn.Module, rate: float, data: tuple[Tensor, Tensor]) -> dict[str, set[int]]:
    """The topology that RigL's paper asks for, with sorts over dense tensors."""
    gradients = dense_autograd(model, lambda m: cross_entropy(m(data[0].double()), data[1]))
    wanted = {}
    for name, w in weights(model).items():
        k = round(rate * w.nnz)
        order = sorted(range(w.nnz), key=lambda e: abs(float(w.values.detach()[e])))
        stay = {int(w.index[e]) for e in order[k:]}
        steep = gradients[name].abs().reshape(-1)
        free = sorted((p for p in range(w.size) if p not in stay), key=lambda p: -float(steep[p]))
        wanted[name] = stay | set(free[:k])
    return wanted


RULES: dict[str, Grow] = {"gradient": Gradient(), "inner-product": InnerProduct()}


def test_every_grow_rule_is_in_a_table() -> None:
    assert set(GROWS) == {"random", *RULES}
    assert all(type(GROWS[name]()) is type(rule) for name, rule in RULES.items())


def test_several_processes_would_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    evolver = Evolve("magnitude", "gradient", generator=seeded()).attach(model := mlp())
    with (
        pytest.raises(InputError, match="attach the model wrapped in DistributedDataParallel"),
        evolver.watch(),
    ):
        pass
    with pytest.raises(InputError, match="attach the model wrapped in DistributedDataParallel"):
        evolver.show({})
    assert evolver.step(Probe(loss=cross_entropy, batches=[batch()])) is not None
    with Evolve(generator=seeded()).attach(model).watch():  # SET looks at no gradients
        pass


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
class TestRigL:
    def test_as_in_the_paper(self, rule: Grow) -> None:
        model, data = mlp(), batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolver = Evolve("magnitude", rule, 0.4, generator=seeded()).attach(model, optimizer)
        cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
        wanted = by_hand(model, 0.4, data)
        before = {
            n: dict(zip(w.index.tolist(), w.values.tolist(), strict=True)) for n, w in weights(model).items()
        }
        momentum = {
            n: dict(zip(w.index.tolist(), optimizer.state[w.values]["momentum_buffer"].tolist(), strict=True))
            for n, w in weights(model).items()
        }
        done = evolver.step(Probe(loss=cross_entropy, batches=[data]))
        assert done is not None
        for name, w in weights(model).items():
            after = set(w.index.tolist())
            assert after == wanted[name]
            assert done.dropped[name] == round(0.4 * len(before[name]))
            # what stays, and what was dropped and found again, is as it was, bit for bit; the rest is fresh
            buffer = optimizer.state[w.values]["momentum_buffer"].tolist()
            for p, value, moment in zip(w.index.tolist(), w.values.tolist(), buffer, strict=True):
                assert (value, moment) == (before[name].get(p, 0.0), momentum[name].get(p, 0.0))
            assert len(after - set(before[name])) == done.dropped[name] - done.regrown[name]
        assert sum(done.regrown.values()) > 0

    def test_regrown_connections_may_start_fresh(self, rule: Any) -> None:
        model, data = mlp(), batch()
        rule = type(rule)(keep_regrown=False)
        before = {n: set(w.index.tolist()) for n, w in weights(model).items()}
        done = (
            Evolve("magnitude", rule, 0.4, generator=seeded())
            .attach(model)
            .evolve(Probe(loss=cross_entropy, batches=[data]))
        )
        fresh = {n: set(w.index[w.values == 0].tolist()) for n, w in weights(model).items()}
        assert {n: len(p) for n, p in fresh.items()} == done.dropped
        assert {n: len(fresh[n] & before[n]) for n in fresh} == done.regrown

    def test_watching_training_is_like_the_probe(self, rule: Grow) -> None:
        topologies = []
        for watch in (True, False):
            model, data = mlp(), batch()
            evolver = Evolve("magnitude", rule, 0.3, generator=seeded()).attach(model)
            if watch:
                with evolver.watch():
                    cross_entropy(model(data[0]), data[1]).backward()
                evolver.step()
            else:
                evolver.step(Probe(loss=cross_entropy, batches=[data]))
            topologies.append(Topology.of(model))
        assert topologies[0] == topologies[1]

    def test_shown_gradients_are_like_watched_ones(self, rule: Grow) -> None:
        """A step of one's own may show more layers than evolve."""
        model, (x, y) = mlp(), batch()
        evolver = Evolve("magnitude", rule, 0.3, exclude="2", generator=seeded()).attach(model)
        twin = Evolve("magnitude", rule, 0.3, exclude="2", generator=seeded()).attach(other := mlp())
        with twin.watch():
            cross_entropy(other(x), y).backward()
        seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        layers = dict(sparse_layers(model))
        keep = lambda name, layer, x, dz: seen.update({layer: (x, dz)})
        with recording(layers, keep):
            cross_entropy(model(x), y).backward()
        assert len(seen) > 1
        evolver.show(seen)
        assert evolver.step() == twin.step()
        assert Topology.of(model) == Topology.of(other)

    def test_several_batches_are_like_one_large_one(self, rule: Any) -> None:
        data = [batch(seed=s) for s in range(3)]
        whole = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
        several = type(rule)(batches=3)
        models = mlp(), mlp()
        evolver = Evolve("magnitude", several, 0.3, every=5, generator=seeded()).attach(models[0])
        for step in range(5):
            assert evolver.watching == (step >= 2)
            with evolver.watch():
                x, y = data[step - 2]
                cross_entropy(models[0](x), y).backward()
            evolver.step()
        Evolve("magnitude", rule, 0.3, generator=seeded()).attach(models[1]).evolve(
            Probe(loss=cross_entropy, batches=[whole])
        )
        assert Topology.of(models[0]) == Topology.of(models[1])

    def test_the_probe_leaves_no_trace(self, rule: Grow) -> None:
        model = nn.Sequential(nn.Linear(14, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 5))
        model = sparsify(model, density=0.4, generator=seeded())
        before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        evolver = Evolve("magnitude", rule, 0.0, generator=seeded()).attach(model)
        evolver.step(Probe(loss=cross_entropy, batches=[batch()]))
        assert torch.get_rng_state().equal(state)
        assert all(v.equal(before[k]) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())

    def test_hooks_are_there_only_where_an_update_is_due(self, rule: Grow) -> None:
        model = mlp()
        evolver = Evolve("magnitude", rule, every=3, total=6, generator=seeded()).attach(model)
        seen = []
        for _ in range(7):
            with evolver.watch():
                seen.append(any(m._forward_hooks for m in model.modules()))
                cross_entropy(model(batch()[0]), batch()[1]).backward()
            evolver.step()
        assert seen == [False, False, True, False, False, False, False]

    def test_nothing_seen(self, rule: Grow) -> None:
        with pytest.raises(InputError, match=r"has seen no gradient of '0\.weight': run .*evolver\.watch"):
            Evolve("magnitude", rule, generator=seeded()).attach(mlp()).step()

    def test_a_layer_that_the_loss_does_not_depend_on(self, rule: Grow) -> None:
        model = mlp()
        with pytest.raises(InputError, match=r"no gradient of '4\.weight'.*exclude="):
            Evolve("magnitude", rule, generator=seeded()).attach(model).step(
                Probe(loss=lambda o, y: model[:3](batch()[0]).sum() + 0 * o.detach().sum(), batches=[batch()])
            )

    def test_batch_of_one(self, rule: Grow) -> None:
        model = mlp()
        done = (
            Evolve("magnitude", rule, generator=seeded())
            .attach(model)
            .step(Probe(loss=cross_entropy, batches=[batch(1)]))
        )
        assert done is not None
        assert done.total > 0

    def test_numbers_that_are_not_finite(self, rule: Grow) -> None:
        model, (x, y) = mlp(), batch()
        evolver = Evolve("magnitude", rule, generator=seeded()).attach(model)
        with evolver.watch():
            (cross_entropy(model(x), y) * torch.inf).backward()
        with pytest.raises(InputError, match="NaN or infinite"):
            evolver.step()
        with pytest.raises(InputError, match="the loss is nan"):
            evolver.evolve(Probe(loss=lambda o, t: o.sum() * torch.nan, batches=[(x, y)]))

    def test_too_many(self, rule: Any) -> None:
        model, (x, y) = mlp(0.5), batch()
        seen = captured(model, lambda m: cross_entropy(m(x), y))
        w = model[0].weight
        context = Context(
            "0.weight", seeded(), layer=model[0], captured=[rule.keep(model[0], *seen["0"], seeded())]
        )
        free = w.size - w.nnz
        assert rule(w, w.index, free, context).index.numel() == free
        with pytest.raises(InputError, match=f"cannot grow {free + 1} connections: only {free}"):
            rule(w, w.index, free + 1, context)

    def test_options(self, rule: Any) -> None:
        assert isinstance(rule, Watching)
        for bad in ({"batches": 0}, {"batches": 1.5}, {"init": "zeroes"}):
            with pytest.raises(InputError):
                type(rule)(**bad)
        values = type(rule)(init="fan_in")
        done = (
            Evolve("magnitude", values, generator=seeded())
            .attach(model := mlp())
            .step(Probe(loss=cross_entropy, batches=[batch()]))
        )
        assert done is not None
        assert all(bool((w.values != 0).all()) for w in weights(model).values())


@given(density=st.floats(0.05, 0.9), n=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_the_search_grows_what_the_dense_gradient_grows(
    density: float, n: int, share: float, seed: int
) -> None:
    model, (x, y) = mlp(density, seed % 3), batch(n, seed)
    seen = captured(model, lambda m: cross_entropy(m(x), y))
    for name, w in weights(model).items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        x_dz = seen[name.removesuffix(".weight")]
        slopes = dense_gradient(layer, *x_dz).reshape(-1).abs()
        steep = int((slopes[positions.difference(torch.arange(w.size), w.index)] > 1e-6).sum())
        k = int(share * steep)  # beyond that all slopes are zero, and the choice is free
        grown = []
        for rule in (Gradient(), InnerProduct()):
            context = Context(name, seeded(), layer=layer, captured=[rule.keep(layer, *x_dz, seeded())])
            grown.append(rule(w, w.index, k, context).index)
        assert grown[0].equal(grown[1])


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda c: f"{c[0].__name__}-{c[1]}")
@pytest.mark.parametrize("metric", ["abs", "ip", "l2"])
def test_convolutions_grow_what_the_dense_gradient_grows(case: Any, metric: Any) -> None:
    model, x = convolution(case)
    layer = model[0]
    seen = captured(model, lambda m: m(x).pow(3).sum())["0"]
    w, k = layer.weight, 15
    rule = InnerProduct(metric=metric, samples=None)
    context = Context("0.weight", seeded(), layer=layer, captured=[rule.keep(layer, *seen, seeded())])
    got = set(rule(w, w.index, k, context).index.tolist())
    rows, cols = columns(layer, *seen)
    keys = []
    for r, c in zip(rows.chunk(layer.groups), cols.chunk(layer.groups), strict=True):
        product = r @ c.t()
        keys.append({"abs": product.abs(), "ip": product, "l2": -torch.cdist(r, c)}[metric].reshape(-1))
    key = torch.cat(keys)
    key[w.index] = -torch.inf
    assert got == set(key.topk(k).indices.tolist())


def test_a_search_that_finds_too_few_is_filled_up_at_random() -> None:
    def poor(rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: str) -> Found:
        return Found(torch.tensor([3, 5]), torch.tensor([1.0, 0.0]))

    w = SparseWeight((4, 4), torch.tensor([0, 1]), torch.ones(2))
    layer = sparse_layers(sparsify(nn.Sequential(nn.Linear(4, 4)), density=0.5))["0"]
    rule = InnerProduct(search=poor)
    pair = torch.ones(2, 4), torch.ones(2, 4)
    drawn = set()
    for seed in range(20):
        context = Context("0.weight", seeded(seed), layer=layer, captured=[rule.keep(layer, *pair, seeded())])
        index = rule(w, w.index, 4, context).index.tolist()
        assert len(set(index)) == 4
        assert 3 in index
        assert not set(index) & {0, 1}
        drawn.add(tuple(index))
    assert len(drawn) > 5


@pytest.mark.parametrize(
    "option",
    [
        {"metric": "cosine"},
        {"samples": 0},
        {"search": "exakt"},
        {"k_similar": 0.1},
        {"search": "lsh", "k_similar": 1.5},
        {"search": exact, "k_similar": 0.1},
    ],
)
def test_options_of_the_search(option: Any) -> None:
    with pytest.raises(InputError):
        InnerProduct(**option)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_grows(name: str) -> None:
    for module in {"faiss": ["faiss"], "hnswlib": ["hnswlib"], "nmslib": ["nmslib"]}.get(name, []):
        pytest.importorskip(module, reason=f"the extra regraft[{name}] is not installed")
    model, before = mlp(), Topology.of(mlp())
    evolver = Evolve("magnitude", InnerProduct(name), 0.5, generator=seeded()).attach(model)
    done = evolver.evolve(Probe(loss=cross_entropy, batches=[batch()]))
    after = Topology.of(model)
    assert {n: c.nnz for n, c in after.items()} == {n: c.nnz for n, c in before.items()}
    assert done.total > 0
    assert after != before


class TestResume:
    def test_between_the_batches_that_an_update_looks_at(self) -> None:
        def parts() -> tuple[nn.Module, torch.optim.Optimizer, Evolve]:
            model = mlp()
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            rule = InnerProduct(batches=3, init="fan_in")
            evolver = Evolve("magnitude", rule, 0.3, every=4, explore=True, generator=seeded())
            return model, optimizer, evolver.attach(model, optimizer)

        def run(model: nn.Module, optimizer: torch.optim.Optimizer, evolver: Evolve, steps: range) -> None:
            for step in steps:
                optimizer.zero_grad()
                with evolver.watch():
                    cross_entropy(model(batch(seed=step)[0]), batch(seed=step)[1]).backward()
                optimizer.step()
                evolver.step()

        whole, killed, fresh = parts(), parts(), parts()
        run(*whole, range(12))
        run(*killed, range(7))  # steps 6 and 7 were seen for the update after step 8
        assert len(killed[2]._captured["0.weight"]) == 2
        for part, other in zip(killed, fresh, strict=True):
            other.load_state_dict(pickle.loads(pickle.dumps(part.state_dict())))  # noqa: S301
        run(*fresh, range(7, 12))
        assert all(v.equal(fresh[0].state_dict()[k]) for k, v in whole[0].state_dict().items())
        assert whole[2].history == fresh[2].history
        assert whole[2].explored == fresh[2].explored


class TestDiagnostics:
    def test_explored_is_the_union_of_all_topologies(self) -> None:
        model = mlp()
        evolver = Evolve(rate=0.3, explore=True, generator=seeded()).attach(model)
        assert evolver.explored == {n: w.density for n, w in weights(model).items()}
        ever = {n: set(w.index.tolist()) for n, w in weights(model).items()}
        for _ in range(6):
            evolver.step()
            for n, w in weights(model).items():
                ever[n] |= set(w.index.tolist())
            assert evolver.explored == {n: len(ever[n]) / w.size for n, w in weights(model).items()}

    def test_explored_must_be_asked_for(self) -> None:
        with pytest.raises(InputError, match="explore=True"):
            _ = Evolve(generator=seeded()).attach(mlp()).explored

    def test_regrowth(self) -> None:
        def drop_all(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
            return torch.arange(weight.nnz)

        def the_same(weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
            return Growth(weight.index.clone(), torch.zeros(k))

        model = mlp()
        assert Evolve(drop_all, the_same, generator=seeded()).attach(model).evolve().regrowth == 1.0
        assert Evolve(rate=0.0, generator=seeded()).attach(model).evolve().regrowth == 0.0

    def test_seconds(self) -> None:
        evolver = Evolve("magnitude", Gradient(), generator=seeded()).attach(mlp())
        assert evolver.seconds == {"search": 0.0, "rewire": 0.0}
        evolver.step(Probe(loss=cross_entropy, batches=[batch()]))
        assert all(s > 0 for s in evolver.seconds.values())
