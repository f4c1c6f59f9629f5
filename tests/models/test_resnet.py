"""Residual networks: the papers' sizes, any image, files, sparse convolutions, errors."""

from pathlib import Path

import pytest
import torch
from torch import nn

import regraft
from regraft import models, sparsify
from regraft.errors import InputError

SMALL = ("resnet-8", "wrn-10-1")


def _count(name: str) -> int:
    return sum(p.numel() for p in models.build(name, device="meta").parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # He et al. 2016, table 6
        ("resnet-20", 0.27), ("resnet-32", 0.46), ("resnet-44", 0.66), ("resnet-56", 0.85),
        ("resnet:110", 1.73),
        # Zagoruyko and Komodakis 2016, tables 2 to 4
        ("wrn-40-1", 0.6), ("wrn-16-2", 0.7), ("wrn-40-2", 2.2), ("wrn-16-8", 11.0), ("wrn-28-10", 36.5),
    ],
)  # fmt: skip
def test_parameters_are_those_of_the_papers(name: str, millions: float) -> None:
    assert _count(name) / 1e6 == pytest.approx(millions, abs=0.051 if millions > 1 else 0.01 + millions / 20)


def test_resnet_20_by_hand() -> None:
    convolutions = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert _count("resnet-20") == convolutions + norms + 64 * 10 + 10
    layers = [m for m in models.build("resnet-20").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 20  # the shortcuts have no weights
    wide = [m for m in models.build("wrn-16-2").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(wide) == 16 + 1  # 6n + 4 counts the shortcuts' convolutions, but not the Linear layer


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 7, 5), (28, 28)])
def test_any_image(name: str, shape: tuple[int, ...]) -> None:
    model = models.build(name, input_shape=shape, classes=7, dropout=0.1)
    channels = shape[0] if len(shape) == 3 else 1
    assert model(torch.zeros(2, channels, *shape[-2:])).shape == (2, 7)


def test_a_block_without_its_convolutions_is_its_shortcut() -> None:
    model = models.build("resnet-8", generator=torch.Generator().manual_seed(0)).eval()
    block = model.group2_1
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = torch.rand(2, 16, 5, 5)
    y = block(x)
    assert y.shape == (2, 32, 3, 3)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_and_spec_give_the_same_model(name: str) -> None:
    first = models.build(name, dropout=0.2, generator=torch.Generator().manual_seed(3))
    again = models.build(first.spec, generator=torch.Generator().manual_seed(3))
    assert repr(again) == repr(first)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    other = models.build(name, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(other.conv.weight, first.conv.weight)


@pytest.mark.parametrize("name", SMALL)
def test_sparse_ones_train_and_go_through_a_file(name: str, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build(name, input_shape=(1, 8, 8), generator=g), density=0.3, generator=g)
    assert not any(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    x, y = torch.randn(8, 1, 8, 8, generator=g), torch.arange(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    regraft.save(model, tmp_path / "n.safetensors")
    back = regraft.load(tmp_path / "n.safetensors")
    assert torch.equal(back(x), model.eval()(x))
    assert regraft.Topology.of(back) == regraft.Topology.of(model)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet", "needs its number of layers"),
        ("resnet:x", "needs its number of layers"),
        ("resnet-18", "take 14 or 20"),
        ("resnet-2", "take 8"),
        ("resnet50", "did you mean 'resnet'"),
        ("wrn-16", "and its width"),
        ("wrn-16-0", "and its width"),
        ("wrn-18-2", "take 16 or 22"),
    ],
)
def test_ill_formed_names(name: str, says: str) -> None:
    with pytest.raises(InputError, match=r".") as error:
        models.build(name)
    assert says in str(error.value)


def test_only_images() -> None:
    with pytest.raises(InputError, match="but the input is 30: take an mlp"):
        models.build("resnet-8", input_shape=(30,))


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 9}, {"depth": "20"}, {"width": 0}, {"input": [3]}, {"classes": -1},
        {"activation": "x"}, {"dropout": 1.0},
    ],
)  # fmt: skip
def test_specs_from_files_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        models.build({**models.resolve("wrn-10-1"), **change})
