"""The linear kernels against float64 dense autograd and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import kernels
from regraft.kernels import compressed, native, plan
from regraft.weight import SparseWeight

LAYOUTS = ("batch-major", "feature-major", "strided", "flipped", "expanded")


def make_weight(rows: int, cols: int, nnz: int, dtype: torch.dtype = torch.float64) -> SparseWeight:
    index = torch.randperm(rows * cols)[:nnz].sort().values
    return SparseWeight((rows, cols), index, torch.randn(nnz, dtype=dtype))


def laid_out(batch: int, features: int, layout: str, dtype: torch.dtype) -> Tensor:
    if layout == "feature-major":
        return torch.randn(features, batch, dtype=dtype).t()
    if layout == "strided":
        return torch.randn(2 * batch, 3 * features, dtype=dtype)[::2, ::3]
    if layout == "flipped":
        return torch.randn(batch, features, dtype=dtype).flip(1)
    if layout == "expanded":
        return torch.randn(1, features, dtype=dtype).expand(batch, features)
    return torch.randn(batch, features, dtype=dtype)


def gradients(x: Tensor, weight: SparseWeight, bias: Tensor | None, dy: Tensor, dense: bool) -> list[Tensor]:
    """y, dx, dvalues, dbias; densely through nn.functional.linear in float64, or as the library computes."""
    wide = (lambda t: t.detach().double()) if dense else (lambda t: t.detach())
    leaves = [wide(t).requires_grad_() for t in (x, weight.values) + (() if bias is None else (bias,))]
    b = leaves[2] if bias is not None else None
    if dense:
        w = torch.zeros(weight.size, dtype=torch.float64).scatter(0, weight.index, leaves[1])
        y = nn.functional.linear(leaves[0], w.view(weight.shape), b)
    else:
        y = compressed.linear(leaves[0], leaves[1], b, plan.of(weight))
    return [y.detach(), *torch.autograd.grad(y, leaves, wide(dy))]


def assert_close(got: list[Tensor], want: list[Tensor], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        scale = float(b.abs().max()) if b.numel() else 1.0
        assert b.numel() == 0 or float((a - b).abs().max()) <= tolerance * max(scale, 1.0)


needs_compiled = pytest.mark.skipif(not native.available(), reason="no compiled kernels here")


@needs_compiled
@settings(max_examples=120, deadline=None)
@given(
    rows=st.integers(1, 70),
    cols=st.integers(1, 70),
    density=st.floats(0, 1),
    batch=st.integers(1, 300),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    bias=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_float64_matches_dense_autograd(
    rows: int,
    cols: int,
    density: float,
    batch: int,
    layouts: tuple[str, str],
    bias: bool,
    threads: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    weight = make_weight(rows, cols, round(density * rows * cols))
    b = torch.randn(rows, dtype=torch.float64) if bias else None
    x = laid_out(batch, cols, layouts[0], torch.float64)
    dy = laid_out(batch, rows, layouts[1], torch.float64)
    before = kernels.get_threads()
    kernels.set_threads(threads)
    try:
        got = gradients(x, weight, b, dy, dense=False)
    finally:
        kernels.set_threads(before)
    assert_close(got, gradients(x, weight, b, dy, dense=True), 1e-12)


@needs_compiled
@pytest.mark.parametrize(
    ("rows", "cols", "nnz", "batch"),
    [(1000, 1000, 40000, 100), (3000, 50, 9000, 100), (50, 3000, 9000, 17), (300, 300, 900, 1), (9, 9, 0, 5)],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_gradients_within_1e_6_of_float64(
    rows: int, cols: int, nnz: int, batch: int, layout: str
) -> None:
    torch.manual_seed(0)
    weight = make_weight(rows, cols, nnz, torch.float32)
    bias = torch.randn(rows)
    x, dy = laid_out(batch, cols, layout, torch.float32), torch.randn(batch, rows)
    got = gradients(x, weight, bias, dy, dense=False)
    for a, b in zip(got, gradients(x, weight, bias, dy, dense=True), strict=True):
        assert float((a - b).norm()) <= 1e-6 * float(b.norm())


@needs_compiled
@pytest.mark.parametrize("batch", [1, 13, 100, 150])
@pytest.mark.parametrize("layout", ["batch-major", "feature-major"])
@pytest.mark.parametrize("share", [0.6, 1.0])
def test_dense_rows_meet_panels_of_columns(share: float, batch: int, layout: str) -> None:
    torch.manual_seed(0)
    weight = make_weight(35, 1300, round(share * 35 * 1300))  # several first caches of activations
    x, dy = laid_out(batch, 1300, layout, torch.float64), torch.randn(batch, 35, dtype=torch.float64)
    bias = torch.randn(35, dtype=torch.float64)
    got = gradients(x, weight, bias, dy, dense=False)
    assert_close(got, gradients(x, weight, bias, dy, dense=True), 1e-12)


@needs_compiled
@pytest.mark.parametrize("nnz", [60000, 900000])
def test_threads_do_not_change_a_bit(nnz: int) -> None:
    torch.manual_seed(0)
    weight, bias = make_weight(1500, 900, nnz, torch.float32), torch.randn(1500)
    x, dy = torch.randn(150, 900), torch.randn(150, 1500)
    results = []
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        results.append(gradients(x, weight, bias, dy, dense=False))
    kernels.set_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_forward_matches_scipy() -> None:
    torch.manual_seed(0)
    weight = make_weight(40, 60, 300)
    p = plan.of(weight)
    matrix = scipy.sparse.csr_matrix(
        (weight.values.detach().numpy(), p.col.numpy(), p.rowptr.numpy()), shape=(40, 60)
    )
    x = torch.randn(25, 60, dtype=torch.float64)
    got = kernels.linear(x, weight, None).detach().numpy()
    np.testing.assert_allclose(got, (matrix @ x.numpy().T).T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (0, 6), (2, 0, 6)])
def test_input_of_any_dimensions(shape: tuple[int, ...]) -> None:
    weight, bias = make_weight(4, 6, 9), torch.randn(4, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = kernels.linear(x, weight, bias)
    want = nn.functional.linear(x, weight.dense(), bias)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(
        torch.autograd.grad(y.sum(), [x, weight.values]), torch.autograd.grad(want.sum(), [x, weight.values])
    )


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_weights_without_units(shape: tuple[int, int]) -> None:
    weight = SparseWeight(shape, torch.empty(0, dtype=torch.int64), torch.empty(0))
    x = torch.randn(3, shape[1])
    assert torch.equal(kernels.linear(x, weight, None), torch.zeros(3, shape[0]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [3, 100])
def test_nan_and_infinity_go_where_a_dense_layer_sends_them(bad: float, batch: int) -> None:
    weight = SparseWeight((2, 3), torch.tensor([0, 4]), torch.tensor([1.0, 2.0]))
    x = torch.ones(batch, 3)
    x[1, 1] = bad
    with kernels.use("compressed"):
        y = kernels.linear(x, weight, None)
    # a connection that does not exist cannot pass on what it does not see
    assert torch.equal(y[:, 0], torch.ones(batch))
    want = torch.full((batch,), 2.0)
    want[1] = 2 * bad
    torch.testing.assert_close(y[:, 1], want, equal_nan=True)
    (dvalues,) = torch.autograd.grad(y.sum(), [weight.values])
    assert dvalues[0] == batch
    assert not torch.isfinite(dvalues[1])


@pytest.mark.parametrize(
    "wrong", [torch.randn(4, 7), torch.randn(4, 6, dtype=torch.float16), torch.randn(())]
)
def test_wrong_inputs_fail_as_in_a_dense_layer(wrong: Tensor) -> None:
    weight = make_weight(5, 6, 10, torch.float32)
    with pytest.raises(RuntimeError) as ours:
        kernels.linear(wrong, weight, None)
    with pytest.raises(RuntimeError) as theirs:
        nn.functional.linear(wrong, weight.dense(), None)
    assert str(ours.value) == str(theirs.value)


@needs_compiled
def test_input_gradient_has_the_layout_of_the_input() -> None:
    weight = make_weight(20, 30, 90, torch.float32)
    for x in (torch.randn(16, 30), torch.randn(30, 16).t()):
        x.requires_grad_()
        y = compressed.linear(x, weight.values, None, plan.of(weight))
        assert y.stride() == ((20, 1) if x.stride(1) == 1 else (1, 16))
        (dx,) = torch.autograd.grad(y.sum(), [x])
        assert dx.stride() == x.stride()
