"""Merging by gates on a device: the student is trained where the networks lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.devices.features import CPU, batches, convolutional, images, on, same, trained

from regraft import data, models
from regraft.gates import GatesWarning, merge, merge_greedily, tournament

QUICK: dict[str, Any] = {"merge_epochs": 2, "finetune_epochs": 1, "lr": 0.05}
GREEDY: dict[str, Any] = {"identify_epochs": 1, "mimic_epochs": 1, "finetune_epochs": 1, "lr": 0.05}


@pytest.fixture(autouse=True)
def _no_time_to_decide() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GatesWarning)
        yield


@pytest.mark.parametrize(
    "options", [{}, {"train_beta": True, "count": "units"}, {"fold": True, "evolve": None}]
)
@pytest.mark.parametrize("density", [None, 0.4])
def test_students(device: torch.device, density: float | None, options: dict[str, Any]) -> None:
    def run(where: torch.device) -> Any:
        networks = [trained(where, seed, density) for seed in range(2)]
        student = merge(networks, batches(where), **QUICK, **options)
        assert on([student.model, *networks], where)
        return student.model, student.units, student.groups, student.merging.column("train_loss")

    same(run, device)


def test_batches_of_the_cpu_and_networks_with_convolutions(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        return merge([convolutional(where, seed) for seed in range(2)], images(CPU), **QUICK).model

    assert on(same(run, device), device)


def test_a_data_set_on_the_cpu(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        digits = data.load("digits", per_class=4)
        networks = [
            models.build("mlp:64-6-10", generator=torch.Generator().manual_seed(seed)).to(where)
            for seed in range(2)
        ]
        student, greedy = merge(networks, digits, **QUICK), merge_greedily(networks, digits, **GREEDY)
        return student.model, student.evaluation, greedy.model.state_dict().keys(), list(greedy.evaluation)

    assert on(same(run, device)[0], device)


@pytest.mark.parametrize("start", ["teachers", "fresh"])
def test_the_greedy_strategy(device: torch.device, start: Any) -> None:
    def run(where: torch.device) -> Any:
        networks = [trained(where, seed, None) for seed in range(2)]
        student = merge_greedily(networks, batches(CPU), start=start, **GREEDY)
        assert on(student.model, where)
        # "fresh" draws from the global generator of the device
        return (student.units, student.groups, student.model if start == "teachers" else ())

    same(run, device)


def test_a_tournament(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        networks = [trained(where, seed) for seed in range(3)]
        return tournament(networks, lambda some, match: merge(some, batches(where), **QUICK).model).winner

    assert on(same(run, device), device)
