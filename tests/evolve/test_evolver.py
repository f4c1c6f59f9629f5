"""``Evolve``: when it acts, what it leaves alone, what never changes, and how it resumes."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from regraft import SparseLinear, SparseWeight, Topology, schedules, sparsify
from regraft.errors import InputError, MismatchError
from regraft.evolve import Context, EvolutionStep, Evolve, Growth, RandomGrowth, random
from regraft.probe import Probe
from regraft.schedules import Constant, LinearDecreasing, Progress


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(density: float = 0.3, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    return sparsify(model, density=density, generator=seeded(seed))


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    g = seeded(99)
    return [(torch.randn(6, 12, generator=g), torch.randint(4, (6,), generator=g)) for _ in range(steps)]


def train(
    model: nn.Module, optimizer: Optimizer, evolver: Evolve, data: list[tuple[Tensor, Tensor]]
) -> list[EvolutionStep]:
    done = []
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        update = evolver.step()
        if update is not None:
            done.append(update)
    return done


def weights(model: nn.Module) -> dict[str, SparseWeight]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}


def entries(weight: SparseWeight, state: dict[str, Any]) -> dict[int, tuple[float, ...]]:
    """{position: (value, each optimizer entry)}."""
    vectors = [weight.values.detach(), *(v for v in state.values() if v.shape == weight.values.shape)]
    return {p: tuple(float(v[i]) for v in vectors) for i, p in enumerate(weight.index.tolist())}


class TestWhen:
    @pytest.mark.parametrize(
        ("every", "total", "steps", "expected"),
        [
            (1, None, 4, [1, 2, 3, 4]),
            (3, None, 9, [3, 6, 9]),
            (3, 9, 9, [3, 6]),  # never after the last epoch
            (3, 9, 20, [3, 6]),
            (4, 10, 10, [4, 8]),
            (2, 2 * 4 + 1, 12, [2, 4, 6, 8]),  # 3 epochs of 4 steps: the last stays quiet
            (5, 5, 10, []),
        ],
    )
    def test_steps(self, every: int, total: int | None, steps: int, expected: list[int]) -> None:
        evolver = Evolve(every=every, total=total, generator=seeded()).attach(network())
        done = [evolver.step() for _ in range(steps)]
        assert [e.step for e in done if e is not None] == expected
        assert [i + 1 for i, e in enumerate(done) if e is not None] == expected
        assert [e.step for e in evolver.history] == expected
        assert [e.update for e in evolver.history] == list(range(len(expected)))

    def test_the_schedule_sees_epochs(self) -> None:
        seen: list[Progress] = []

        def rate(progress: Progress) -> float:
            seen.append(progress)
            return 0.1

        evolver = Evolve(rate=rate, every=7, total=7 * 5, generator=seeded()).attach(network())
        for _ in range(7 * 5):
            evolver.step()
        assert seen == [Progress(e, 5) for e in range(4)]

    def test_linear_decrease_as_in_its_equation(self) -> None:
        evolver = Evolve(rate="ldv", every=2, total=2 * 10, generator=seeded()).attach(network())
        for _ in range(20):
            evolver.step()
        expected = [0.01 + 0.29 * (10 - epoch) / 10 for epoch in range(9)]
        assert [e.rate for e in evolver.history] == pytest.approx(expected)

    def test_a_total_that_is_no_multiple(self) -> None:
        evolver = Evolve(rate=LinearDecreasing(), every=4, total=10, generator=seeded())
        assert evolver.progress == Progress(0, 3)

    def test_now(self) -> None:
        evolver = Evolve(every=100, generator=seeded()).attach(network())
        assert evolver.evolve().total > 0
        assert evolver.steps == 0
        assert evolver.updates == 1

    def test_a_schedule_without_an_end_says_what_it_needs(self) -> None:
        with pytest.raises(InputError, match="pass the total number of steps"):
            Evolve(rate="cosine", generator=seeded()).attach(network()).step()


class TestWhatNeverChanges:
    def test_long_run(self) -> None:
        model = sparsify(nn.Sequential(nn.Linear(12, 10)), density=0.3, generator=seeded())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolver = Evolve(rate=0.3, generator=seeded()).attach(model, optimizer)
        w = model[0].weight
        nnz, values, first, target = w.nnz, w.values, Topology.of(model), torch.randn(10)
        ever = set(w.index.tolist())
        for _ in range(500):
            optimizer.zero_grad()
            (model(torch.ones(1, 12)) - target).square().sum().backward()
            optimizer.step()
            evolver.step()
            index = w.index.tolist()
            assert len(index) == nnz == w.values.numel()
            assert index == sorted(set(index))
            assert 0 <= index[0] <= index[-1] < w.size
            assert w.values is values
            assert optimizer.state[values]["momentum_buffer"].shape == (nnz,)
            ever.update(index)
        assert evolver.updates == 500
        assert bool(w.values.isfinite().all())
        assert len(ever) == w.size  # every position had its chance
        assert first.nnstd(Topology.of(model)) > 0.3

    @given(st.floats(0, 1), st.integers(0, 1000), st.sampled_from(["signed-magnitude", "magnitude"]))
    @settings(max_examples=40)
    def test_survivors_bit_for_bit(self, rate: float, seed: int, drop: str) -> None:
        model = network(seed=seed % 5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        evolver = Evolve(drop, RandomGrowth("fan_in"), rate, every=1000, generator=seeded(seed))
        evolver.attach(model, optimizer)
        train(model, optimizer, evolver, batches(2))
        before = {n: entries(w, optimizer.state[w.values]) for n, w in weights(model).items()}
        done = evolver.evolve()
        for name, w in weights(model).items():
            after = entries(w, optimizer.state[w.values])
            assert len(after) == len(before[name])
            same = {p for p in after if after[p] == before[name].get(p)}
            new = set(after) - same
            assert len(new) == done.dropped[name] == done.grown[name]
            assert all(after[p][1:] == (0.0, 0.0) for p in new)
            assert abs(done.dropped[name] - rate * w.nnz) <= 1
            assert len(new & set(before[name])) == done.regrown[name]

    @given(st.integers(0, 10**6))
    @settings(max_examples=10)
    def test_same_seed_same_evolution(self, seed: int) -> None:
        a, b, c = network(), network(), network()
        for model, s in ((a, seed), (b, seed), (c, seed + 1)):
            evolver = Evolve(grow=RandomGrowth("fan_in"), generator=seeded(s)).attach(model)
            for _ in range(3):
                evolver.step()
        assert Topology.of(a) == Topology.of(b)
        assert all(a.state_dict()[k].equal(b.state_dict()[k]) for k in a.state_dict())
        assert Topology.of(a) != Topology.of(c)

    def test_rate_zero_changes_nothing(self) -> None:
        model = network()
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        done = Evolve(rate=0.0, generator=seeded()).attach(model, optimizer).step()
        assert done is not None
        assert done.total == 0
        assert all(before[k].equal(v) for k, v in model.state_dict().items())

    def test_the_global_generator_is_not_touched(self) -> None:
        model = network()
        state = torch.get_rng_state()
        Evolve().attach(model).step()
        assert torch.get_rng_state().equal(state)

    def test_without_a_generator_the_manual_seed_decides(self) -> None:
        topologies = []
        for seed in (1, 1, 2):
            model = network()
            torch.manual_seed(seed)
            Evolve().attach(model).step()
            topologies.append(Topology.of(model))
        assert topologies[0] == topologies[1] != topologies[2]


class TestFresh:
    def test_a_regrown_connection_starts_fresh(self) -> None:
        """A connection that is dropped and at once drawn again keeps neither value nor momentum (the
        appendix of thesis 1 reports the opposite in its own code)."""

        def drop_first(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
            return torch.tensor([0, 1])

        # 3 of 4 positions active, 2 dropped, 2 of the 3 then inactive grown: one at least is regrown
        w = SparseWeight((2, 2), torch.tensor([0, 1, 2]), torch.tensor([5.0, 6.0, 7.0]))
        model = nn.Sequential(SparseLinear(w, None))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        values = dict(zip(w.index.tolist(), w.values.tolist(), strict=True))
        done = Evolve(drop_first, random, 0.5, generator=seeded()).attach(model, optimizer).evolve()
        assert done.regrown["0.weight"] >= 1
        assert done.dropped["0.weight"] == 2
        buffer = optimizer.state[w.values]["momentum_buffer"]
        after = {p: (float(w.values.detach()[i]), float(buffer[i])) for i, p in enumerate(w.index.tolist())}
        assert after.pop(2) == (values[2], 1.0)
        assert set(after.values()) == {(0.0, 0.0)}

    def test_regrowth_is_as_likely_as_chance_says(self) -> None:
        """Thesis 1, section 7.6.3: of f = (1 - s) e dropped, a share f / (s + f) comes back."""
        model = sparsify(nn.Sequential(nn.Linear(300, 200)), density=0.3, generator=seeded())
        evolver = Evolve("magnitude", rate=0.5, generator=seeded()).attach(model)
        regrown = dropped = 0
        for _ in range(10):
            done = evolver.evolve()
            regrown, dropped = regrown + done.regrown["0.weight"], dropped + done.total
        share = 0.3 * 0.5 / (0.7 + 0.3 * 0.5)
        assert dropped == 10 * 9000
        assert regrown / dropped == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / dropped))

    def test_the_gradient_of_the_old_topology_is_gone(self) -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, Evolve(generator=seeded()).attach(model, optimizer), batches(1))
        assert all(w.values.grad is None for w in weights(model).values())


class TestWhatIsLeftAlone:
    def test_frozen_weights(self) -> None:
        model = network()
        model[2].weight.values.requires_grad_(False)
        before = model[2].weight.index.clone()
        done = Evolve(generator=seeded()).attach(model).step()
        assert done is not None
        assert set(done.dropped) == {"0.weight", "4.weight"}
        assert model[2].weight.index.equal(before)

    def test_weights_that_no_optimizer_holds(self) -> None:
        model = network()
        first = torch.optim.SGD(model[0].parameters(), lr=0.1)
        second = torch.optim.Adam(model[2].parameters(), lr=0.1)
        done = Evolve(generator=seeded()).attach(model, [first, second]).step()
        assert done is not None
        assert set(done.dropped) == {"0.weight", "2.weight"}

    def test_full_layers(self) -> None:
        model = network(density=1.0)
        before = copy.deepcopy(model.state_dict())
        done = Evolve(generator=seeded()).attach(model).step()
        assert done is not None
        assert done.dropped == {}
        assert all(before[k].equal(v) for k, v in model.state_dict().items())

    def test_empty_layers_and_counts_that_round_to_zero(self) -> None:
        none = SparseLinear(SparseWeight((4, 4), torch.tensor([], dtype=torch.int64), torch.tensor([])), None)
        one = SparseLinear(SparseWeight((4, 4), torch.tensor([3]), torch.ones(1)), None)
        model = nn.Sequential(none, one)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        done = Evolve(rate=0.3, generator=seeded()).attach(model, optimizer).step()
        assert done is not None
        assert done.dropped == {"0.weight": 0, "1.weight": 0}
        assert one.weight.index.tolist() == [3]

    def test_a_module_used_twice_evolves_once(self) -> None:
        layer = nn.Linear(6, 6)
        model = sparsify(nn.Sequential(layer, nn.ReLU(), layer), density=0.5, generator=seeded())
        assert model[0] is model[2]
        done = Evolve(rate=0.5, generator=seeded()).attach(model).step()
        assert done is not None
        assert set(done.dropped) == {"0.weight"}
        assert model[0] is model[2]
        assert abs(done.total - 9) <= 1

    def test_include_and_exclude(self) -> None:
        def evolved(**options: Any) -> set[str]:
            done = Evolve(generator=seeded(), **options).attach(network()).step()
            assert done is not None
            return set(done.dropped)

        assert evolved(include="0") == {"0.weight"}
        assert evolved(exclude=["2.weight"]) == {"0.weight", "4.weight"}
        assert evolved(include=["[02]*"], exclude="0") == {"2.weight"}
        with pytest.raises(InputError, match="'head\\*' matches no sparse weight"):
            evolved(exclude="head*")

    def test_biases(self) -> None:
        model = network()
        before = {k: v.clone() for k, v in model.state_dict().items() if k.endswith("bias")}
        Evolve(generator=seeded()).attach(model).step()
        assert all(model.state_dict()[k].equal(v) for k, v in before.items())


class TestResume:
    def run(
        self, steps: int, model: nn.Module, optimizer: Optimizer, evolver: Evolve, start: int = 0
    ) -> None:
        train(model, optimizer, evolver, batches(30)[start : start + steps])

    def parts(self, seed: int = 0) -> tuple[nn.Module, Optimizer, Evolve]:
        model = network(seed=seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        evolver = Evolve(
            grow=RandomGrowth("fan_in"), rate="exd", every=3, total=30, generator=seeded(seed)
        ).attach(model, optimizer)
        return model, optimizer, evolver

    def same(self, a: nn.Module, b: nn.Module) -> bool:
        return all(v.equal(b.state_dict()[k]) for k, v in a.state_dict().items())

    def test_state_dict_is_bit_exact(self) -> None:
        whole, killed, fresh = self.parts(), self.parts(), self.parts(seed=3)
        self.run(30, *whole)
        self.run(14, *killed)
        for part, other in zip(killed, fresh, strict=True):
            buffer = pickle.dumps(part.state_dict())
            other.load_state_dict(pickle.loads(buffer))  # noqa: S301
        self.run(16, *fresh, start=14)
        assert self.same(whole[0], fresh[0])
        assert whole[2].history == fresh[2].history
        assert whole[2].state_dict()["generator"].equal(fresh[2].state_dict()["generator"])

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_copies_live_apart(self, how: str) -> None:
        original = self.parts()
        self.run(14, *original)
        twin = copy.deepcopy(original) if how == "deepcopy" else pickle.loads(pickle.dumps(original))  # noqa: S301
        before = copy.deepcopy(original[0].state_dict())
        self.run(16, *twin, start=14)
        assert all(v.equal(before[k]) for k, v in original[0].state_dict().items())
        assert original[2].steps == 14
        self.run(16, *original, start=14)
        assert self.same(original[0], twin[0])

    def test_not_a_state(self) -> None:
        evolver = Evolve(generator=seeded())
        for wrong in ({}, {"steps": 1}, {**evolver.state_dict(), "generator": "x"}):
            with pytest.raises(MismatchError, match="not the state of an Evolve"):
                evolver.load_state_dict(wrong)

    def test_history_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from regraft.evolve import evolver as module

        monkeypatch.setattr(module, "HISTORY", 5)
        evolver = Evolve(rate=0.0, generator=seeded()).attach(network())
        for _ in range(9):
            evolver.step()
        assert [e.step for e in evolver.history] == [5, 6, 7, 8, 9]


class TestOtherModels:
    def test_convolutions(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3))
        model = sparsify(model, density=0.2, generator=seeded())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolver = Evolve(generator=seeded()).attach(model, optimizer)
        first = Topology.of(model)
        for _ in range(3):
            model(torch.randn(2, 3, 6, 6)).square().mean().backward()
            optimizer.step()
            evolver.step()
        assert Topology.of(model).nnz == first.nnz
        assert first.nnstd(Topology.of(model)) > 0.2

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_types(self, dtype: torch.dtype) -> None:
        model = network().to(dtype)
        Evolve(grow=RandomGrowth("fan_in"), generator=seeded()).attach(model).step()
        assert all(w.values.dtype == dtype for w in weights(model).values())

    def test_compiled(self) -> None:
        plain, inner = network(), network()
        compiled = torch.compile(inner, backend="eager")
        done = []
        for model in (plain, compiled):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            evolver = Evolve(every=2, generator=seeded()).attach(model, optimizer)
            done.append(train(model, optimizer, evolver, batches(6)))
        assert done[0] == done[1]
        assert set(done[0][0].dropped) == {"0.weight", "2.weight", "4.weight"}
        for k, v in plain.state_dict().items():
            torch.testing.assert_close(v, inner.state_dict()[k])

    def test_a_layer_alone(self) -> None:
        layer = SparseLinear.from_dense(nn.Linear(8, 8), torch.arange(0, 64, 4))
        done = Evolve(generator=seeded()).attach(layer).step()
        assert done is not None
        assert done.dropped == {"weight": pytest.approx(5, abs=1)}

    def test_training_learns(self) -> None:
        """The point of it all: the loss falls while the topology moves."""
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolver = Evolve(rate=0.2, every=20, generator=seeded()).attach(model, optimizer)
        data = batches(4)

        def loss() -> float:
            with torch.no_grad():
                return sum(float(nn.functional.cross_entropy(model(x), y)) for x, y in data)

        before = loss()
        train(model, optimizer, evolver, data * 75)
        assert loss() < 0.5 * before


class TestRulesOfOnesOwn:
    def test_the_probe_reaches_the_rules(self) -> None:
        seen = []

        def grow(weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
            seen.append((context.probe, context.model is model, context.name, context.progress))
            return random(weight, survivors, k, context)

        model, probe = network(), Probe()
        Evolve(grow=grow, include="0", generator=seeded()).attach(model).step(probe)
        assert seen == [(probe, True, "0.weight", Progress(0, None))]

    @pytest.mark.parametrize(
        ("dropped", "error"),
        [([3, 1], "not strictly increasing"), ([0, 10**6], "must be in"), ([[0]], "one-dimensional")],
    )
    def test_bad_drop(self, dropped: Any, error: str) -> None:
        evolver = Evolve(lambda w, f, c: torch.tensor(dropped), generator=seeded()).attach(network())
        with pytest.raises(InputError, match=f"entries dropped from '0.weight'.*{error}"):
            evolver.step()

    def test_growing_what_is_active(self) -> None:
        def taken(weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
            return Growth(survivors[:k], torch.zeros(k))

        model = network()
        before = Topology.of(model)
        with pytest.raises(InputError, match=r"cannot grow the position \d+ of '0\.weight', which is active"):
            Evolve(grow=taken, generator=seeded()).attach(model).step()
        assert Topology.of(model) == before

    def test_bad_grow(self) -> None:
        def too_few(weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
            return random(weight, survivors, k - 1, context)

        model = network()
        before = Topology.of(model)
        with pytest.raises(MismatchError, match="grow as many"):
            Evolve(grow=too_few, generator=seeded()).attach(model).step()
        assert Topology.of(model) == before


class TestErrors:
    def test_not_attached(self) -> None:
        with pytest.raises(InputError, match="not attached"):
            Evolve().step()

    def test_dense_model(self) -> None:
        with pytest.raises(InputError, match="no sparse weight"):
            Evolve().attach(nn.Linear(2, 2))

    def test_optimizer_built_before_sparsify(self) -> None:
        dense = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(dense.parameters(), lr=0.1)
        model = sparsify(dense, density=0.5)
        with pytest.raises(InputError, match=r"build it after regraft\.sparsify"):
            Evolve().attach(model, optimizer)

    @pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
    def test_rates(self, rate: float) -> None:
        with pytest.raises(InputError, match="must be in"):
            Evolve(rate=rate)
        with pytest.raises(InputError, match="must be in"):
            Evolve(rate=lambda progress: rate, generator=seeded()).attach(network()).step()

    @pytest.mark.parametrize("option", ["every", "total"])
    @pytest.mark.parametrize("value", [0, -1, 1.5])
    def test_steps(self, option: str, value: Any) -> None:
        with pytest.raises(InputError, match=f"{option} is {value}"):
            Evolve(**{option: value})

    def test_nan_weights(self) -> None:
        model = network()
        with torch.no_grad():
            model[2].weight.values[0] = torch.nan
        with pytest.raises(InputError, match=r"'2\.weight' has 1 NaN"):
            Evolve(generator=seeded()).attach(model).step()

    def test_names(self) -> None:
        with pytest.raises(InputError, match="did you mean 'magnitude'"):
            Evolve(drop="magnitud")
        with pytest.raises(InputError, match="did you mean 'random'"):
            Evolve(grow="randm")
        with pytest.raises(InputError, match="unknown rate 'exdd'"):
            Evolve(rate="exdd")


def test_repr_and_rates_by_name() -> None:
    evolver = Evolve(rate="exd", every=10, total=100)
    assert evolver.rate == schedules.ExponentialDecay()
    assert Evolve(rate=0.2).rate == Constant(0.2)
    assert repr(evolver) == (
        "Evolve(drop=signed_magnitude, grow=RandomGrowth(init='zeros'), "
        "rate=ExponentialDecay(start=0.3, interest=0.01), every=10, total=100)"
    )
