"""Keras models, regraft's networks and its files are the same networks."""

import numpy as np
import pytest
import torch

pytest.importorskip("keras")

import keras

import regraft
from regraft import checkpoint, models
from regraft.errors import FileError, InputError
from regraft.integrations.keras import SparseConv2D, SparseDense, from_torch, load, save, to_torch
from regraft.merging import merge_files

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
L = keras.layers
ACTIVATIONS = ("relu", "sigmoid", "tanh", "elu", "gelu", "silu", "leaky-relu")


def samples(*shape):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def network(seed=0, head=None):
    return keras.Sequential([
        keras.Input((12,)), SparseDense(10, "relu", density=0.4, seed=seed), L.Dropout(0.1),
        L.Dense(6, "relu"), L.Dropout(0.1), SparseDense(3, head, density=0.5, seed=seed),
    ])  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_goes_to_keras_and_back(activation):
    first = models.build("mlp:12-9-9-3", activation=activation, dropout=0.25)
    regraft.sparsify(first, 0.5, exclude="fc2")
    model = from_torch(first.eval())
    back = to_torch(model)
    x = samples(5, 12)
    assert torch.allclose(model(x), first(x), atol=1e-5)
    assert torch.equal(back(x), first(x))
    assert back.spec == first.spec
    assert regraft.Topology.of(back) == regraft.Topology.of(first)


def test_ways_to_write_the_same_chain():
    """Functional models, activations as layers, inner models and Flatten."""
    inputs = keras.Input((3, 4))
    inner = keras.Sequential([keras.Input((12,)), L.Dense(5), L.ReLU()])
    hidden = inner(L.Flatten()(inputs))
    outputs = L.Softmax()(SparseDense(3, density=0.5)(L.Dropout(0.2)(hidden)))
    model = keras.Model(inputs, outputs)
    back, x = to_torch(model), samples(4, 3, 4)
    assert back.spec == {"name": "mlp", "sizes": [12, 5, 3], "activation": "relu", "dropout": 0.2}
    assert torch.allclose(back(x).softmax(1), model(x), atol=1e-6)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (lambda: L.Activation("tanh"), "tanh"),
        (lambda: L.ELU(), "elu"),
        (lambda: L.LeakyReLU(negative_slope=0.01), "leaky-relu"),
        (lambda: L.ReLU(), "relu"),
    ],
)
def test_activations_as_layers_behind_a_layer_or_inside_it(written, name):
    x = samples(4, 12)
    for model in (chain(L.Dense(5), written(), L.Dense(3)), chain(L.Dense(5, written()), L.Dense(3))):
        back = to_torch(model)
        assert back.spec["activation"] == name
        assert torch.allclose(back(x), model(x), atol=1e-6)


def test_networks_trained_by_keras_merge_from_their_files(tmp_path):
    x, y = samples(32, 12).numpy(), np.arange(32) % 3
    files, trained = [], []
    for seed in (1, 2):
        model = network(seed, "softmax")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=2, verbose=0)
        save(model, tmp_path / f"{seed}.safetensors", provenance={"seed": seed})
        files.append(tmp_path / f"{seed}.safetensors")
        trained.append(to_torch(model))
    merge_files(files, tmp_path / "merged.safetensors", weights="average", biases="average", density="keep")
    merged = load(tmp_path / "merged.safetensors", head="softmax")
    expected = regraft.merge(trained, weights="average", biases="average", density="keep").eval()
    assert torch.allclose(merged(x), expected(torch.tensor(x)).softmax(1), atol=1e-6)
    assert checkpoint.read_header(files[0]).provenance == {"seed": 1}
    merged.compile("adam", "sparse_categorical_crossentropy")
    merged.fit(x, y, verbose=0)


def test_nothing_is_shared_with_the_copy():
    model = network()
    back, x = to_torch(model), samples(2, 12)
    before = back(x)
    for variable in model.trainable_variables:
        variable.assign(2 * variable)
    assert torch.equal(back(x), before)


def test_without_bias():
    model = keras.Sequential([keras.Input((4,)), SparseDense(3, use_bias=False, density=0.5)])
    back = to_torch(model)
    assert back.fc1.bias is None
    assert torch.equal(from_torch(back)(samples(2, 4)), model(samples(2, 4)))


def chain(*layers, size=(12,)):
    return keras.Sequential([keras.Input(size), *layers])


def branching():
    inputs = keras.Input((12,))
    a = L.Dense(3, "relu", name="a")(inputs)
    return keras.Model(inputs, L.Dense(3)(L.Dense(3, "relu", name="b")(a) + a))


def scaled():
    inputs = keras.Input((12,))
    return keras.Model(inputs, L.Dense(3)(2.0 * L.Dense(3, "relu")(inputs)))


def twice():
    inputs, layer = keras.Input((12,)), L.Dense(12, "relu")
    return keras.Model(inputs, L.Dense(3)(layer(layer(inputs))))


def two_heads():
    inputs = keras.Input((12,))
    hidden = L.Dense(3)(inputs)
    return keras.Model(inputs, [L.Dense(3)(hidden), L.Dense(2)(hidden)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chain(L.Dense(3, "relu"), L.Dense(3, "tanh"), L.Dense(2)), r"activation \(relu, tanh\)"),
        (lambda: chain(L.Dense(3), L.Dropout(0.1), L.Dense(3), L.Dense(2)), r"dropout \(0.0, 0.1\)"),
        (lambda: chain(L.Dense(3), L.Dropout(0.5)), "ends with dropout"),
        (lambda: chain(L.Dense(3, "relu")), "ends with the activation 'relu'"),
        (lambda: chain(L.Dense(3, "softplus"), L.Dense(3)), "'softplus' .* no counterpart"),
        (lambda: chain(L.Dense(3), L.LeakyReLU(), L.Dense(3)), "no counterpart"),
        (lambda: chain(L.Dense(3), L.BatchNormalization(), L.Dense(3)), "has no place"),
        (lambda: chain(L.Dense(3, "relu"), L.ReLU(), L.Dense(3)), "has no place"),
        (lambda: chain(L.Dense(3), L.ReLU(max_value=6), L.Dense(3)), "has no place"),
        (lambda: chain(L.Dense(3), L.ELU(0.5), L.Dense(3)), "has no place"),
        (lambda: chain(SparseConv2D(2, 3, density=0.5), size=(6, 6, 1)), "has no place"),
        (lambda: chain(L.Flatten(), size=(3, 4)), "no Dense or SparseDense layer"),
        (lambda: keras.Sequential([L.Dense(3)]), "not built yet"),
        (branching, "branches"),
        (scaled, "has no place"),
        (twice, "is called 2 times"),
        (two_heads, "branches"),
    ],
)
def test_models_that_are_no_perceptron_of_regraft_are_told(make, words):
    with pytest.raises(InputError, match=words):
        to_torch(make())


def test_networks_and_files_that_do_not_fit_are_told(tmp_path):
    with pytest.raises(InputError, match="is no mlp of regraft"):
        from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)))
    with pytest.raises(InputError, match="head is 'relu'"):
        from_torch(models.build("mlp:3-2"), head="relu")
    checkpoint.save(models.build("lenet-5"), tmp_path / "l.safetensors")
    with pytest.raises(FileError, match=r"only an mlp of regraft becomes a Keras model"):
        load(tmp_path / "l.safetensors")
    with pytest.raises(FileError, match="cannot open"):
        load(tmp_path / "none.safetensors")
