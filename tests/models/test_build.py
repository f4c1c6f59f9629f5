"""Models by name: shapes, names of weights, specs that build the same model again, errors."""

import pytest
import torch
from torch import nn

from regraft import models, sparsify
from regraft.errors import InputError, MismatchError


def test_mlp_layers() -> None:
    model = models.build("mlp:784-300-100-10", dropout=0.5, activation="tanh")
    kinds = [type(m).__name__ for m in model]
    assert kinds == ["Flatten", "Linear", "Tanh", "Dropout", "Linear", "Tanh", "Dropout", "Linear"]
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_weights_have_the_same_names_with_and_without_dropout() -> None:
    with_dropout = models.build("mlp:8-6-4-2", dropout=0.3).state_dict()
    assert with_dropout.keys() == models.build("mlp:8-6-4-2").state_dict().keys()
    assert list(with_dropout)[:2] == ["fc1.weight", "fc1.bias"]


def test_open_sizes_come_from_the_data() -> None:
    assert models.resolve("mlp", input_shape=(3, 4, 4), classes=7)["sizes"] == [48, 256, 256, 7]
    assert models.resolve("mlp:in-5-classes", input_shape=(6,), classes=2)["sizes"] == [6, 5, 2]
    assert models.resolve("lenet-300-100", input_shape=(64,), classes=5)["sizes"] == [64, 300, 100, 5]
    assert models.resolve("lenet-300-100")["sizes"] == [784, 300, 100, 10]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32), (28, 28)])
def test_lenet_5(shape: tuple[int, ...]) -> None:
    model = models.build("lenet-5", input_shape=shape, classes=4, activation="tanh", dropout=0.1)
    channels = shape[0] if len(shape) == 3 else 1
    assert model(torch.zeros(2, channels, *shape[-2:])).shape == (2, 4)


def test_lenet_5_has_the_parameters_of_the_paper() -> None:
    # 5x5 convolutions to 6 and 16 maps (all connected), then 400-120-84-10
    expected = (25 + 1) * 6 + (25 * 6 + 1) * 16 + 401 * 120 + 121 * 84 + 85 * 10
    assert sum(p.numel() for p in models.build("lenet-5").parameters()) == expected


@pytest.mark.parametrize("name", ["mlp:6-5-4", "lenet-300-100", "lenet-5"])
def test_a_spec_builds_the_same_model_again(name: str) -> None:
    first = models.build(name, dropout=0.2, activation="sigmoid", generator=torch.Generator().manual_seed(3))
    spec = first.spec
    assert isinstance(spec, dict)
    again = models.build(spec, generator=torch.Generator().manual_seed(3))
    assert repr(again) == repr(first)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_values_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    a = models.build("mlp:9-8-7", generator=torch.Generator().manual_seed(0))
    b = models.build("mlp:9-8-7", generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(a.fc1.weight, b.fc1.weight)


def test_meta_device_holds_nothing() -> None:
    assert all(p.is_meta for p in models.build("mlp:100000-100000-2", device="meta").parameters())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mpl:3-2", "did you mean 'mlp'?"),
        ("lenet5", "did you mean 'lenet-5'"),
        ("mlp:784", "at least the input and the output"),
        ("mlp:7-x-2", "the size 'x'"),
        ("mlp:7-0-2", "the size '0'"),
        ("mlp:7--2", "the size ''"),
        ("mlp:in-5-2", "no data was given"),
        ("mlp:5-classes", "no data was given"),
        ("lenet-5:3", "takes nothing after its name"),
        ("", "unknown model ''"),
    ],
)
def test_ill_formed_names(name: str, says: str) -> None:
    with pytest.raises(InputError, match=r".") as error:
        models.build(name)
    assert says in str(error.value)


@pytest.mark.parametrize("name", ["mlp:100-50-10", "mlp:784-50-9"])
def test_models_that_do_not_fit_the_data(name: str) -> None:
    with pytest.raises(MismatchError, match=r"784|10 classes"):
        models.build(name, input_shape=(1, 28, 28), classes=10)


def test_lenet_5_refuses_other_images() -> None:
    with pytest.raises(InputError, match="1x8x8"):
        models.build("lenet-5", input_shape=(1, 8, 8), classes=10)
    with pytest.raises(InputError, match="64"):
        models.build("lenet-5", input_shape=(64,), classes=10)


def test_options_out_of_range() -> None:
    with pytest.raises(InputError, match=r"dropout is 1\.0"):
        models.build("mlp:3-4-2", dropout=1.0)
    with pytest.raises(InputError, match="did you mean 'relu'"):
        models.build("mlp:3-2", activation="rely")
    with pytest.raises(InputError, match="unknown init 'hee'"):
        models.build("mlp:3-2", init="hee")


GOOD = {"name": "mlp", "sizes": [3, 2], "activation": "relu", "dropout": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "mlpp"}, {"name": None}, {"name": ["mlp"]}, {"sizes": [3]}, {"sizes": "3-2"},
        {"sizes": [3, -2]}, {"sizes": [3, 2.0]}, {"sizes": [True, 2]}, {"activation": 3},
        {"activation": ["relu"]}, {"dropout": "0.1"}, {"dropout": 2}, {"colour": "red"},
    ],
)  # fmt: skip
def test_specs_from_files_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        models.build({**GOOD, **change})


@pytest.mark.parametrize("field", ["sizes", "activation", "dropout"])
def test_incomplete_specs(field: str) -> None:
    with pytest.raises(InputError, match=f"lacks '{field}'"):
        models.build({k: v for k, v in GOOD.items() if k != field})


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2.0), ("tanh", 25 / 9), ("sigmoid", 1.0)])
def test_he_keeps_the_variance_that_the_activation_takes(activation: str, gain: float) -> None:
    layer = nn.Linear(400, 2000)
    models.initialise(layer, activation=activation, generator=torch.Generator().manual_seed(0))
    assert layer.weight.var().item() == pytest.approx(gain / 400, rel=0.01)
    assert layer.weight.abs().max().item() <= (3 * gain / 400) ** 0.5
    assert not layer.bias.any()


def test_he_preserves_activations_through_relu_layers() -> None:
    model = models.build("mlp:500-500-500-500-500-500", generator=torch.Generator().manual_seed(0))
    x = torch.randn(200, 500)
    ratio = model(x).square().mean() / (2 * x.square().mean())
    assert 0.5 < ratio.item() < 2.0


def test_torch_init_is_torchs_own() -> None:
    layer, theirs = nn.Linear(300, 2000), nn.Linear(300, 2000)
    models.initialise(layer, "torch", generator=torch.Generator().manual_seed(0))
    assert layer.weight.std().item() == pytest.approx(theirs.weight.std().item(), rel=0.01)
    assert layer.bias.std().item() == pytest.approx(theirs.bias.std().item(), rel=0.05)
    conv, theirs_too = nn.Conv2d(16, 200, 3), nn.Conv2d(16, 200, 3)
    models.initialise(conv, "torch", generator=torch.Generator().manual_seed(0))
    assert conv.weight.std().item() == pytest.approx(theirs_too.weight.std().item(), rel=0.02)


def test_normalisation_layers_start_neutral() -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(5.0)
    norm.weight.data.fill_(7.0)
    models.initialise(nn.Sequential(norm))
    assert norm.weight.tolist() == [1, 1, 1]
    assert norm.running_mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize("init", models.INITS)
def test_sparse_layers_are_drawn_like_dense_ones(init: str) -> None:
    g = torch.Generator().manual_seed(0)
    dense = nn.Sequential(nn.Linear(400, 300))
    models.initialise(dense, init, generator=g)
    bound = dense[0].weight.abs().max()
    sparse = sparsify(nn.Sequential(nn.Linear(400, 300)), density=0.25, generator=g)
    for how, factor in (("keep", 1.0), ("rescale", 2.0)):
        models.initialise(sparse, init, sparse_init=how, generator=g)
        assert (sparse[0].weight.values.abs().max() / bound).item() == pytest.approx(factor, rel=0.01)
        assert (sparse[0].bias.abs().max() > 0) == (init == "torch")
    with pytest.raises(InputError, match="unknown sparse_init 'scale'"):
        models.initialise(sparse, init, sparse_init="scale")
