"""Training, checkpoints, populations, teachers, loaders and measures on a device."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.features import CPU, batches, mlp, on, same, seeded, train, trained
from torch import Tensor, nn

import regraft
from regraft import Evolve, data, losses, measure
from regraft.data import Data, Loader, Split
from regraft.train import Checkpoint, EarlyStopping, Recipe, Teachers, fit, population, train_recipe, trainer

QUICK: dict[str, Any] = {"model": "mlp:in-16-classes", "epochs": 2, "batch_size": 16, "seed": 3}


def toy(where: torch.device = CPU) -> Data:
    x, y = (torch.cat(t) for t in zip(*batches(where, 3), strict=True))
    return Data("toy", Split(x[:40], y[:40]), Split(x[40:], y[40:]), ("a", "b", "c", "d"))


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


@pytest.mark.parametrize(
    "choices",
    [
        {"evolve": "set", "rate": "exd"}, {"evolve": "rigl", "optimizer": "adam", "grow_batches": 2},
        {"evolve": "search", "grow_init": "fan_in", "evolve_every": "2", "explore": True},
        {"evolve": "itop", "lr_schedule": "cosine", "label_smoothing": 0.1},
        {"evolve": "gmp", "density": 0.2}, {"evolve": "dst", "alpha": 0.01},
        {"evolve": "none", "normalise_rows": True, "patience": 1, "restore_best": True},
        {"dense": True, "loss": "mse"}, {"loss": "bce", "stop_accuracy": 0.1, "stop_extra": 1},
    ],
    ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()),
)  # fmt: skip
def test_recipes(device: torch.device, choices: dict[str, Any]) -> None:
    def run(where: torch.device) -> Any:
        done = train_recipe(Recipe(**{**QUICK, **choices}), toy(), device=where)
        rows = without_times(done.history.epochs)
        return done.model, [[row[k] for k in ("train_loss", "test_accuracy")] for row in rows]

    assert on(same(run, device)[0], device)


def test_a_network_drawn_there_is_the_cpus(device: torch.device) -> None:
    same(lambda d: regraft.models.build("lenet-5", generator=seeded(), device=d), device)


@pytest.mark.parametrize("way", ["cpu to there", "there to cpu", "there to there"])
def test_a_checkpoint_goes_on_on_another_device(device: torch.device, way: str, tmp_path: Path) -> None:
    first, second = (device if part == "there" else CPU for part in way.split(" to "))

    def run(where: torch.device, *callbacks: Any, resume: Path | None = None) -> Any:
        model = mlp(where)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
        evolver = Evolve("magnitude", "gradient", 0.3, every=2, explore=True, generator=seeded())
        evolver.attach(model, optimizer)
        chosen = [EarlyStopping(9, restore_best=True), *callbacks]
        history = fit(
            model, toy(), epochs=3, optimizer=optimizer, batch_size=8, evolver=evolver, callbacks=chosen,
            resume=resume,
        )  # fmt: skip
        return model, [[row["train_loss"], row["test_accuracy"]] for row in history.epochs]

    class Stop(Exception):
        pass

    class Interrupt(regraft.train.Callback):
        def on_step(self, run: Any) -> None:
            if run.step == 8:
                raise Stop

    with pytest.raises(Stop):
        run(first, Checkpoint(tmp_path, every_steps=1), Interrupt())
    file = regraft.train.checkpoints.find(tmp_path)
    whole = run(CPU)
    resumed = run(second, Checkpoint(tmp_path, every_steps=1), resume=file)
    assert on(resumed[0], second)
    for a, b in zip(whole[0].state_dict().values(), resumed[0].state_dict().values(), strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(resumed[1], whole[1], rtol=1e-3, atol=1e-4)


def test_a_file_written_there_is_read_on_the_cpu_and_the_other_way_round(
    device: torch.device, tmp_path: Path
) -> None:
    model = regraft.sparsify(regraft.models.build("mlp:8-12-4", generator=seeded()), density=0.4)
    there = copy.deepcopy(model).to(device)
    file = tmp_path / "a.safetensors"
    regraft.save(there, file)
    back, into = regraft.load(file), regraft.load(file, into=copy.deepcopy(there))
    assert on(back, CPU)
    assert on(into, device)
    for loaded in (back, into):
        for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True):
            assert torch.equal(a, b.cpu())


def test_networks_are_pickled_and_copied(device: torch.device) -> None:
    there = mlp(device)
    for other in (copy.deepcopy(there), pickle.loads(pickle.dumps(there.cpu())).to(device)):  # noqa: S301
        assert on(other, device)


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "bce"])
def test_losses(device: torch.device, name: str) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where)
        x, y = batches(where)[0]
        loss = losses.by_name(name)(model(x), y)
        return loss, torch.autograd.grad(loss, list(model.parameters()))

    same(run, device)


def test_teachers_of_another_device(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        teachers = Teachers([trained(CPU, 1), trained(where, 2)], weight=0.7, temperature=3)
        done = train_recipe(Recipe(**QUICK), toy(), teachers=teachers, device=where)
        return done.model, teachers.plain()["models"]

    assert on(same(run, device)[0], device)


def test_populations(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        x, y = toy(where).train.x, toy(where).train.y
        members = [mlp(where, seed) for seed in range(3)]
        done, histories = population.train(members, x, y, epochs=2, lr=0.1, batch_size=8)
        return done, [h.column("train_loss") for h in histories], population.evaluate(done, x, y)

    assert on(same(run, device)[0], device)


def test_evaluation_takes_samples_from_any_device(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = trained(where)
        found = [measure.evaluate(model, toy(d).test) for d in (CPU, where)]
        found += [measure.evaluate(model, part) for part in measure.by_class(toy(where).test, 4) if part]
        return found, measure.inspect(model, (8,))["parameters"]

    same(run, device)


def test_loaders_move_batches_and_draw_the_same_order(device: torch.device) -> None:
    split = toy().train

    def order(source: Split, **options: Any) -> list[Tensor]:
        return [x for x, _ in Loader(source, 7, generator=seeded(), **options)]

    wanted = order(split)
    for got in (order(split, device=device), order(split.to(device)), order(split.to(device), device=device)):
        assert on(got, device)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(wanted, got, strict=True))
    assert on(order(split.to(device), device="cpu"), CPU)


def test_data_sets_are_loaded_split_and_scaled_there(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        found = data.load("digits", per_class=20, validation=0.2, standardise=True, device=where)
        assert on([found.train.x, found.test.y], where)
        picked = found.train[torch.arange(5)]
        return found.train.x, found.train.y, *picked, found.train.counts(), found.describe()["train"]

    same(run, device)


def test_iterative_pruning_with_the_library_s_own_training(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        recipe = Recipe(**{**QUICK, "dense": True})
        ticket = regraft.prune.iterative(
            lambda: regraft.train.build_model(recipe, toy()).to(where),
            trainer(recipe, toy(), device=where),
            density=0.3, rounds=2, epochs=2, generator=seeded(),
        )  # fmt: skip
        return ticket.model

    assert on(same(run, device), device)


def test_a_loop_of_ones_own_with_accumulation_and_clipping(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolver = Evolve(every=1, generator=seeded()).attach(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            for x, y in batches(where):
                (nn.functional.cross_entropy(model(x), y) / 3).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            evolver.step()
        train(model, optimizer, batches(where), 1)
        return model

    assert on(same(run, device), device)
