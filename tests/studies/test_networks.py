"""Training networks that differ in their seed."""

from __future__ import annotations

from dataclasses import replace

import torch

from regraft.studies.networks import steps_of, train_network


def test_the_seed_decides_everything(networks, recipe, digits) -> None:
    again = train_network(recipe, digits, seed=1)
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, networks[1].model.state_dict()[name])
    assert again.topology == networks[1].topology != networks[0].topology


def test_figures_are_those_of_the_network(networks, digits) -> None:
    figures = networks[2].figures()
    assert figures["seed"] == 2
    assert figures["epochs"] == len(figures["accuracy_by_epoch"]) == 4
    assert figures["accuracy"] == figures["accuracy_by_epoch"][-1] > 0.5
    assert figures["connections"] == round(0.3 * (64 * 24 + 24 * 10))


def test_progress_counts_all_steps(recipe, digits) -> None:
    for batch_size, per_epoch in ((70, 5), (None, 1)):
        own = replace(recipe, epochs=2, batch_size=batch_size)
        done = []
        train_network(own, digits, 0, lambda steps=1, note="", done=done: done.append(steps))
        assert sum(done) == steps_of(own, digits) == 2 * per_epoch
