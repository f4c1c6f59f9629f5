"""Sparse convolution: the direct kernels equal torch's dense convolution, values and gradients."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import SparseConv1d, SparseConv2d, SparseConv3d, SparseWeight, kernels, positions
from regraft.kernels import conv_plan, convolution, dispatch, materialised, native

needs_kernels = pytest.mark.skipif(not convolution.available(), reason="no compiled convolution")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


@pytest.fixture(params=native.ISAS)
def isa(request):
    """Each instruction set that the machine has, in turn."""
    before = native.isa()
    if native.use_isa(request.param) != request.param:
        native.use_isa(before)
        pytest.skip(f"the machine has no {request.param}")
    native._isa = request.param
    yield request.param
    native._isa = native.use_isa(before)


def weight_of(shape, density, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = positions.numel(shape)
    index = positions.sample(size, round(density * size), generator)
    return SparseWeight(shape, index, torch.randn(len(index), generator=generator, dtype=dtype))


def assert_equal_to_dense(x, weight, bias, options, rtol=1e-10):
    """Output and all gradients of the direct way against those of the materialised one."""
    x = x.detach().requires_grad_()
    with dispatch.use("compressed"):
        y = kernels.conv(x, weight, bias, *options)
    want = materialised.conv(x, weight, bias, *options)
    assert "_Conv" in _names(y.grad_fn)
    assert y.shape == want.shape
    torch.testing.assert_close(y, want, rtol=rtol, atol=rtol)
    inputs = [x, weight.values] if bias is None else [x, weight.values, bias]
    dy = torch.randn_like(want)
    for got, expected in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(want, inputs, dy), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol * (1 + expected.norm().item()))


def _names(node):
    """Names of a gradient function and of those before it."""
    return {type(node).__name__.removesuffix("Backward")} | (
        set() if node is None else {n for f, _ in node.next_functions for n in _names(f)}
    )


# (weight shape, image, stride, padding, dilation, groups): the conformance table of the options
CASES = {
    "plain": ((5, 3, 3, 3), (8, 9), (1, 1), (0, 0), (1, 1), 1),
    "padded": ((5, 3, 3, 3), (8, 8), (1, 1), (1, 1), (1, 1), 1),
    "more padding than kernel": ((4, 2, 2, 2), (5, 4), (1, 1), (3, 2), (1, 1), 1),
    "strided": ((4, 3, 3, 3), (9, 8), (2, 2), (1, 1), (1, 1), 1),
    "stride beyond the kernel": ((4, 3, 2, 1), (11, 10), (3, 4), (0, 0), (1, 1), 1),
    "stride leaves a rest": ((4, 3, 3, 3), (7, 7), (3, 3), (0, 0), (1, 1), 1),
    "dilated": ((4, 3, 3, 2), (9, 11), (1, 1), (2, 1), (2, 3), 1),
    "dilated and strided": ((4, 3, 3, 3), (12, 11), (2, 3), (2, 2), (2, 2), 1),
    "grouped": ((6, 2, 3, 3), (6, 6), (1, 1), (1, 1), (1, 1), 3),
    "depthwise": ((8, 1, 3, 3), (6, 6), (1, 1), (1, 1), (1, 1), 4),
    "1x1": ((7, 6, 1, 1), (5, 4), (1, 1), (0, 0), (1, 1), 1),
    "1x1 strided": ((7, 6, 1, 1), (5, 4), (2, 2), (0, 0), (1, 1), 1),
    "same": ((4, 3, 4, 3), (7, 6), (1, 1), "same", (1, 2), 1),
    "valid": ((4, 3, 4, 3), (7, 6), (1, 1), "valid", (1, 1), 1),
    "wide": ((3, 2, 1, 7), (3, 200), (1, 1), (0, 3), (1, 1), 1),
    "one output": ((3, 2, 4, 4), (4, 4), (1, 1), (0, 0), (1, 1), 1),
}


@needs_kernels
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_options(isa, name, batch):
    shape, image, *options = CASES[name]
    weight = weight_of(shape, 0.4)
    x = torch.randn(batch, shape[1] * options[-1], *image, dtype=torch.float64)
    bias = torch.randn(shape[0], dtype=torch.float64, requires_grad=True)
    assert_equal_to_dense(x, weight, bias, options)


@needs_kernels
@given(data=st.data())
def test_any_geometry(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    kernel, stride, dilation = ((draw(1, 4), draw(1, 4)) for _ in range(3))
    padding = (draw(0, 4), draw(0, 4))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    image = [n + draw(0, 6) for n in least]
    groups = draw(1, 3)
    weight = weight_of((groups * draw(1, 3), draw(1, 3), *kernel), draw(0, 10) / 10, seed=draw(0, 99))
    x = torch.randn(draw(1, 9), weight.shape[1] * groups, *image, dtype=torch.float64)
    assert_equal_to_dense(x, weight, None, (stride, padding, dilation, groups))


@needs_kernels
def test_float32(isa):
    """Within float32's rounding of the float64 result."""
    weight = weight_of((16, 16, 3, 3), 0.1, torch.float32)
    x = torch.randn(20, 16, 12, 12)
    options = ((1, 1), (1, 1), (1, 1), 1)
    with dispatch.use("compressed"):
        y = kernels.conv(x, weight, None, *options)
    exact = SparseWeight(weight.shape, weight.index, weight.values.detach().double())
    want = materialised.conv(x.double(), exact, None, *options)
    assert y.dtype == torch.float32
    assert (y.double() - want).norm() < 1e-6 * want.norm()


@needs_kernels
@pytest.mark.parametrize("shape", [(5, 3, 4), (4, 2, 3)])
@pytest.mark.parametrize("padding", [(2,), "same"])
def test_one_dimension(shape, padding):
    x = torch.randn(3, shape[1], 12, dtype=torch.float64)
    assert_equal_to_dense(x, weight_of(shape, 0.5), None, ((1,), padding, (1,), 1))


@needs_kernels
def test_layouts_of_the_input():
    """Strided, expanded, transposed, channels-last, unbatched: as torch takes them."""
    weight = weight_of((4, 3, 3, 3), 0.4)
    options = ((1, 1), (1, 1), (1, 1), 1)
    base = torch.randn(4, 3, 16, 7, dtype=torch.float64)
    for x in (
        base[:, :, ::2], base.transpose(2, 3), base[:1].expand(5, 3, 16, 7), base[0], base.flip(0),
        base.to(memory_format=torch.channels_last),
    ):  # fmt: skip
        assert_equal_to_dense(x, weight, None, options)


@needs_kernels
@pytest.mark.parametrize("kept", [[], [0], [17, 18, 71]])
def test_empty_rows_and_planes(kept):
    """No connection at all; output channels without any, input channels without any."""
    weight = SparseWeight((4, 2, 3, 3), torch.tensor(kept, dtype=torch.int64), torch.ones(len(kept)).double())
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    assert_equal_to_dense(x, weight, bias, ((1, 1), (1, 1), (1, 1), 1))


@needs_kernels
def test_only_the_wanted_gradients():
    weight = weight_of((4, 3, 3, 3), 0.4)
    options = ((1, 1), (1, 1), (1, 1), 1)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with dispatch.use("compressed"):
        kernels.conv(x, weight, None, *options).sum().backward()
        by_values = weight.values.grad.clone()
        weight.values.requires_grad_(False)
        x.requires_grad_()
        kernels.conv(x, weight, None, *options).sum().backward()
    weight.values.requires_grad_().grad = None
    wanted = x.detach().clone().requires_grad_()
    materialised.conv(wanted, weight, None, *options).sum().backward()
    torch.testing.assert_close(by_values, weight.values.grad)
    torch.testing.assert_close(x.grad, wanted.grad)


@needs_kernels
def test_twice_differentiable():
    weight = weight_of((3, 2, 3, 2), 0.5)
    x = torch.randn(2, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    values = weight.values.detach().clone().requires_grad_()

    plan_options = conv_plan.options(weight.shape, (2, 1), (1, 2), (1, 1), 1)
    plan = conv_plan.build(weight, (7, 6), 2, plan_options)

    def call(x, values):
        return convolution._Conv.apply(x, values, None, plan)

    assert torch.autograd.gradcheck(call, (x, values))
    assert torch.autograd.gradgradcheck(call, (x, values))


@needs_kernels
def test_threads_do_not_change_a_bit():
    weight = weight_of((32, 32, 3, 3), 0.3, torch.float32)
    x = torch.randn(40, 32, 16, 16, requires_grad=True)
    found = []
    before = kernels.get_threads()
    try:
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            with dispatch.use("compressed"):
                y = kernels.conv(x, weight, None, (1, 1), (1, 1), (1, 1), 1)
            found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight.values))))
    finally:
        kernels.set_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_kernels
def test_a_new_topology_is_followed():
    weight = weight_of((4, 3, 3, 3), 0.4)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    options = ((1, 1), (1, 1), (1, 1), 1)
    assert_equal_to_dense(x, weight, None, options)
    weight.replace(torch.tensor([0, 50, 107]), torch.randn(3).double())
    assert_equal_to_dense(x, weight, None, options)
    torch.manual_seed(3)
    assert_equal_to_dense(torch.randn(2, 3, 9, 9, dtype=torch.float64), weight, None, options)


@needs_kernels
def test_default_device_and_inference_mode_do_not_matter():
    """A plan made under either is as good as any: its numbers are the kernels' own."""
    weight = weight_of((4, 3, 3, 3), 0.4)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with torch.device("meta"), torch.inference_mode(), dispatch.use("compressed"):
        y = kernels.conv(x, weight, None, (1, 1), (1, 1), (1, 1), 1)
    torch.testing.assert_close(y.clone(), materialised.conv(x, weight, None, (1, 1), (1, 1), (1, 1), 1))
    assert_equal_to_dense(x, weight, None, ((1, 1), (1, 1), (1, 1), 1))


@needs_kernels
def test_plans_of_many_sizes_do_not_pile_up():
    weight = weight_of((4, 3, 3, 3), 0.4)
    with dispatch.use("compressed"):
        for size in range(3, 30):
            kernels.conv(torch.randn(1, 3, size, size).double(), weight, None, (1, 1), (0, 0), (1, 1), 1)
    assert len(weight.cache["conv"]) <= convolution.MOST_PLANS


def way(x, weight, *options):
    """The computation that was taken."""
    y = kernels.conv(x, weight, None, *options)
    return "direct" if "_Conv" in _names(y.grad_fn) else "materialised"


@needs_kernels
def test_choice():
    torch.set_num_threads(1)
    x = torch.randn(8, 16, 16, 16)
    options = ((1, 1), (1, 1), (1, 1), 1)
    shape = (16, 16, 3, 3)
    sparse, full = (weight_of(shape, density, torch.float32) for density in (0.05, 0.9))
    assert way(x, sparse, *options) == "direct"
    assert way(x, full, *options) == "materialised"
    with dispatch.use("compressed"):
        assert way(x, full, *options) == "direct"
    with dispatch.use("materialised"):
        assert way(x, sparse, *options) == "materialised"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert way(x, sparse, *options) == "materialised"
    assert way(x.bfloat16(), weight_of(shape, 0.05, torch.bfloat16), *options) == "materialised"
    assert way(torch.randn(0, 16, 16, 16), sparse, *options) == "materialised"


@needs_kernels
def test_choice_counts_threads():
    """With many more threads for dense convolutions, only sparser layers go the direct way."""
    weight = weight_of((64, 64, 3, 3), 0.2, torch.float32)
    torch.set_num_threads(1)
    assert convolution.faster_compressed(weight, (8, 8), 32)
    torch.set_num_threads(4)
    assert not convolution.faster_compressed(weight, (8, 8), 32)


@needs_kernels
def test_three_dimensions_are_materialised():
    with dispatch.use("compressed"):
        options = ((1,) * 3, (1,) * 3, (1,) * 3, 1)
        weight = weight_of((4, 2, 3, 3, 3), 0.1, torch.float32)
        assert way(torch.randn(2, 2, 5, 5, 5), weight, *options) == "materialised"


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_functorch_takes_the_materialised_way():
    layer = SparseConv2d.from_dense(nn.Conv2d(3, 4, 3), torch.arange(0, 108, 11))
    x = torch.randn(5, 3, 6, 6)
    want = layer(x)
    torch.testing.assert_close(torch.func.vmap(lambda one: layer(one))(x), want, rtol=1e-5, atol=1e-6)
    _, tangent = torch.func.jvp(layer, (x,), (x,))
    torch.testing.assert_close(tangent, want - layer.bias[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [(2, 4, 6, 6), (2, 3, 2, 6), (6, 6)])
def test_wrong_inputs_get_torchs_own_error(bad):
    dense = nn.Conv2d(3, 4, 3)
    layer = SparseConv2d.from_dense(dense, torch.arange(0, 108, 11))
    with pytest.raises(RuntimeError) as expected:
        dense(torch.zeros(bad))
    with pytest.raises(RuntimeError) as got:
        layer(torch.zeros(bad))
    assert str(got.value) == str(expected.value)


@pytest.mark.parametrize(
    ("kind", "dense", "image"),
    [
        (SparseConv1d, nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), (9,)),
        (SparseConv2d, nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (7, 6)),
        (SparseConv3d, nn.Conv3d(3, 4, 2), (4, 5, 3)),
    ],
)
def test_layers_train_as_their_dense_twins(kind, dense, image):
    index = positions.sample(
        dense.weight.numel(), dense.weight.numel() // 8, torch.Generator().manual_seed(0)
    )
    layer = kind.from_dense(dense, index)
    twin = copy.deepcopy(layer).to_dense()
    x = torch.randn(4, 3, *image)
    for model in (layer, twin):
        model(x).square().mean().backward()
    torch.testing.assert_close(
        layer.weight.values.grad, twin.weight.grad.reshape(-1)[index], rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(layer.bias.grad, twin.bias.grad, rtol=1e-4, atol=1e-6)
