"""``gates.merge``: parents untouched, the same seed the same student, budgets kept, clear refusals."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft import Evolve, Topology, data, models, save
from regraft.errors import FileError, InputError, MismatchError
from regraft.gates import GatesWarning, Student, merge, set_evolution

MakeNet = Callable[..., nn.Module]
Batches = list[tuple[Tensor, Tensor]]

QUICK: dict[str, Any] = {"merge_epochs": 3, "finetune_epochs": 2, "lr": 0.05}


def quick(networks: Any, batches: Any, loss: Any = "cross-entropy", **options: Any) -> Student:
    """A merge that is over soon, whose gates have no time to come to their share."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GatesWarning)
        return merge(networks, batches, loss, **{**QUICK, **options})


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_the_student_has_the_parents_shape_and_the_parents_do_not_change(
    net: MakeNet, batches: Batches, density: float | None, count: int
) -> None:
    parents = [net(seed, density) for seed in range(count)]
    before = copy.deepcopy(parents)
    student = quick(parents, batches)
    assert all(same(a, b) for a, b in zip(parents, before, strict=True))
    old, new = parents[0].state_dict(), student.model.state_dict()
    assert list(new) == list(old)
    if density is None:
        assert all(new[name].shape == old[name].shape for name in old)
    else:
        assert Topology.of(student.model).nnz == Topology.of(parents[0]).nnz
    assert student.model.spec == parents[0].spec
    assert [len(u) for u in student.units.values()] == [10, 8]
    assert all(u.max() < count * n for u, n in zip(student.units.values(), (10, 8), strict=True))


def test_the_same_seed_gives_the_same_student(net: MakeNet, batches: Batches) -> None:
    parents = [net(seed, 0.4) for seed in range(2)]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = quick(parents, batches, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert same(first.model, quick(parents, batches, seed=1).model)
    assert not same(first.model, quick(parents, batches, seed=2).model)


def test_histories_say_what_happened(net: MakeNet, batches: Batches) -> None:
    seen = []
    student = quick([net(0), net(1)], batches, on_epoch=lambda phase, row: seen.append((phase, row["epoch"])))
    assert seen == [("merging", 1), ("merging", 2), ("merging", 3), ("fine-tuning", 1), ("fine-tuning", 2)]
    row = student.merging.final
    assert {"epoch", "lr", "train_loss", "seconds", "lambda", "l0", "open", "undecided"} == set(row)
    assert student.merging.column("lambda")[0] == 0.05
    assert student.merging.column("lr") == [0.05] * 3
    assert [g.name for g in student.groups] == ["fc1", "fc2"]
    assert all(math.isfinite(v) for v in student.finetuning.column("train_loss"))


def test_the_rate_falls_twice_in_fine_tuning(net: MakeNet, batches: Batches) -> None:
    student = quick([net(0), net(1)], batches, finetune_epochs=4)
    assert student.finetuning.column("lr") == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    student = quick([net(0), net(1)], batches, finetune_epochs=2, finetune_schedule="linear")
    assert student.finetuning.column("lr") == pytest.approx([0.05, 0.025])


def test_enough_pressure_leaves_the_share_open_and_decided(net: MakeNet, batches: Batches) -> None:
    student = merge([net(0), net(1)], batches * 8, merge_epochs=20, finetune_epochs=0)
    assert all(group.open == pytest.approx(0.5, abs=0.08) for group in student.groups)


def test_gates_that_are_not_constrained_are_warned_of(net: MakeNet, batches: Batches) -> None:
    with pytest.warns(GatesWarning, match=r"2 of 2 groups did not come to the share 0.5.*higher lambda_rate"):
        merge([net(0), net(1)], batches, merge_epochs=1, finetune_epochs=0)


def test_gates_that_close_a_whole_group_are_refused(net: MakeNet, batches: Batches) -> None:
    with pytest.raises(InputError, match=r"closed all \d+ units of the group 'fc\d'.*lower gate_lr"):
        quick([net(0), net(1)], batches[:1], merge_epochs=1, gate_lr=1e3, lambda_start=1e6)


@pytest.mark.parametrize("density", [None, 0.4])
def test_a_loss_that_is_nan_is_one_sentence(net: MakeNet, batches: Batches, density: float | None) -> None:
    with pytest.raises(InputError, match=r"diverged: the loss became (nan|inf) in epoch"):
        quick([net(0, density), net(1, density)], batches, lr=1e9, evolve=None)


def test_sparse_students_have_the_parents_counts(net: MakeNet, batches: Batches) -> None:
    parents = [net(seed, 0.4) for seed in range(3)]
    student = quick(parents, batches, finetune_epochs=0, scope="layer")
    expected = {n: c.nnz for n, c in Topology.of(parents[0]).items()}
    assert {n: c.nnz for n, c in Topology.of(student.model).items()} == expected
    student = quick(parents, batches, finetune_epochs=0)
    assert Topology.of(student.model).nnz == sum(expected.values())


def test_connections_grow_between_the_networks(net: MakeNet, batches: Batches) -> None:
    made: list[Evolve] = []

    def evolve(every: int, epochs: int, generator: torch.Generator) -> Evolve:
        made.append(set_evolution(every, epochs, generator))
        return made[-1]

    quick([net(0, 0.4), net(1, 0.4)], batches, evolve=evolve)
    assert len(made) == 2
    assert made[0].updates == QUICK["merge_epochs"] - 1
    weight = next(w for n, w in made[0]._model.model.named_modules() if n == "fc2.weight")  # type: ignore[union-attr]
    across = (weight.rows() >= 8) != (weight.input_units() >= 10)
    assert across.any()


def test_a_regression_and_any_loss_do(batches: Batches) -> None:
    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    targets = [(x, x.sum(1, keepdim=True)) for x, _ in batches]
    student = quick([net(0), net(1)], targets, nn.functional.mse_loss)
    assert student.model[0].out_features == 5
    assert student.evaluation == {}


def test_a_data_set_is_evaluated_on_the_way(net: MakeNet) -> None:
    digits = data.load("digits", per_class=10)
    parents = [models.build("mlp:64-12-10", generator=torch.Generator().manual_seed(s)) for s in range(2)]
    student = quick(parents, digits)
    assert list(student.evaluation) == ["concatenated", "gated", "compressed", "student"]
    assert set(student.evaluation["student"]) == {"accuracy", "loss", "n"}


def test_files_do_as_well_as_models(net: MakeNet, batches: Batches, tmp_path: Path) -> None:
    parents = [net(seed) for seed in range(2)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for parent, path in zip(parents, paths, strict=True):
        save(parent, path)
    assert same(quick(paths, batches).model, quick(parents, batches).model)


def test_networks_keep_their_mode(net: MakeNet, batches: Batches) -> None:
    parents = [net(0).eval(), net(1)]
    assert not quick(parents, batches).model.training
    assert not parents[0].training
    assert parents[1].training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"merge_epochs": 0}, "epochs is 0"),
        ({"finetune_epochs": -1}, "epochs is -1"),
        ({"gate_lr": 0.0}, "gate_lr is 0.0"),
        ({"lr": -1.0}, "learning rate is -1.0"),
        ({"lambda_start": 0.0}, "lambda_start is 0.0"),
        ({"lambda_rate": math.nan}, "lambda_rate is nan"),
        ({"loss": "crossentropy"}, "unknown loss"),
        ({"seed": -1}, "seed is -1"),
        ({"scope": "all"}, "scope is 'all'"),
        ({"count": "weights"}, "count is 'weights'"),
    ],
)
def test_values_out_of_range_are_refused(
    net: MakeNet, batches: Batches, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        quick([net(0), net(1)], batches, **options)


def test_one_network_and_things_that_are_none_are_refused(net: MakeNet, batches: Batches) -> None:
    with pytest.raises(InputError, match="two networks or more, but got 1"):
        merge([net(0)], batches)
    with pytest.raises(FileError, match=r"nowhere.safetensors"):
        merge([net(0), "nowhere.safetensors"], batches)


def test_networks_of_other_architectures_are_refused(net: MakeNet, batches: Batches) -> None:
    with pytest.raises(MismatchError):
        merge([net(0), models.build("mlp:6-10-9-4")], batches)


@pytest.mark.parametrize(
    ("loader", "words"),
    [([], "empty"), (iter([1]), "only once"), ([(1, 2)], "pairs"), ([torch.zeros(2)], "pairs")],
)
def test_batches_that_are_none_are_refused(net: MakeNet, loader: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        merge([net(0), net(1)], loader)


def test_teachers_of_different_classes_become_a_student_of_all(batches: Batches) -> None:
    def accuracy(model: nn.Module) -> float:
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return (model(x).argmax(1) == y).float().mean().item()

    teachers = []
    for seed, classes in enumerate(([0, 1], [2, 3])):
        torch.manual_seed(seed)
        teacher = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
        optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
        for _ in range(15):
            for x, y in batches:
                mine = torch.isin(y, torch.tensor(classes))
                optimizer.zero_grad()
                nn.functional.cross_entropy(teacher(x[mine]), y[mine]).backward()
                optimizer.step()
        teachers.append(teacher)
    student = quick(teachers, batches, merge_epochs=15, finetune_epochs=5)
    assert max(accuracy(teacher) for teacher in teachers) < 0.65
    assert accuracy(student.model) > 0.85


def test_a_model_that_cannot_be_traced_is_refused(batches: Batches) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)) if x.sum() > 0 else self.two(-self.one(x))

    with pytest.raises(InputError, match=r"traced|followed"):
        merge([Branching(), Branching()], batches)
