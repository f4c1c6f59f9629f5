"""The loop: same numbers as a plain one, same seed same bits, the caller's random state untouched."""

import math
from typing import Any

import pytest
import torch
from tests.train.toys import equal, state, without_times
from torch import nn

from regraft import Evolve, Topology, kernels, losses, models, sparsify
from regraft.data import Data, Loader, Split
from regraft.errors import InputError, MismatchError
from regraft.train import Hooks, fit, seeds


def network(dropout: float = 0.0) -> nn.Module:
    g = torch.Generator().manual_seed(1)
    return sparsify(models.build("mlp:8-12-4", dropout=dropout, generator=g), density=0.5, generator=g)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


@pytest.mark.parametrize("batch_size", [1, 8, 26, 52, 1000])
def test_same_numbers_as_a_plain_loop(data: Data, batch_size: int) -> None:
    model, plain = network(), network()
    with kernels.use("materialised"):
        history = fit(model, data, epochs=2, optimizer=sgd(model), batch_size=batch_size, seed=7)
        means = plain_loop(plain, data, min(batch_size, 52))
    assert equal(state(model), state(plain))
    assert history.column("train_loss") == pytest.approx(means, rel=1e-6)
    accuracy = (plain(data.test.x).argmax(1) == data.test.y).float().mean().item()
    assert history.final["test_accuracy"] == pytest.approx(accuracy)


def plain_loop(plain: nn.Module, data: Data, batch_size: int) -> list[float]:
    """Two epochs as anyone would write them; the mean loss of each."""
    optimizer = sgd(plain)
    loader = Loader(data.train, batch_size, generator=seeds.stream(7, "order"))
    means = []
    for _ in range(2):
        total = 0.0
        for x, y in loader:
            loss = nn.functional.cross_entropy(plain(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        means.append(total / 52)
    return means


def test_it_learns(data: Data) -> None:
    model = network()
    history = fit(model, data, epochs=10, optimizer=sgd(model, 0.05), batch_size=8)
    assert history.final["test_accuracy"] > 0.8
    assert history.final["train_loss"] < history.epochs[0]["train_loss"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_same_seed_gives_the_same_bits(everything: Any, optimizer: str) -> None:
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(runs))  # the global state must not matter
        one = everything(optimizer)
        history = one.fit(seed=seed)
        runs.append((state(one.model), without_times(history)))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not equal(runs[0][0], runs[2][0])


def test_the_global_generator_is_left_alone(everything: Any) -> None:
    before = torch.get_rng_state()
    everything().fit()
    assert torch.equal(before, torch.get_rng_state())


def test_modes_are_left_as_they_were(data: Data) -> None:
    model = network(dropout=0.5).eval()
    seen = []
    hook = Hooks(step=lambda run: seen.append(run.model.training))
    fit(model, data, epochs=1, optimizer=sgd(model), callbacks=[hook])
    assert seen == [True]
    assert not any(m.training for m in model.modules())


def test_evolution_is_noted(data: Data) -> None:
    model = network()
    before = Topology.of(model)
    optimizer = sgd(model)
    evolver = Evolve(rate=0.3, every=7, total=2 * 7 + 1, generator=torch.Generator()).attach(model, optimizer)
    history = fit(model, data, epochs=3, optimizer=optimizer, batch_size=8, evolver=evolver)
    assert history.column("rate")[:2] == [0.3, 0.3]
    assert math.isnan(history.column("rate")[2])
    assert history.column("dropped") == history.column("grown") == [e.total for e in evolver.history] + [0]
    after = Topology.of(model)
    assert after != before
    assert {n: c.nnz for n, c in after.items()} == {n: c.nnz for n, c in before.items()}


def test_dense_models_and_models_of_ones_own(data: Data) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    assert fit(model, data, epochs=5, optimizer=sgd(model, 0.05), batch_size=8).final["test_accuracy"] > 0.8


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_schedules(data: Data, every: Any) -> None:
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    history = fit(
        model, data, epochs=3, optimizer=optimizer, scheduler=scheduler, scheduler_every=every, batch_size=26
    )
    factor = 0.5 if every == "epoch" else 0.25
    assert history.column("lr") == pytest.approx([0.1 * factor**e for e in range(3)])


def test_a_schedule_that_watches_the_loss(data: Data) -> None:
    model = network()
    optimizer = sgd(model)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)
    history = fit(model, data, epochs=3, optimizer=optimizer, scheduler=plateau)
    assert history.column("lr") == pytest.approx([0.1, 0.01, 0.001])


def test_lbfgs(data: Data) -> None:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=10)
    history = fit(model, data, epochs=3, optimizer=optimizer, batch_size=52)
    assert history.final["train_loss"] < 0.3 * history.epochs[0]["train_loss"]


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_losses_fall(data: Data, name: str) -> None:
    model = network()
    if name == "nll":
        model.add_module("log", nn.LogSoftmax(1))
    history = fit(model, data, epochs=6, optimizer=sgd(model, 0.05), batch_size=8, loss=name)
    assert history.final["train_loss"] < history.epochs[0]["train_loss"]


def test_drop_last(data: Data) -> None:
    model = network()
    history = fit(
        model, data, epochs=1, optimizer=sgd(model, 1e-12), batch_size=8, drop_last=True,
        callbacks=[Hooks(step=lambda run: run.figures.update(steps=run.step))],
    )  # fmt: skip
    assert history.final["steps"] == 6
    # nothing moved, so the mean over 48 of the 52 samples is close to that over all
    whole = nn.functional.cross_entropy(model(data.train.x), data.train.y).item()
    assert history.final["train_loss"] == pytest.approx(whole, rel=0.1)


def test_divergence_names_the_step(data: Data) -> None:
    model = network()
    with pytest.raises(InputError, match=r"epoch 1, step \d of 7: lower the learning rate \(now 1e\+12\)"):
        fit(model, data, epochs=3, optimizer=sgd(model, 1e12), batch_size=8)


def test_divergence_in_the_last_step_of_an_epoch(data: Data) -> None:
    model = network()

    def spoil(run: Any) -> None:
        if run.step == 7:
            run.model.fc1.bias.data[0] = torch.nan

    with pytest.raises(InputError, match="the test loss became nan in epoch 1, step 7 of 7"):
        fit(model, data, epochs=3, optimizer=sgd(model), batch_size=8, callbacks=[Hooks(step=spoil)])


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_epochs_out_of_range(data: Data, bad: Any) -> None:
    model = network()
    with pytest.raises(InputError, match="epochs is"):
        fit(model, data, epochs=bad, optimizer=sgd(model))


def test_other_values_out_of_range(data: Data) -> None:
    model = network()
    with pytest.raises(InputError, match="batch_size is 0"):
        fit(model, data, epochs=1, optimizer=sgd(model), batch_size=0)
    with pytest.raises(InputError, match="seed is -1"):
        fit(model, data, epochs=1, optimizer=sgd(model), seed=-1)
    with pytest.raises(InputError, match="scheduler_every is 'batch'"):
        fit(model, data, epochs=1, optimizer=sgd(model), scheduler_every="batch")
    with pytest.raises(InputError, match="unknown loss 'hinge'"):
        fit(model, data, epochs=1, optimizer=sgd(model), loss="hinge")


def test_data_that_does_not_fit(data: Data) -> None:
    model = models.build("mlp:9-4")
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(8,\)"):
        fit(model, data, epochs=1, optimizer=sgd(model))
    narrow = models.build("mlp:8-3")
    with pytest.raises(MismatchError, match="has 3 outputs, but the data has the label 3"):
        fit(narrow, data, epochs=1, optimizer=sgd(narrow))


def test_streams_of_one_seed_differ() -> None:
    first = [int(torch.randint(2**40, (1,), generator=seeds.stream(0, p))) for p in ("a", "b", "c")]
    assert len(set(first)) == 3
    one = Split(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    assert len(Loader(one, 1, generator=seeds.stream(0, "order"))) == 1
