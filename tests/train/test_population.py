"""Populations: each member becomes what it would have become alone."""

import copy
from typing import Any

import pytest
import torch
from tests.train.toys import equal, state, toy_data
from torch import Tensor, nn

from regraft import models, sparsify
from regraft.errors import InputError, MismatchError
from regraft.train import fit, population, schedule_by_name, seeds

DATA = toy_data()
X, Y = DATA.train.x, DATA.train.y


def mlp(seed: int, name: str = "mlp:8-12-10-4", density: float | None = None) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    model = models.build(name, activation="tanh", generator=g)
    return model if density is None else sparsify(model, density=density, generator=g)


def lenet(seed: int) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4))
    model = nn.Sequential(*layers)
    models.parts.initialise(model, generator=g)
    return model


def normalised(seed: int) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    return models.build("resnet-8", input_shape=(1, 8, 8), classes=4, generator=g)


def uneven_bias(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 6, bias=False), nn.Sigmoid(), nn.Linear(6, 4))


def by_layers_of_ones_own(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 4))


KINDS = {
    "mlp": (mlp, X),
    "no bias": (uneven_bias, X),
    "layer norm": (by_layers_of_ones_own, X),
    "sparse": (lambda seed: mlp(seed, density=0.3), X),
    "convolution": (lenet, torch.randn(52, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
    "batch norm": (normalised, torch.randn(52, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
}


def alone(model: nn.Module, x: Tensor, y: Tensor, seed: int, loss: Any, **changes: Any) -> list[float]:
    """SGD as anyone would write it, in place; the mean loss of each epoch."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [1, 3], gamma=0.5)
    g, means = seeds.stream(seed, "order"), []
    model.train()
    for epoch in range(changes.get("epochs", 4)):
        total = 0.0
        for index in torch.randperm(len(x), generator=g).split(changes.get("batch_size", 16)):
            value = loss(model(x[index]), y[index])
            extra = changes["penalty"](model, epoch) if "penalty" in changes else 0.0
            sgd.zero_grad()
            (value + extra).backward()
            sgd.step()
            total += value.item() * len(index) / len(x)
        schedule.step()
        means.append(total)
    return means


def together(members: list[nn.Module], x: Tensor, y: Tensor, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "epochs": 4, "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "batch_size": 16,
        "lr_schedule": "MultiStepLR:milestones=[1,3],gamma=0.5", "seeds": [5, 1, 9], **changes,
    }  # fmt: skip
    return population.train(members, x, y, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("same_order", [False, True])
def test_each_member_is_what_it_would_be_alone(kind: str, same_order: bool) -> None:
    make, x = KINDS[kind]
    members = [make(seed).double() for seed in range(3)]
    before = [state(m) for m in members]
    trained, histories = together(members, x.double(), Y, same_order=same_order)
    assert all(equal(a, state(m)) for a, m in zip(before, members, strict=True))
    for i, seed in enumerate((5, 5, 5) if same_order else (5, 1, 9)):
        single = copy.deepcopy(members[i])
        means = alone(single, x.double(), Y, seed, nn.functional.cross_entropy)
        assert histories[i].column("train_loss") == pytest.approx(means, rel=1e-9)
        for name, tensor in single.state_dict().items():
            torch.testing.assert_close(trained[i].state_dict()[name], tensor, rtol=1e-9, atol=1e-12)
    assert [row["epoch"] for row in histories[0].epochs] == [1, 2, 3, 4]
    assert histories[0].column("lr") == pytest.approx([0.05, 0.025, 0.025, 0.0125])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_it_agrees_with_fit(optimizer: str) -> None:
    members = [mlp(seed) for seed in range(2)]
    trained, _ = population.train(
        members,
        X,
        Y,
        epochs=2,
        lr=0.01,
        optimizer=optimizer,
        lr_schedule="cosine",
        batch_size=8,
        seeds=[3, 4],
    )
    kinds: dict[str, Any] = {
        "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop,
    }  # fmt: skip
    for i, seed in enumerate((3, 4)):
        single = copy.deepcopy(members[i])
        made = kinds[optimizer](single.parameters(), lr=0.01)
        schedule = schedule_by_name("cosine", made, 2)
        fit(single, DATA, epochs=2, optimizer=made, scheduler=schedule, batch_size=8, seed=seed)
        for a, b in zip(single.parameters(), trained[i].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_regression_on_one_input() -> None:
    x = torch.linspace(-1, 1, 52, dtype=torch.float64).unsqueeze(1)
    members = [mlp(seed, "mlp:1-20-1").double() for seed in range(3)]
    trained, _ = together(members, x, x.square(), loss="mse")
    single = copy.deepcopy(members[2])
    alone(single, x, x.square(), 9, nn.functional.mse_loss)
    torch.testing.assert_close(trained[2].state_dict()["fc1.weight"], single.state_dict()["fc1.weight"])
    expected = [nn.functional.mse_loss(m(x), x.square()) for m in trained]
    found = population.evaluate(trained, x, x.square(), loss="mse", batch_size=20)
    torch.testing.assert_close(found, torch.stack(expected).detach())


class Noisy(nn.Module):
    """A layer whose random numbers come from a generator of its own, and a factor that trains fast."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.inside = nn.Linear(8, 4).double()
        models.parts.initialise(self.inside, generator=g)
        self.factor = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.seed, self.drawn = seed, 0

    def noise(self) -> Tensor:
        self.drawn += 1
        g = torch.Generator().manual_seed(1000 * self.seed + self.drawn)
        return torch.randn(4, dtype=torch.float64, generator=g)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        drawn = self.noise() if noise is None else noise
        return self.inside(x) * self.factor * (1 + 0.1 * drawn)


def spread(model: nn.Module, epoch: int) -> Tensor:
    return 0.01 * epoch * model.factor.square().sum()


def by_hand(parameters: Any, x: Tensor, drawn: Any) -> Tensor:
    z = x @ parameters["inside.weight"].mT + parameters["inside.bias"].unsqueeze(1)
    return z * (parameters["factor"] * (1 + 0.1 * drawn["noise"])).unsqueeze(1)


@pytest.mark.parametrize("forward", [None, by_hand])
def test_penalty_noise_and_rates_of_their_own(forward: Any) -> None:
    members = [Noisy(seed) for seed in range(3)]
    trained, histories = together(
        members, X.double(), Y, rates={"fact*": 0.5}, penalty=spread, draw=lambda m: {"noise": m.noise()},
        forward=forward,
    )  # fmt: skip
    single, values = copy.deepcopy(members[1]), []
    groups = [{"params": single.inside.parameters()}, {"params": [single.factor], "lr": 0.5}]
    sgd = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, [1, 3], gamma=0.5)
    g = seeds.stream(1, "order")
    for epoch in range(4):
        for index in torch.randperm(52, generator=g).split(16):
            sgd.zero_grad()
            extra = spread(single, epoch)
            (nn.functional.cross_entropy(single(X[index].double()), Y[index]) + extra).backward()
            sgd.step()
            values.append(extra.item() * len(index) / 52)
        schedule.step()
    for a, b in zip(single.parameters(), trained[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)
    sums = [sum(values[4 * e : 4 * e + 4]) for e in range(4)]
    assert histories[1].column("penalty") == pytest.approx(sums)
    assert members[0].drawn == 0, "the networks passed in draw nothing"


def test_dropout_differs_between_members_and_leaves_the_global_generator_alone() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 4))
    before = torch.get_rng_state()
    trained, _ = population.train([model, model], X, Y, epochs=1, lr=0.1, seeds=[1, 1])
    assert torch.equal(before, torch.get_rng_state())
    assert not equal(state(trained[0]), state(trained[1]))
    again, _ = population.train([model, model], X, Y, epochs=1, lr=0.1, seeds=[1, 1])
    assert equal(state(trained[1]), state(again[1]))
    assert population.evaluate([model, model], X, Y).unique().numel() == 1


def test_modes_and_frozen_parameters_stay() -> None:
    members = [mlp(seed).eval() for seed in range(2)]
    for m in members:
        m.fc1.weight.requires_grad_(False)
    trained, _ = together(members, X, Y, seeds=None)
    assert not trained[0].training
    assert not trained[0].fc1.weight.requires_grad
    assert torch.equal(trained[0].fc1.weight, members[0].fc1.weight)
    assert not torch.equal(trained[0].fc2.weight, members[0].fc2.weight)
    assert trained[0].spec == members[0].spec


def test_a_member_that_diverges_is_named_and_the_others_go_on() -> None:
    members = [mlp(seed) for seed in range(3)]
    with torch.no_grad():
        members[1].fc3.weight.mul_(1e30)
        members[1].fc3.bias.mul_(0).add_(1e38)
    relu = [nn.Sequential(*m, nn.Threshold(-1e30, 1.0)) for m in members]
    with pytest.warns(population.DivergedWarning, match=r"diverged in member 2 \(epoch 1\): lower"):
        trained, histories = together(relu, X, Y, loss=lambda z, y: nn.functional.mse_loss(z[:, 0], y * 1.0))
    assert "in epoch 1" in str(histories[1].stopped)
    assert len(histories[1].epochs) == 1
    assert len(histories[0].epochs) == 4
    for i in (0, 2):
        assert all(bool(torch.isfinite(p).all()) for p in trained[i].parameters())
    with pytest.raises(InputError, match="diverged in all 1 members"):
        together(relu[1:2], X, Y, seeds=[0], loss=lambda z, y: nn.functional.mse_loss(z[:, 0], y * 1.0))


def test_networks_that_do_not_fit_each_other() -> None:
    with pytest.raises(InputError, match="needs at least one network"):
        together([], X, Y)
    with pytest.raises(InputError, match="from a list of networks"):
        together(mlp(0), X, Y)
    with pytest.raises(InputError, match="member 2 is of type str"):
        together([mlp(0), "model.safetensors"], X, Y)
    with pytest.raises(MismatchError, match=r"'fc2.weight' is float32 \(9, 12\) on cpu in member 2"):
        together([mlp(0), mlp(0, "mlp:8-12-9-4")], X, Y)
    with pytest.raises(MismatchError, match=r"'fc1.weight.values' is float32 .* as many connections"):
        together([mlp(0, density=0.3), mlp(0, density=0.4)], X, Y)
    with pytest.raises(MismatchError, match=r"'2.weight' is missing in member 2"):
        together([nn.Sequential(*mlp(0)[1:4]), nn.Sequential(*mlp(0)[1:3])], X, Y)
    with pytest.raises(MismatchError, match="float64"):
        together([mlp(0), mlp(0).double()], X, Y)
    with pytest.raises(MismatchError, match="other modules or options"):
        together([nn.Sequential(mlp(0), nn.ReLU()), nn.Sequential(mlp(0), nn.Tanh())], X, Y)


def test_values_out_of_range() -> None:
    members = [mlp(0), mlp(1)]
    for changes, message in (
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": -1.0}, "learning rate is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seeds": [1]}, "1 seeds for 2 members"),
        ({"seeds": [1, -1]}, "seed is -1"),
        ({"rates": {"gate*": 0.1}}, "'gate\\*' of rates matches no parameter"),
        ({"rates": {"fc1*": 0.0}}, "learning rate is 0"),
        ({"optimizer": "lbfgs"}, "unknown optimizer"),
        ({"loss": "hinge"}, "unknown loss"),
    ):
        with pytest.raises(InputError, match=message):
            together(members, X, Y, **{"seeds": [0, 1], **changes})
    with pytest.raises(InputError, match="samples have NaN"):
        together(members, X.clone().fill_(torch.nan), Y, seeds=None)
    with pytest.raises(MismatchError, match=r"\(52, 8\) and targets of shape \(51,\)"):
        together(members, X, Y[1:], seeds=None)
    with pytest.raises(MismatchError, match="does not take samples of shape"):
        together(members, X[:, 1:], Y, seeds=None)
    with pytest.raises(InputError, match="no parameter that trains"):
        together([nn.Sequential(nn.ReLU())], X, Y, seeds=[0])


class Looks(nn.Module):
    """A network whose operations depend on its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.inside(x)
        return z if z.sum().item() > 0 else -z


def test_a_network_that_cannot_be_mapped() -> None:
    with pytest.raises(InputError, match="the Looks cannot be computed for many members at once"):
        together([Looks(), Looks()], X, Y, seeds=None)
