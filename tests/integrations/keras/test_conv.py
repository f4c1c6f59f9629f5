"""Sparse convolutions of Keras equal its dense ones at the same connections."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("keras")

import keras

from regraft.errors import InputError
from regraft.integrations.keras import (
    SparseConv1D,
    SparseConv2D,
    SparseConv3D,
    densify,
    sparsify,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS = {1: SparseConv1D, 2: SparseConv2D, 3: SparseConv3D}


def samples(*shape):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape).astype("float32"))


@pytest.mark.parametrize(
    ("rank", "padding", "data_format"),
    list(itertools.product((1, 2, 3), ("valid", "same"), ("channels_last", "channels_first"))),
)
@pytest.mark.parametrize("options", [{}, {"strides": 2, "groups": 2}, {"dilation_rate": 2}])
def test_outputs_shapes_and_gradients_equal_kerass(rank, padding, data_format, options):
    shape = (*(7,) * rank, 4) if data_format == "channels_last" else (4, *(7,) * rank)
    layer = KINDS[rank](
        6, 3, padding=padding, data_format=data_format, density=0.5, activation="tanh", seed=2, **options
    )
    sparse = keras.Sequential([keras.Input(shape), layer])
    dense = densify(sparse)
    x = samples(2, *shape)
    for model in (sparse, dense):
        model(x).square().sum().backward()
    assert torch.allclose(sparse(x), dense(x), atol=1e-5)
    assert sparse.output_shape == dense.output_shape
    gradient = layer.to_torch(dense.layers[0].kernel.value.grad).reshape(-1)
    assert torch.allclose(layer.values.value.grad, gradient[layer.weight.index], atol=1e-4)


def test_a_convolutional_network_trains_and_survives_a_file(tmp_path):
    keras.utils.set_random_seed(0)
    dense = keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
        keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2),
    ])  # fmt: skip
    model = sparsify(dense, density=0.5)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x, y = samples(16, 8, 8, 1).numpy(), samples(16, 2).numpy()
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "m.keras")
    assert torch.equal(keras.saving.load_model(tmp_path / "m.keras")(x), model(x))


def test_mixed_precision():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), SparseConv2D(3, 3, density=0.5, dtype="mixed_bfloat16")]
    )
    out = model(samples(2, 6, 6, 2))
    assert out.dtype == torch.bfloat16
    layer = model.layers[0]
    exact = layer.compute(samples(2, 6, 6, 2), layer.core)
    assert torch.allclose(out.float(), exact, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"filters": 0}, "filters is 0"),
        ({"kernel_size": (3, 3, 3)}, "whole number or 2 of them"),
        ({"strides": (0, 1)}, "strides is 0"),
        ({"padding": "causal"}, "unknown padding 'causal'"),
        ({"data_format": "last"}, "unknown data format 'last'"),
        ({"filters": 3, "groups": 2}, "3 filters cannot be split into 2 groups"),
        ({"groups": 2}, "has 3 channels"),
        ({"kernel_size": 9}, "does not fit its input"),
    ],
)
def test_bad_options_are_told(wrong, words):
    options = {"filters": 4, "kernel_size": 3, "density": 0.5} | wrong
    with pytest.raises(InputError, match=words):
        keras.Sequential([keras.Input((8, 8, 3)), SparseConv2D(**options)])


def test_images_of_any_size():
    model = keras.Sequential([keras.Input((None, None, 2)), SparseConv2D(3, 3, density=0.5)])
    assert model.output_shape == (None, None, None, 3)
    assert model(samples(1, 5, 6, 2)).shape == (1, 3, 4, 3)
