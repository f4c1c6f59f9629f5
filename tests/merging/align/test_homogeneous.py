"""Where units can be scaled: what the reading of the computation says holds for the function."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.graph.zoo import ZOO, network, samples
from torch import Tensor, nn

from regraft.merging.align import scalable


def found(model: nn.Module, shape: tuple[int, ...]) -> dict[str, str | None]:
    """What blocks the activations that a module makes, by its name."""
    return {name: s.blocked for s in scalable(model, shape) for name in s.makers}


def test_a_residual_network_can_be_scaled_but_for_its_ends() -> None:
    model = network("resnet-20")
    blocked = found(model, (3, 8, 8))
    assert blocked.pop("fc") == "the network's output"
    assert set(blocked.values()) == {None}
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    convs = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert set(blocked) == norms | convs
    alone = [s for s in scalable(model, (3, 8, 8)) if s.makers and s.makers <= convs]
    assert [len(s.makers) for s in alone] == [1] * len(convs)
    assert all(s.readers <= norms for s in alone)


@pytest.mark.parametrize(
    ("layer", "blocked"),
    [
        (nn.ReLU(), None), (nn.LeakyReLU(0.1), None), (nn.PReLU(), None), (nn.PReLU(6), None),
        (nn.Identity(), None), (nn.Dropout(), None), (nn.ReLU6(), "ReLU6"), (nn.Tanh(), "Tanh"),
        (nn.Sigmoid(), "Sigmoid"), (nn.GELU(), "GELU"), (nn.SiLU(), "SiLU"), (nn.ELU(), "ELU"),
        (nn.Softplus(), "Softplus"), (nn.Hardtanh(), "Hardtanh"), (nn.LayerNorm(6), "LayerNorm"),
        (nn.BatchNorm1d(6), None), (nn.BatchNorm1d(6, affine=False), "BatchNorm1d"),
        (nn.BatchNorm1d(6, track_running_stats=False), "BatchNorm1d"),
    ],
)  # fmt: skip
def test_layers(layer: nn.Module, blocked: str | None) -> None:
    model = nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 3))
    assert found(model, (4,))["0"] == blocked


class Functions(nn.Module):
    """Everything that commutes with a positive factor, as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.a(x)).contiguous()
        a = a + F.avg_pool2d(F.pad(self.b(x).relu(), (1, 1, 1, 1)), 3, 1)
        y = torch.cat([F.max_pool2d(a, 2), F.dropout(a, training=self.training)[:, :, ::2, ::2]], dim=1)
        found: Tensor = self.last(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1).view(-1, 8))
        return found


class Blocked(nn.Module):
    """One layer, and what is done with it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer, self.last = nn.Conv2d(2, 4, 1), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.kind == "number":
            y = y + 1.0
        elif self.kind == "named number":
            y = torch.add(y, other=1.0)
        elif self.kind == "parameter":
            y = y + self.scale
        elif self.kind == "product":
            y = y * y
        elif self.kind == "constant pad":
            y = F.pad(y, (1, 1), value=1.0)
        found: Tensor = self.last(y.mean((2, 3)))
        return found


def test_functions_that_commute_with_a_factor() -> None:
    model = Functions()
    assert found(model, (2, 4, 4)) == {"a": None, "b": None, "last": "the network's output"}
    sets = scalable(model, (2, 4, 4))
    assert any(s.makers == {"a", "b"} and s.readers == {"last"} for s in sets)


@pytest.mark.parametrize("kind", ["number", "named number", "parameter", "product", "constant pad"])
def test_functions_that_do_not(kind: str) -> None:
    assert found(Blocked(kind), (2, 4, 4))["layer"] is not None
    assert found(Blocked(""), (2, 4, 4))["layer"] is None


def test_layers_that_share_a_parameter_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight  # type: ignore[assignment]
    assert all(s.blocked is not None for s in scalable(model, (4,)))


class Twice(nn.Module):
    """A layer that is used two times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for _ in range(2):
            x = torch.relu(self.again(x))
        found: Tensor = self.last(x)
        return found


def test_a_layer_that_is_used_twice_scales_as_one() -> None:
    sets = scalable(Twice(), (3,))
    assert any(s.makers == {"first", "again"} and s.readers == {"again", "last"} for s in sets)


@pytest.mark.parametrize("name", ["mlp", "vgg"])
@torch.no_grad()
def test_what_is_said_to_be_scalable_is(name: str) -> None:
    """Makers times 3 and linear readers divided by 3 compute the same."""
    model, tried = network(name), 0
    for s in scalable(model, ZOO[name][1]):
        other = copy.deepcopy(model)
        modules = dict(other.named_modules())
        if s.blocked is None and not any(isinstance(modules[n], nn.BatchNorm2d) for n in s.readers):
            tried += 1
            for parameter in (p for maker in s.makers for p in modules[maker].parameters()):
                parameter *= 3
            for reader in s.readers:
                modules[reader].weight /= 3  # type: ignore[operator]
            torch.testing.assert_close(other(samples(name)), model(samples(name)))
    assert tried >= 2
