"""The loop for any loader and any loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.gates.training import check_batches, train

Batches = list[tuple[Tensor, Tensor]]


def test_it_is_plain_gradient_descent(batches: Batches) -> None:
    model = nn.Linear(6, 4)
    twin = nn.Linear(6, 4)
    twin.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = train(model, batches, nn.functional.cross_entropy, optimizer, 2, phase="test")
    losses = []
    for _ in range(2):
        losses.append(0.0)
        for x, y in batches:
            twin.zero_grad()
            loss = nn.functional.cross_entropy(twin(x), y)
            loss.backward()
            losses[-1] += loss.item() / len(batches)
            with torch.no_grad():
                for p in twin.parameters():
                    p -= 0.1 * p.grad
    assert torch.allclose(model.weight, twin.weight, atol=1e-6)
    assert history.column("train_loss") == pytest.approx(losses, rel=1e-5)


def test_a_mean_over_batches_of_different_size_is_over_samples() -> None:
    model = nn.Linear(1, 1)
    batches = [(torch.zeros(3, 1), torch.ones(3, 1)), (torch.zeros(1, 1), torch.zeros(1, 1))]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)

    def target(output: Tensor, y: Tensor) -> Tensor:
        return y.mean() + 0 * output.sum()

    assert train(model, batches, target, optimizer, 1, phase="test").final["train_loss"] == 0.75


def test_divergence_names_the_phase(batches: Batches) -> None:
    model = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"merging diverged: the loss became nan in epoch 1.*now 0.1"):
        train(model, batches, lambda o, y: o.sum() * math.nan, optimizer, 1, phase="merging")


def test_the_first_batch_is_handed_back(batches: Batches) -> None:
    x, y = check_batches(batches)
    assert x is batches[0][0]
    assert y is batches[0][1]
