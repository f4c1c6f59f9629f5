"""Existing models become sparse and dense again."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("keras")

import keras

import regraft
from regraft.errors import InputError
from regraft.integrations.keras import SparseDense, densify, sparse_layers, sparsify, torch_view

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Dense = keras.layers.Dense


def samples(*shape):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def sequential():
    return keras.Sequential([
        keras.Input((12,)), Dense(20, "relu", name="fc1"), keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2), Dense(4, use_bias=False, kernel_regularizer="l2", name="fc2"),
    ])  # fmt: skip


def branched():
    """Shared layers, a shortcut and an inner model."""
    inputs = keras.Input((12,))
    shared = Dense(12, "tanh", name="shared")
    inner = keras.Sequential([keras.Input((12,)), Dense(12, name="inside")], name="inner")
    hidden = keras.layers.Add()([shared(inputs), inner(shared(inputs))])
    return keras.Model(inputs, [Dense(3, name="a")(hidden), Dense(2, name="b")(inputs)])


@pytest.mark.parametrize("make", [sequential, branched])
def test_density_one_changes_nothing_and_there_is_a_way_back(make):
    model, x = make(), samples(5, 12)
    dense = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x))]
    full = sparsify(model, 1.0)
    for y, expected in zip(keras.tree.flatten(full(x)), dense, strict=True):
        assert np.allclose(y.detach().numpy(), expected, atol=1e-5)
    sparse = sparsify(model, 0.3)
    back = densify(sparse)
    for y, expected in zip(keras.tree.flatten(back(x)), keras.tree.flatten(sparse(x)), strict=True):
        assert torch.allclose(y, expected, atol=1e-5)
    assert {type(layer).__name__ for layer in back.layers} == {type(layer).__name__ for layer in model.layers}
    again = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x))]
    assert all(np.array_equal(a, b) for a, b in zip(again, dense, strict=True))


@pytest.mark.parametrize(
    "options", [{"density": 0.2}, {"epsilon": 2}, {"density": 0.3, "allocate": "uniform"}]
)
def test_the_topology_is_that_of_the_torch_twin_for_the_same_seed(options):
    sparse = sparsify(sequential(), seed=3, **options)
    twin = nn.Sequential()
    twin.add_module("fc1", nn.Linear(12, 20))
    twin.add_module("fc2", nn.Linear(20, 4, bias=False))
    regraft.sparsify(twin, generator=torch.Generator().manual_seed(3), **options)
    assert regraft.Topology.of(torch_view(sparse)) == regraft.Topology.of(twin)


def test_values_are_the_dense_ones_rescaled_if_asked():
    model = sequential()
    kept, scaled = (sparsify(model, 0.25, init=init) for init in ("keep", "rescale"))
    layer, other = kept.get_layer("fc1"), scaled.get_layer("fc1")
    dense = model.get_layer("fc1").kernel.value
    assert torch.equal(layer.kernel[layer.kernel != 0], dense[layer.kernel != 0])
    factor = (layer.weight.size / layer.weight.nnz) ** 0.5
    assert torch.allclose(other.kernel, factor * layer.kernel)


def test_layers_are_chosen_by_name_and_keep_their_options():
    sparse = sparsify(sequential(), 0.5, exclude="fc1")
    assert list(sparse_layers(sparse)) == ["fc2"]
    layer = sparse.get_layer("fc2")
    assert (layer.bias, layer.activation, type(layer.kernel_regularizer)) == (
        None, keras.activations.linear, keras.regularizers.L2,
    )  # fmt: skip
    assert list(sparse_layers(sparsify(branched(), 0.5))) == ["shared", "inside", "a", "b"]


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = Dense(2)

    def call(self, x):
        return self.out(x)


def lora():
    model = keras.Sequential([keras.Input((12,)), Dense(4, name="d")])
    model.get_layer("d").enable_lora(2)
    return model


def test_models_that_cannot_be_changed_are_told():
    own = Own()
    own(samples(1, 12))
    for model, words in (
        (own, "a class of its own"),
        (keras.Sequential([Dense(3)]), "not built yet"),
        (keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]), "no layer that can be made sparse"),
        (lora(), "'d' has LoRA"),
    ):
        with pytest.raises(InputError, match=words):
            sparsify(model, 0.5)
    for options, words in (
        ({"density": 2}, "density is 2"),
        ({}, "exactly one of"),
        ({"density": 0.5, "init": "new"}, "init is 'new'"),
        ({"density": 0.5, "include": "fc7"}, "matches no module; the modules are: 'fc1', 'fc2'"),
    ):
        with pytest.raises(InputError, match=words):
            sparsify(sequential(), **options)
    with pytest.raises(InputError, match="has no sparse layer"):
        densify(sequential())


def test_names_that_are_there_twice():
    def half(name):
        return keras.Sequential([keras.Input((12,)), SparseDense(12, density=0.5, name="d")], name=name)

    inputs = keras.Input((12,))
    model = keras.Model(inputs, half("right")(half("left")(inputs)))
    assert len(sparse_layers(model)) == 2
    assert all(name.endswith("/d") for name in sparse_layers(model))
    with pytest.raises(InputError, match=r"two layers of the model .* have the name 'd'"):
        densify(model)


class Twins(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.other = (SparseDense(12, density=0.5, name="d") for _ in range(2))

    def call(self, x):
        return self.other(self.one(x))


def test_paths_that_are_there_twice():
    model = Twins()
    model(samples(1, 12))
    with pytest.raises(InputError, match="two sparse layers have the name 'twins/d'"):
        torch_view(model)
