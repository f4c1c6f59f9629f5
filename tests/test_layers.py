"""A sparse layer equals the dense one: forward, gradients, every option of the convolutions."""

import copy
import pickle

import pytest
import torch
from torch import nn

from regraft import SparseConv1d, SparseConv2d, SparseConv3d, SparseLinear, SparseWeight
from regraft.errors import InputError, MismatchError
from regraft.layers import SPARSE_TYPE, sparse_layers

# (dense layer, shape of a batch of one input): the conformance table of layers and their options
CASES = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7)),
    "linear, no bias": (lambda: nn.Linear(7, 5, bias=False), (3, 7)),
    "linear, many batch dimensions": (lambda: nn.Linear(7, 5), (2, 3, 4, 7)),
    "linear, no batch dimension": (lambda: nn.Linear(7, 5), (7,)),
    "linear, empty batch": (lambda: nn.Linear(7, 5), (0, 7)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 11)),
    "conv1d, unbatched": (lambda: nn.Conv1d(4, 6, 3), (4, 11)),
    "conv1d, options": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 4, 11)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 8, 9)),
    "conv2d, unbatched": (lambda: nn.Conv2d(4, 6, 3), (4, 8, 9)),
    "conv2d, no bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), (2, 4, 8, 9)),
    "conv2d, uneven": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (0, 2), (1, 2)), (2, 4, 8, 9)),
    "conv2d, same": (lambda: nn.Conv2d(4, 6, (3, 4), padding="same", dilation=2), (2, 4, 8, 9)),
    "conv2d, valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 8, 9)),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 8, 9)),
    "conv2d, pointwise": (lambda: nn.Conv2d(4, 6, 1), (2, 4, 8, 9)),
    "conv2d, reflect": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect"), (2, 4, 8, 9)),
    "conv2d, replicate": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="replicate"), (2, 4, 8, 9)),
    "conv2d, circular": (lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"), (2, 4, 8, 9)),
    "conv2d, circular same": (
        lambda: nn.Conv2d(4, 6, (4, 3), padding="same", padding_mode="circular"),
        (2, 4, 8, 9),
    ),
    "conv2d, circular unbatched": (
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
        (4, 8, 9),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3), (2, 2, 5, 6, 5)),
    "conv3d, unbatched": (lambda: nn.Conv3d(2, 4, 3), (2, 5, 6, 5)),
    "conv3d, options": (
        lambda: nn.Conv3d(2, 4, (2, 3, 1), (1, 2, 2), (1, 0, 2), (2, 1, 1), groups=2),
        (2, 2, 5, 6, 5),
    ),
}


def pair(name, density=1.0):
    """The dense layer and the sparse one in float64; at density < 1 the dense one has zeros elsewhere."""
    dense = CASES[name][0]().double()
    size = dense.weight.numel()
    index = torch.randperm(size)[: max(1, round(density * size))].sort().values
    sparse = SPARSE_TYPE[type(dense)].from_dense(dense, index)
    with torch.no_grad():
        dense.weight.copy_(sparse.weight.dense())
    return dense, sparse, index


def test_every_layer_type_is_in_the_table():
    assert {type(make()) for make, _ in CASES.values()} == set(SPARSE_TYPE)
    assert set(SPARSE_TYPE.values()) == {SparseLinear, SparseConv1d, SparseConv2d, SparseConv3d}


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_the_dense_layer(name, density):
    dense, sparse, index = pair(name, density)
    x_dense = torch.randn(CASES[name][1], dtype=torch.float64, requires_grad=True)
    x_sparse = x_dense.detach().clone().requires_grad_()
    y_dense, y_sparse = dense(x_dense), sparse(x_sparse)
    upstream = torch.randn_like(y_dense)
    y_dense.backward(upstream)
    y_sparse.backward(upstream)
    torch.testing.assert_close(y_sparse, y_dense)
    torch.testing.assert_close(x_sparse.grad, x_dense.grad)
    torch.testing.assert_close(sparse.weight.values.grad, dense.weight.grad.flatten()[index])
    if dense.bias is None:
        assert sparse.bias is None
    else:
        torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_gives_the_same_dense_layer(name):
    dense, sparse, _ = pair(name, 0.3)
    back = sparse.to_dense()
    assert type(back) is type(dense)
    assert repr(back) == repr(dense)
    assert back.state_dict().keys() == dense.state_dict().keys()
    assert all(torch.equal(v, dense.state_dict()[k]) for k, v in back.state_dict().items())


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d, same", "conv3d, options"])
def test_only_values_and_bias_are_parameters(name):
    dense, sparse, index = pair(name, 0.3)
    assert {n: tuple(p.shape) for n, p in sparse.named_parameters()} == {
        "weight.values": (len(index),),
        "bias": tuple(dense.bias.shape),
    }
    assert {n for n, _ in sparse.named_buffers()} == {"weight.index"}


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d, uneven", "conv3d"])
def test_twice_differentiable(name):
    _, sparse, _ = pair(name, 0.3)
    x = torch.randn(CASES[name][1], dtype=torch.float64, requires_grad=True)
    names = [n for n, _ in sparse.named_parameters()]
    tensors = [p.detach().clone().requires_grad_() for p in sparse.parameters()]

    def f(x, *parameters):
        out = torch.func.functional_call(sparse, dict(zip(names, parameters, strict=True)), (x,))
        return torch.tanh(out)[..., :2]

    assert torch.autograd.gradcheck(f, (x, *tensors), fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (x, *tensors), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["linear", "conv2d, circular"])
def test_half_precision_equals_the_dense_layer(name, dtype):
    dense, sparse, _ = pair(name, 0.3)
    dense, sparse = dense.to(dtype), sparse.to(dtype)
    x = torch.randn(CASES[name][1]).to(dtype)
    y = sparse(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, dense(x))


@pytest.mark.parametrize("name", ["linear", "conv2d", "conv1d"])
def test_autocast_computes_in_bfloat16_and_keeps_float32_parameters(name):
    dense, sparse, _ = pair(name, 0.3)
    dense, sparse = dense.float(), sparse.float()
    x = torch.randn(CASES[name][1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = sparse(x), dense(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)
    y.float().sum().backward()
    assert sparse.weight.values.grad.dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_compute_the_same(name, copier):
    _, sparse, _ = pair(name, 0.3)
    x = torch.randn(CASES[name][1], dtype=torch.float64)
    assert torch.equal(copier(sparse)(x), sparse(x))


def test_the_layer_follows_its_weight_through_a_change_of_topology():
    _, sparse, _ = pair("conv2d", 0.3)
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    sparse.weight.replace(torch.arange(10), torch.ones(10, dtype=torch.float64))
    torch.testing.assert_close(sparse(x), sparse.to_dense()(x))


def test_features_and_repr():
    layer = SparseLinear.from_dense(nn.Linear(7, 5), torch.arange(7))
    assert (layer.in_features, layer.out_features) == (7, 5)
    assert "nnz=7, density=0.2" in repr(layer)
    conv = SparseConv2d.from_dense(nn.Conv2d(3, 4, 3, padding="same"), torch.arange(9))
    assert "padding=same" in repr(conv)
    assert list(sparse_layers(nn.Sequential(layer, nn.ReLU(), conv))) == ["0", "2"]


def test_a_bias_of_another_length_is_refused():
    weight = SparseWeight((5, 7), torch.tensor([0]), torch.tensor([1.0]))
    with pytest.raises(MismatchError, match=r"bias has shape \(7,\), but the weight has 5 output units"):
        SparseLinear(weight, torch.zeros(7))


def test_dead_units_get_the_bias_only():
    layer = SparseLinear.from_dense(nn.Linear(7, 5), torch.tensor([0, 1]))
    y = layer(torch.randn(4, 7))
    assert torch.equal(y[:, 1:], layer.bias[1:].expand(4, 4))


def test_a_random_layer_has_the_connections_asked_for():
    g = torch.Generator().manual_seed(0)
    layer = SparseLinear.random(50, 40, density=0.1, generator=g)
    assert (layer.weight.nnz, layer.weight.shape, layer.bias.shape) == (200, (40, 50), (40,))
    assert 0.5 < layer.weight.values.std() * 15**0.5 < 1.2  # uniform, variance 1 / (3 * 5)
    layer = SparseLinear.random(50, 40, fan_in=7, bias=False, generator=g)
    assert layer.bias is None
    assert layer.weight.rows().bincount().tolist() == [7] * 40


def test_a_random_layer_comes_from_the_generator_alone():
    before = torch.get_rng_state()
    make = lambda seed: SparseLinear.random(9, 8, fan_in=3, generator=torch.Generator().manual_seed(seed))
    a, b, c = make(0), make(0), make(1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())
    assert not torch.equal(a.weight.index, c.weight.index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of density= and fan_in="),
        ({"density": 0.5, "fan_in": 2}, "exactly one"),
        ({"density": 1.5}, "density"),
        ({"density": 1e-9}, "without any connection"),
        ({"fan_in": 0}, r"fan_in is 0, but must be a whole number in \[1, 6\]"),
        ({"fan_in": 7}, "fan_in is 7"),
        ({"fan_in": 2.0}, "fan_in is 2.0"),
        ({"fan_in": 2, "out_features": 0}, "out_features is 0"),
    ],
)
def test_a_random_layer_refuses_what_cannot_be(options, message):
    sizes = {"in_features": 6, "out_features": 4} | options
    with pytest.raises(InputError, match=message):
        SparseLinear.random(**sizes)
