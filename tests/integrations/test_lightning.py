"""The callback in Lightning's own Trainer."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
import lightning as L
from lightning.pytorch.callbacks import (
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import regraft
from regraft.errors import InputError, MismatchError
from regraft.evolve import InnerProduct, Shrink
from regraft.integrations import lightning as module_under_test
from regraft.integrations.lightning import Evolution
from regraft.integrations.sparse_like import sparsify_like

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*Consider setting .persistent_workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]
BATCHES, BATCH = 8, 4


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))


def sparse(seed: int = 0) -> nn.Sequential:
    return regraft.sparsify(net(seed), 0.3, generator=torch.Generator().manual_seed(seed))


class Net(L.LightningModule):
    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = sparse() if inner is None else inner

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.inner(x.to(next(self.parameters()).dtype)), y)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(7)
    n = BATCHES * BATCH
    return TensorDataset(torch.randn(n, 12, generator=generator), torch.randint(3, (n,), generator=generator))


def loader() -> DataLoader:
    return DataLoader(data(), BATCH)


def trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    usual: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **(usual | options))


def updates(evolution: Evolution) -> list[int]:
    return [done.step for done in evolution.evolver.history]


@pytest.mark.parametrize(
    ("every", "accumulate", "steps"),
    [
        ("epoch", 1, [8, 16]),
        ("epoch", 3, [3, 6]),  # 8 batches by threes are 3 steps
        ("2epochs", 3, [6]),
        (2, 3, [2, 4, 6, 8]),
        ("4", 1, [4, 8, 12, 16, 20]),
    ],
)
def test_it_counts_optimizer_steps(every: Any, accumulate: int, steps: list[int]) -> None:
    evolution = Evolution(every=every)
    trainer(evolution, max_epochs=3, accumulate_grad_batches=accumulate).fit(Net(), loader())
    assert updates(evolution) == steps


@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_it_does_what_a_loop_of_ones_own_does(grow: str) -> None:
    """Bit for bit, with accumulated and clipped gradients."""
    evolution = Evolution("cosine", drop="magnitude", grow=grow, every=3, seed=5)
    theirs = Net()
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.3, "max_epochs": 3}
    trainer(evolution, **options).fit(theirs, loader())

    ours = sparse()
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.01)
    generator = Evolution(seed=5).evolver.generator
    evolver = regraft.Evolve("magnitude", grow, "cosine", every=3, total=12, generator=generator)
    evolver.attach(ours, optimizer)
    batches = list(loader()) * 3
    for i in range(0, len(batches), 2):
        optimizer.zero_grad()
        with evolver.watch():
            for x, y in batches[i : i + 2]:
                (nn.functional.cross_entropy(ours(x), y) / 2).backward()
        nn.utils.clip_grad_norm_(ours.parameters(), 0.3)
        optimizer.step()
        evolver.step()

    assert updates(evolution) == [3, 6, 9]
    assert regraft.Topology.of(ours) != regraft.Topology.of(sparse())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.inner.state_dict()[name]), name


@pytest.mark.parametrize("grow", ["random", InnerProduct(batches=3)], ids=["random", "inner-product"])
def test_a_resumed_training_is_one_that_was_never_interrupted(grow: Any, tmp_path: Path) -> None:
    """An update follows step 10, so the checkpoint after step 8 holds what the rule has seen so far."""

    def fit(module: L.LightningModule, checkpoint: Path | None = None) -> tuple[L.Trainer, Evolution]:
        evolution = Evolution("cosine", drop="magnitude", grow=grow, every=10, explore=True)
        saved = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        run = trainer(evolution, saved, max_epochs=4, enable_checkpointing=True)
        run.fit(module, loader(), ckpt_path=checkpoint)
        return run, evolution

    whole, again = Net(), Net(sparse(seed=9))
    first, evolution = fit(whole)
    second, resumed = fit(again, tmp_path / "epoch=0.ckpt")
    assert updates(evolution) == updates(resumed) == [10, 20, 30]
    assert evolution.evolver.history == resumed.evolver.history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    ones, others = (list(run.optimizers[0].state.values()) for run in (first, second))
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])
    state = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["callbacks"]["Evolution"]
    assert state["steps"] == 8
    assert ("captured" in state) == (grow != "random")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)],
)
@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_precisions(precision: Any, dtype: torch.dtype, grow: str) -> None:
    evolution, module = Evolution(drop="magnitude", grow=grow, every=3), Net()
    trainer(evolution, precision=precision, max_epochs=1).fit(module, loader())
    assert updates(evolution) == [3, 6]
    weight = module.inner[0].weight
    assert (weight.index.dtype, weight.values.dtype) == (torch.int64, dtype)
    assert bool(weight.values.isfinite().all())


class Two(L.LightningModule):
    """A critic that steps twice a batch, a generator that steps once, a dense head with its own optimizer."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.generator = sparse(), sparse(1)
        self.head = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, _ = batch
        critic, generator, head = self.optimizers()
        for optimizer, part, times in ((critic, self.critic, 2), (generator, self.generator, 1)):
            for _ in range(times):
                self.toggle_optimizer(optimizer)
                loss = (self.head(part(x)) + self.head(self.critic(x))).square().mean()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                self.untoggle_optimizer(optimizer)
        for _ in range(5):
            head.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = (self.critic, self.generator, self.head)
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in parts]


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_several_optimizers_count_as_the_one_that_steps_most(grow: str) -> None:
    module, evolution = Two(), Evolution(drop="magnitude", grow=grow, every=4, total=14)
    trainer(evolution, max_epochs=1).fit(module, loader())
    assert updates(evolution) == [4, 8, 12]
    assert evolution.evolver.steps == 2 * BATCHES
    assert set(evolution.evolver.history[0].dropped) == {
        f"{part}.{i}.weight" for part in ("critic", "generator") for i in (0, 2)
    }
    with pytest.raises(InputError, match=r"every is 'epoch', but how many .* give every=1000"):
        trainer(Evolution()).fit(Two(), loader())


def rows_logged(folder: Path, evolution: Evolution) -> list[dict[str, str]]:
    logger = CSVLogger(folder)
    trainer(evolution, max_epochs=3, logger=logger, log_every_n_steps=1).fit(Net(), loader())
    file = Path(logger.log_dir) / "metrics.csv"
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


def test_figures_reach_the_logger(tmp_path: Path) -> None:
    evolution = Evolution(0.25, explore=True)
    rows = rows_logged(tmp_path / "with", evolution)
    assert [int(row["step"]) for row in rows] == [8, 16]
    for row, change in zip(rows, evolution.evolver.history, strict=True):
        assert float(row["evolve_density"]) == pytest.approx(72 / 240)
        assert float(row["evolve_rate"]) == 0.25
        assert float(row["evolve_dropped"]) == float(row["evolve_grown"]) == change.total > 0
        assert float(row["evolve_regrown"]) == sum(change.regrown.values())
        assert float(row["evolve_explored"]) == pytest.approx(change.explored)
    assert rows_logged(tmp_path / "without", Evolution(log=False)) == []


class Dense(Net):
    """Dense when it is made; a checkpoint of a sparse one can be loaded into it."""

    def __init__(self) -> None:
        super().__init__(net())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sparsify_like(self, checkpoint["state_dict"])


class Configured(Net):
    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def configure_model(self) -> None:
        if isinstance(self.inner, nn.Identity):
            self.inner = sparse(4)


@pytest.mark.parametrize("kind", [Net, Dense, Configured])
def test_sparse_before_the_optimizer_and_back_from_a_checkpoint(
    kind: type[Net], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"density": 0.2, "generator": torch.Generator().manual_seed(3)} if kind is Dense else None
    module, evolution = kind(), Evolution(sparsify=wanted)
    run = trainer(evolution, max_epochs=3)
    run.fit(module, loader())
    assert updates(evolution) == [8, 16]
    run.save_checkpoint(tmp_path / "net.ckpt")
    topology = regraft.Topology.of(module)
    if kind is Dense:
        assert topology.nnz == round(0.2 * (12 * 16 + 16 * 3))
    back = kind.load_from_checkpoint(tmp_path / "net.ckpt")
    assert regraft.Topology.of(back) == topology
    for name, value in module.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name
    # a new trainer with the same callback tests what the file holds, and leaves other dense modules dense
    monkeypatch.chdir(tmp_path)
    fresh = kind()
    trainer(Evolution(sparsify=wanted)).test(fresh, loader(), ckpt_path="net.ckpt", verbose=False)
    assert regraft.Topology.of(fresh) == topology
    if kind is Dense:
        dense = Dense()
        trainer(Evolution(sparsify=0.2)).test(dense, loader(), verbose=False)
        assert isinstance(dense.inner[0], nn.Linear)


def test_a_density_is_enough_to_sparsify() -> None:
    module = Net(net())
    trainer(Evolution(sparsify=0.5), max_epochs=1).fit(module, loader())
    assert regraft.Topology.of(module).nnz == 120


def test_an_evolver_of_ones_own() -> None:
    module = Net(regraft.sparsify(net(), 1.0))
    shrinking = Evolution(evolver=Shrink(0.25, every=4, total=12))
    trainer(shrinking).fit(module, loader())
    assert updates(shrinking) == [4, 8, 12]
    assert regraft.Topology.of(module).nnz == 60
    rigl = Evolution(evolver=regraft.evolve.method("rigl", every=5, total=16))
    trainer(rigl).fit(Net(), loader())
    assert updates(rigl) == [5, 10]


def test_a_second_training_begins_anew() -> None:
    evolution = Evolution(every=6)
    for _ in range(2):
        trainer(evolution).fit(Net(), loader())
        assert updates(evolution) == [6, 12]


def test_a_checkpoint_made_without_it_keeps_the_count(tmp_path: Path) -> None:
    plain = trainer(max_epochs=1)
    plain.fit(module := Net(), loader())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    evolution = Evolution(every=6)
    trainer(evolution, max_epochs=3).fit(module, loader(), ckpt_path=tmp_path / "plain.ckpt")
    assert updates(evolution) == [12, 18]
    assert [done.update for done in evolution.evolver.history] == [1, 2]


def test_it_takes_its_hooks_away_also_after_an_error() -> None:
    class Failing(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 3:
                raise KeyError("no such thing")
            return super().training_step(batch, batch_idx)

    module = Failing()
    run = trainer(Evolution(drop="magnitude", grow="gradient", every=4))
    with pytest.raises(KeyError):
        run.fit(module, loader())
    assert not module.inner[0]._forward_hooks
    assert not run.optimizers[0]._optimizer_step_post_hooks


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(list(data()) * 3)


class TestSentences:
    def refused(self, module: L.LightningModule, match: str, evolution: Evolution, *others: Any) -> None:
        with pytest.raises(InputError, match=match):
            trainer(evolution, *others).fit(module, loader())

    def test_a_dense_module(self) -> None:
        self.refused(Net(net()), "the Net has no sparse weight: call regraft.sparsify", Evolution())

    def test_an_optimizer_that_holds_none(self) -> None:
        class Early(Net):
            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD([self.inner[0].bias], lr=0.1)

        self.refused(Early(), "the SGD optimizer holds none of the sparse weights", Evolution())

    def test_averages(self) -> None:
        match = "StochasticWeightAveraging averages values entry by entry"
        self.refused(Net(), match, Evolution(), StochasticWeightAveraging(0.1))

    def test_accumulation_that_changes(self) -> None:
        scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
        self.refused(Net(), "give every=1000", Evolution(), scheduler)
        evolution = Evolution(every=6)
        trainer(evolution, GradientAccumulationScheduler({0: 1, 1: 2})).fit(Net(), loader())
        assert updates(evolution) == [6, 12]

    def test_data_of_unknown_length(self) -> None:
        endless = DataLoader(Endless(), BATCH)
        with pytest.raises(InputError, match="give every=1000"):
            trainer(Evolution()).fit(Net(), endless)
        evolution = Evolution(every=5)
        trainer(evolution, max_epochs=-1, max_steps=12).fit(Net(), endless)
        assert updates(evolution) == [5, 10]
        assert evolution.evolver.total == 12

    @pytest.mark.parametrize("every", ["epohc", 0, "0epochs", -3])
    def test_every(self, every: Any) -> None:
        with pytest.raises(InputError, match="every"):
            Evolution(every=every)

    def test_strategies_that_split_weights(self) -> None:
        strategy = FSDPStrategy.__new__(FSDPStrategy)
        with pytest.raises(InputError, match=r"FSDPStrategy, which splits .* use strategy='ddp'"):
            module_under_test._check_strategy(SimpleNamespace(strategy=strategy))

    def test_a_state_of_other_layers(self) -> None:
        state = sparse().state_dict()
        with pytest.raises(MismatchError, match="'0' is sparse in the state, but the Sequential has no such"):
            sparsify_like(nn.Sequential(nn.ReLU()), state)


class Ranked(Net):
    """Writes down what its process ended with."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        keep = 1 + self.global_rank * 3  # unequal shares
        return super().training_step((x[:keep], y[:keep]), batch_idx)

    def on_train_end(self) -> None:
        torch.save(self.inner.state_dict(), self.folder / f"{self.global_rank}.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which CUDA does not survive")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_two_processes_end_alike(grow: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    evolution = Evolution(drop="magnitude", grow=grow, every=2)
    run = trainer(evolution, strategy="ddp_fork", devices=2, max_epochs=3)
    module = Ranked(tmp_path)
    run.fit(module, loader())
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert not torch.equal(first["0.weight.index"], sparse()[0].weight.index)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_shrinking_in_several_processes_is_refused() -> None:
    module, group = Net(), SimpleNamespace(size=lambda: 2)
    driver = Evolution(evolver=Shrink(0.1, total=4))._driver
    with pytest.raises(InputError, match="Shrink changes how many connections there are"):
        driver.start(module, [], group=group, epoch_steps=None, total=None, done=0)
