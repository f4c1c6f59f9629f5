"""A stack computes what its members compute, and gives them back as they were."""

import copy

import torch
from tests.train.toys import equal, state
from torch import Tensor, nn

from regraft.train.stack import Stack


def members() -> list[nn.Module]:
    return [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double() for _ in range(3)]


def test_outputs_losses_and_penalties() -> None:
    models, x = members(), torch.randn(3, 7, 3, dtype=torch.float64)
    y = torch.randint(2, (3, 7))
    stack = Stack(models)
    stack.train(False)
    outputs = torch.stack([copy.deepcopy(m).eval()(part) for m, part in zip(models, x, strict=True)])
    torch.testing.assert_close(stack.outputs(x), outputs)
    losses = [nn.functional.cross_entropy(z, t) for z, t in zip(outputs, y, strict=True)]
    torch.testing.assert_close(stack.losses(x, y, nn.functional.cross_entropy), torch.stack(losses))

    def norm(model: nn.Module, epoch: int) -> Tensor:
        assert isinstance(model, nn.Sequential)
        weight = model[2].weight
        assert isinstance(weight, Tensor)
        return epoch * weight.square().sum()

    torch.testing.assert_close(stack.penalties(norm, 3), torch.stack([norm(m, 3) for m in models]))


def test_members_come_back_unchanged_and_independent() -> None:
    models = [m.eval() for m in members()]
    stack = Stack(models)
    back, again = stack.models(), stack.models()
    for model, one, other in zip(models, back, again, strict=True):
        assert equal(state(model), state(one))
        assert not one.training
        with torch.no_grad():
            next(one.parameters()).zero_()
        assert equal(state(model), state(other))


def test_shared_parameters_stay_shared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    models = [Tied(), Tied()]
    stack, x = Stack(models), torch.randn(2, 5, 3)
    assert len(stack.parameters) == 3
    expected = torch.stack([m(part) for m, part in zip(models, x, strict=True)])
    torch.testing.assert_close(stack.outputs(x), expected)
    back = stack.models()[0]
    assert isinstance(back, Tied)
    assert back.second.weight is back.first.weight
