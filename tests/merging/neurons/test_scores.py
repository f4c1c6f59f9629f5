"""Unit scores: against plain tensor algebra, and what must not change them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from regraft import sparsify
from regraft.errors import InputError
from regraft.graph import trace
from regraft.merging.neurons import UNIT_SCORES, activity, magnitude, outgoing, random
from regraft.probe import Probe


def mlp(density: float | None = None) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))
    return model if density is None else sparsify(model, density, allocate="uniform")


def dense(layer: nn.Module) -> Tensor:
    weight = layer.weight
    return weight.detach().double() if isinstance(weight, Tensor) else weight.dense().detach().double()  # type: ignore


def batches(n: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(11 + i, 6), torch.zeros(11 + i)) for i in range(n)]


@pytest.mark.parametrize("density", [None, 0.4])
def test_against_plain_algebra(density: float | None) -> None:
    model, data = mlp(density), batches()
    graph, x = trace(model), torch.cat([x for x, _ in data])
    first = torch.relu(model[0](x)).detach().double()
    second = torch.tanh(model[2](torch.relu(model[0](x)))).detach().double()
    out = {"0": dense(model[2]).norm(dim=0), "2": dense(model[4]).norm(dim=0)}
    into = {"0": dense(model[0]).norm(dim=1), "2": dense(model[2]).norm(dim=1)}
    spread = {"0": first.std(0, correction=0), "2": second.std(0, correction=0)}
    found = activity(model, graph, Probe(batches=data)), outgoing(model, graph), magnitude(model, graph)
    for name in ("0", "2"):
        torch.testing.assert_close(found[0][name], spread[name] * out[name], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found[1][name], out[name])
        torch.testing.assert_close(found[2][name], torch.hypot(into[name], out[name]))


def test_flattened_maps_are_units() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    graph, x = trace(model, (1, 4, 4)), torch.randn(7, 1, 4, 4)
    maps = torch.relu(model[0](x)).detach().double().transpose(0, 1).flatten(1)
    norms = model[3].weight.detach().double().view(2, 3, 4).norm(dim=(0, 2))
    found = activity(model, graph, Probe(batches=[(x, torch.zeros(7))]))
    torch.testing.assert_close(found["0"], maps.std(1, correction=0) * norms, rtol=1e-5, atol=1e-7)


def test_a_residual_stream_counts_all_its_readers() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            return self.head(x + self.branch(x))  # type: ignore[no-any-return]

    model = Stream()
    found = outgoing(model, trace(model, (4,)))
    assert list(found) == ["stem"]
    readers = dense(model.branch).square().sum(0) + dense(model.head).square().sum(0)
    torch.testing.assert_close(found["stem"], readers.sqrt())


def test_rescaling_a_relu_unit_changes_its_magnitude_but_not_its_activity() -> None:
    model, probe = mlp(), Probe(batches=batches())
    graph, other = trace(model), copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight[2] *= 8
        other[0].bias[2] *= 8
        other[2].weight[:, 2] /= 8
    torch.testing.assert_close(activity(other, graph, probe)["0"], activity(model, graph, probe)["0"])
    assert magnitude(other, graph)["0"][2] > 2 * magnitude(model, graph)["0"][2]


def test_the_model_is_left_alone() -> None:
    model, probe = mlp(0.5).train(), Probe(batches=batches(), generator=torch.Generator())
    before = copy.deepcopy(model.state_dict())
    for score in UNIT_SCORES.values():
        assert all(not s.requires_grad for s in score(model, trace(model), probe).values())
    assert model.training
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in before)
    assert all(p.grad is None for p in model.parameters())


def test_what_a_score_needs() -> None:
    model = mlp()
    with pytest.raises(InputError, match="'activity' needs at least one batch"):
        activity(model, trace(model))
    with pytest.raises(InputError, match="'random' draws random numbers"):
        random(model, trace(model), Probe(batches=batches()))
