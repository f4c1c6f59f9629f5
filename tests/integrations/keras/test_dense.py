"""Sparse layers of Keras are the dense ones where every connection exists, and regraft's where not."""

import math

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("keras")

import keras

import regraft
from regraft.errors import FileError, InputError, MismatchError
from regraft.integrations.keras import SparseConv2D, SparseDense
from regraft.kernels import layout

# of Keras's own, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def samples(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def small(**options):
    options = {"density": 0.3, "seed": 1} | options
    return keras.Sequential([keras.Input((12,)), SparseDense(7, **options)])


def test_a_full_layer_equals_dense_in_output_and_gradients():
    x = torch.tensor(samples(5, 12))
    full, dense = small(density=1.0, activation="tanh"), keras.layers.Dense(7, "tanh")
    dense.build((None, 12))
    dense.kernel.assign(full.layers[0].kernel.detach())
    for layer in (full, dense):
        layer(x).square().sum().backward()
    assert torch.allclose(full(x), dense(x), atol=1e-6)
    gradient = full.layers[0].values.value.grad.reshape(7, 12).t()
    assert torch.allclose(gradient, dense.kernel.value.grad, atol=1e-5)
    assert torch.allclose(full.layers[0].bias.value.grad, dense.bias.value.grad, atol=1e-5)


def test_a_training_step_equals_that_of_the_same_torch_network():
    model = keras.Sequential(
        [keras.Input((12,)), SparseDense(9, "relu", density=0.4), SparseDense(4, density=0.5)]
    )
    x, y = samples(8, 12), samples(8, 4)
    cores = [layer.core for layer in model.layers]
    twin = nn.Sequential(
        *(regraft.SparseLinear(regraft.SparseWeight(c.weight.shape, c.weight.index.clone(),
                               c.weight.values.detach().clone()), c.bias.detach().clone()) for c in cores)
    )  # fmt: skip
    twin.insert(1, nn.ReLU())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    for _ in range(3):
        model.train_on_batch(x, y)
        optimizer.zero_grad()
        nn.functional.mse_loss(twin(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
    for core, other in zip(cores, (twin[0], twin[2]), strict=True):
        assert torch.equal(core.weight.index, other.weight.index)
        assert torch.allclose(core.weight.values, other.weight.values, atol=1e-6)
        assert torch.allclose(core.bias, other.bias, atol=1e-6)


def test_variables_and_slots_are_as_small_as_the_connections():
    model = small()
    model.compile("adam", "mse")
    model.train_on_batch(samples(4, 12), samples(4, 7))
    nnz = round(0.3 * 84)
    assert [tuple(v.shape) for v in model.trainable_weights] == [(nnz,), (7,)]
    assert sorted(v.shape[0] for v in model.optimizer.variables if v.shape) == [7, 7, nnz, nnz]
    assert model.count_params() == 2 * nnz + 7


def test_an_input_of_more_dimensions():
    layer = SparseDense(7, density=0.3, seed=1)
    x = torch.tensor(samples(2, 3, 12))
    out = layer(x)
    assert out.shape == (2, 3, 7) == tuple(layer.compute_output_shape((2, 3, 12)))
    assert torch.allclose(out[1], layer(x[1]), atol=1e-6)


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = SparseDense(6, "relu", density=0.5, seed=3)
        self.out = SparseDense(2, density=0.5, seed=4)

    def call(self, x):
        return self.out(self.hidden(x))


def test_a_model_of_its_own_class_trains_and_keeps_its_weights(tmp_path):
    x, y = samples(16, 12), samples(16, 2)
    model = Own()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save_weights(tmp_path / "own.weights.h5")
    again = Own()
    again(x)
    again.load_weights(tmp_path / "own.weights.h5")
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("policy", ["float32", "float64", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_policies_compute_in_their_type_and_survive_a_file(policy, tmp_path):
    model = small(dtype=policy)
    layer, x = model.layers[0], samples(4, 12)
    policy = layer.dtype_policy
    out = model(x)
    assert keras.backend.standardize_dtype(out.dtype) == policy.compute_dtype
    assert layer.values.dtype == policy.variable_dtype
    assert layer.positions.dtype == "int64"
    exact = torch.tensor(x).double() @ layer.kernel.double() + layer.bias.value.double()
    close = 1e-6 if policy.compute_dtype in ("float32", "float64") else 0.03
    assert torch.allclose(out.double(), exact, atol=close)
    out.float().sum().backward()
    assert layer.values.value.grad.dtype == layer.values.value.dtype
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert torch.equal(again.layers[0].weight.index, layer.weight.index)
    assert torch.equal(again(x), out)


def test_a_keras_file_keeps_positions_values_options_and_the_optimizer(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((12,)),
        SparseDense(8, "relu", density=0.4, kernel_regularizer="l2", use_bias=False),
        SparseDense(3, epsilon=1, kernel_constraint="non_neg", name="last"),
    ])  # fmt: skip
    model.compile("adam", "mse")
    x, y = samples(8, 12), samples(8, 3)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    for one, other in zip(model.layers, again.layers, strict=True):
        assert one.get_config() == other.get_config()
        assert torch.equal(one.weight.index, other.weight.index)
    assert torch.equal(model(x), again(x))
    assert bool((again.get_layer("last").values.value >= 0).all())
    for one in (model, again):
        one.train_on_batch(x, y)
    assert torch.equal(model(x), again(x))


def test_regularisation_sums_over_the_connections():
    model = small(kernel_regularizer=keras.regularizers.L2(0.5))
    values = model.layers[0].values.value
    assert model.losses[0].item() == pytest.approx(0.5 * values.square().sum().item(), rel=1e-5)


def test_what_keras_writes_into_positions_the_layer_computes_with():
    """Checkpoints restore weights in place: nothing that was derived from old positions may stay."""
    for model, x in (
        (small(), samples(4, 12)),
        (keras.Sequential([keras.Input((8, 8, 2)), SparseConv2D(3, 3, density=0.3)]), samples(2, 8, 8, 2)),
    ):
        before, kept = model(x), model.get_weights()
        layer = model.layers[0]
        other = torch.arange(layer.weight.nnz)
        layer.positions.assign(other)
        changed = model(x)
        dense = layer.compute_dense(torch.tensor(x), layer.weight.dense(), layer.bias.value)
        assert torch.equal(layer.weight.index, other)
        assert torch.allclose(changed, dense, atol=1e-5)
        assert not torch.allclose(changed, before)
        model.set_weights(kept)
        assert torch.equal(model(x), before)


def test_a_stateless_call_computes_with_the_given_values():
    model = small()
    x = samples(4, 12)
    doubled = [2 * v.value.detach() for v in model.trainable_variables]
    out, _ = model.stateless_call(doubled, [v.value for v in model.non_trainable_variables], x)
    assert torch.allclose(out, 2 * model(x), atol=1e-5)


def test_there_is_no_weight_to_look_at_while_variables_stand_for_others():
    layer = small().layers[0]
    other = torch.zeros(layer.weight.nnz)
    with (
        keras.StatelessScope(state_mapping=[(layer.values, other)]),
        pytest.raises(InputError, match="no values of their own"),
    ):
        _ = layer.weight


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "lecun_uniform", "glorot_normal"])
def test_fans_are_counted_in_connections(name):
    layer = SparseDense(300, density=0.1, kernel_initializer=name, seed=0)
    layer.build((None, 500))
    fans = {"glorot": (50 + 30) / 2, "he": 50 / 2, "lecun": 50}[name.split("_")[0]]
    assert layer.values.value.var().item() == pytest.approx(1 / fans, rel=0.05)


def test_initialisers_of_matrices_fill_one_first():
    layer = SparseDense(12, density=0.5, kernel_initializer="identity", seed=0)
    layer.build((None, 12))
    assert layer.weight.dense().trace() == layer.weight.dense().sum() > 0
    ones = SparseDense(12, density=0.5, kernel_initializer="ones")
    ones.build((None, 12))
    assert bool((ones.values.value == 1).all())


def test_the_same_seed_gives_the_same_positions():
    def drawn(**options):
        return small(**options).layers[0].weight.index

    assert torch.equal(drawn(seed=5), drawn(seed=5))
    assert not torch.equal(drawn(seed=5), drawn(seed=6))
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        found.append(drawn(seed=None))
    assert torch.equal(*found)


def test_a_full_epsilon_layer_and_counts():
    layer = SparseDense(10, epsilon=20)
    layer.build((None, 400))
    assert (layer.weight.nnz, layer.density) == (4000, 1.0)
    assert SparseDense(10, connections=17).wanted == ("connections", 17)


def test_layers_in_a_row_hand_on_what_the_next_one_reads_best():
    inputs = keras.Input((12,))
    a = SparseDense(8, "relu", density=0.5, name="a")
    b = SparseDense(8, density=0.5, name="b")
    branch = b(keras.layers.Dropout(0.1)(a(inputs)))
    model = keras.Model(inputs, keras.layers.Add()([branch, keras.layers.Dense(8)(branch)]))
    model(samples(3, 12))
    assert [layout.of(layer.weight) for layer in (a, b)] == [True, False]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"density": 0}, "density is 0"),
        ({"density": 0.1, "epsilon": 2}, "exactly one of density=, epsilon= and connections="),
        ({"density": None}, "exactly one of density="),
        ({"density": None, "epsilon": -1}, "epsilon is -1"),
        ({"density": None, "connections": 0}, "connections is 0"),
        ({"density": None, "connections": 85}, "85 connections at connections 85, but it has 84 positions"),
        ({"density": 0.001}, "0 connections at density 0.001"),
        ({"kernel_constraint": "max_norm"}, "MaxNorm looks at whole columns"),
        ({"kernel_regularizer": "orthogonal_regularizer"}, "OrthogonalRegularizer looks at whole columns"),
    ],
)
def test_bad_options_are_told(wrong, words):
    with pytest.raises(InputError, match=words):
        small(**wrong)


def test_bad_shapes_are_told():
    with pytest.raises(InputError, match="units is 0"):
        SparseDense(0, density=0.5)
    with pytest.raises(InputError, match="last dimension of the input of 'd' is not known"):
        SparseDense(3, density=0.5, name="d").build((None, None))
    with pytest.raises(InputError, match="'d' has no connections yet"):
        _ = SparseDense(3, density=0.5, name="d").weight


def test_damaged_or_foreign_variables_are_refused_whole():
    layer = small().layers[0]
    before = layer.weight.index.clone()
    good = {"positions": before, "values": layer.values.value, "bias": layer.bias.value}
    with pytest.raises(FileError, match="not strictly increasing"):
        layer.load_own_variables({**good, "positions": before.flip(0)})
    with pytest.raises(FileError, match="position 84"):
        layer.load_own_variables({**good, "positions": torch.cat([before[:-1], torch.tensor([84])])})
    with pytest.raises(MismatchError, match="values of shape"):
        layer.load_own_variables({**good, "values": good["values"][:-1]})
    with pytest.raises(MismatchError, match="are needed"):
        layer.load_own_variables({"values": good["values"]})
    assert torch.equal(layer.weight.index, before)


def test_the_number_of_connections_stays():
    weight = small().layers[0].weight
    with pytest.raises(MismatchError, match="for life"):
        weight.rewire(torch.arange(3), torch.zeros(3 - int(weight.index[:3].lt(3).sum())))


def test_positions_that_a_caller_wrote_wrongly_are_refused_where_they_are_used():
    model = small()
    layer = model.layers[0]
    layer.positions.assign(layer.weight.index.flip(0))
    with pytest.raises(InputError, match="not strictly increasing"):
        model(samples(2, 12))


def test_the_size_of_a_layer_that_no_memory_would_hold_dense():
    layer = SparseDense(100_000, connections=200_000, use_bias=False, seed=0)
    layer.build((None, 1_000_000))  # dense: 400 GB
    assert layer(torch.ones(1, 1_000_000)).shape == (1, 100_000)
    assert math.isclose(layer.density, 2e-6)
