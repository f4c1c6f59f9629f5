"""Every backend of the compressed way: the same numbers, the same answers to odd input, one choice."""

from __future__ import annotations

import concurrent.futures
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseLinear, kernels
from regraft.errors import InputError
from regraft.kernels import backends, compressed, dispatch, native, plan
from regraft.weight import SparseWeight

LAYOUTS: dict[str, Callable[[int, int], Tensor]] = {
    "batch-major": torch.randn,
    "feature-major": lambda batch, n: torch.randn(n, batch).t(),
    "strided": lambda batch, n: torch.randn(2 * batch, 3 * n)[::2, ::3],
    "flipped": lambda batch, n: torch.randn(batch, n).flip(0, 1),
    "expanded": lambda batch, n: torch.randn(1, n).expand(batch, n),
    "one column": lambda batch, n: torch.randn(batch, 1).expand(batch, n),
    "negative view": lambda batch, n: torch.complex(torch.randn(batch, n), torch.randn(batch, n)).conj().imag,
}
WAYS = [*backends.BACKENDS, "materialised"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to compute, forced."""
    name = request.param
    if name != "materialised" and name not in backends.installed():
        pytest.skip(f"no {name} here")
    with kernels.use("materialised") if name == "materialised" else kernels.use("compressed", backend=name):
        yield name


def make_weight(rows: int, cols: int, nnz: int, dtype: torch.dtype = torch.float32) -> SparseWeight:
    index = torch.randperm(rows * cols)[:nnz].sort().values
    return SparseWeight((rows, cols), index, torch.randn(nnz, dtype=dtype))


def results(
    forward: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, values: Tensor, bias: Tensor, dy: Tensor
) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in (x, values, bias)]
    y = forward(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def dense(weight: SparseWeight) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def forward(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        w = values.new_zeros(weight.size).scatter(0, weight.index, values).view(weight.shape)
        return nn.functional.linear(x, w, bias)

    return forward


@settings(max_examples=40, deadline=None)
@given(
    backend=st.sampled_from(list(backends.BACKENDS)),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    density=st.floats(0, 1),
    batch=st.sampled_from([1, 2, 7, 100, 511, 512, 513, 1100]),
    layouts=st.tuples(st.sampled_from(list(LAYOUTS)), st.sampled_from(list(LAYOUTS))),
    wide=st.booleans(),
    panel_rows=st.sampled_from([3, 1400]),
    seed=st.integers(0, 99),
)
def test_backends_match_dense_autograd(
    backend: str,
    shape: tuple[int, int],
    density: float,
    batch: int,
    layouts: tuple[str, str],
    wide: bool,
    panel_rows: int,
    seed: int,
) -> None:
    if backend not in backends.installed():
        return
    torch.manual_seed(seed)
    dtype = torch.float64 if wide else torch.float32
    rows, cols = shape
    weight = make_weight(rows, cols, round(density * rows * cols), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PANEL_ROWS", panel_rows)
        patch.setattr(plan, "MIN_PER_COLUMN", 1)
        p = plan.of(weight)
    x, dy = LAYOUTS[layouts[0]](batch, cols).to(dtype), LAYOUTS[layouts[1]](batch, rows).to(dtype)
    x, bias = x.resolve_neg(), torch.randn(rows, dtype=dtype)
    got = results(lambda x, v, b: compressed.linear(x, v, b, p, backend=backend), x, weight.values, bias, dy)
    want = results(dense(weight), *(t.double() for t in (x, weight.values, bias, dy)))
    for a, b in zip(got, want, strict=True):
        scale = max(1.0, float(b.abs().max()) if b.numel() else 0.0)
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert b.numel() == 0 or float((a - b).abs().max()) <= (1e-12 if wide else 1e-5) * scale


@pytest.mark.parametrize("feature_major", [None, False, True])
@pytest.mark.parametrize("layout", ["batch-major", "feature-major"])
def test_layouts_are_those_asked_for(way: str, layout: str, feature_major: bool | None) -> None:
    if way == "materialised":
        pytest.skip("torch decides")
    weight = make_weight(20, 30, 90)
    x = LAYOUTS[layout](16, 30).requires_grad_()
    y = compressed.linear(x, weight.values, None, plan.of(weight), feature_major)
    (dx,) = torch.autograd.grad(y.sum(), [x])
    wanted = layout == "feature-major" if feature_major is None else feature_major
    assert y.stride() == ((1, 16) if wanted else (20, 1))
    assert dx.stride() == x.stride()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("feature_major", [None, False, True])
def test_operations_in_place_may_follow(way: str, bias: bool, feature_major: bool | None) -> None:
    """As in ``nn.ReLU(inplace=True)`` after the layer: autograd refuses that on a view made in a function."""
    weight, x = make_weight(5, 4, 9), torch.randn(3, 4)
    b = nn.Parameter(torch.randn(5)) if bias else None
    if way == "materialised":
        y = kernels.linear(x, weight, b)
    else:
        y = compressed.linear(x, weight.values, b, plan.of(weight), feature_major)
    y.relu_().sum().backward()
    expected = nn.functional.linear(x, weight.dense(), b).relu().sum()
    torch.testing.assert_close(weight.values.grad, torch.autograd.grad(expected, weight.values)[0])


@pytest.mark.parametrize("needed", ["x", "values", "bias", "x values", "values bias"])
def test_only_what_is_needed_is_computed(way: str, needed: str) -> None:
    weight = make_weight(9, 7, 20)
    weight.values.requires_grad_("values" in needed)
    x, bias = torch.randn(5, 7, requires_grad="x" in needed), torch.randn(9, requires_grad="bias" in needed)
    kernels.linear(x, weight, bias).sum().backward()
    given = {"x": x.grad, "values": weight.values.grad, "bias": bias.grad}
    assert {name for name, grad in given.items() if grad is not None} == set(needed.split())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(6,), (4, 6), (0, 6), (2, 3, 6), (2, 0, 6), (1, 1, 1, 6)])
def test_odd_inputs_give_what_a_dense_layer_gives(way: str, layout: str, shape: tuple[int, ...]) -> None:
    sparse, ordinary = SparseLinear(make_weight(5, 6, 12), torch.randn(5)), nn.Linear(6, 5)
    ordinary.load_state_dict({"weight": sparse.weight.dense(), "bias": sparse.bias})
    flat = LAYOUTS[layout](max(1, int(torch.tensor(shape[:-1]).prod())), 6)
    x = flat[:0].reshape(shape) if 0 in shape else flat.reshape(shape)
    a, b = x.detach().clone().requires_grad_(), x.detach().clone().requires_grad_()
    got, want = sparse(a), ordinary(b)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(sparse(x), want)
    got.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(sparse.bias.grad, ordinary.bias.grad)
    torch.testing.assert_close(sparse.weight.values.grad, ordinary.weight.grad.flatten()[sparse.weight.index])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.randn(4, 7),
        lambda: torch.randn(()),
        lambda: torch.randn(0),
        lambda: torch.randn(4, 6, dtype=torch.float16),
        lambda: torch.randn(4, 6, dtype=torch.float64),
        lambda: torch.randint(5, (4, 6)),
        lambda: torch.zeros(4, 6, dtype=torch.bool),
        lambda: torch.randn(4, 6, dtype=torch.complex64),
        lambda: torch.randn(6, 4),
    ],
)
def test_wrong_inputs_fail_as_in_a_dense_layer(way: str, wrong: Callable[[], Tensor]) -> None:
    weight = make_weight(5, 6, 10)
    with pytest.raises(RuntimeError) as theirs:
        nn.functional.linear(wrong(), weight.dense(), None)
    with pytest.raises(RuntimeError) as ours:
        kernels.linear(wrong(), weight, None)
    assert str(ours.value) == str(theirs.value)


def test_another_device_is_torchs_business(way: str) -> None:
    weight, x = make_weight(5, 6, 10), torch.randn(4, 6, device="meta")
    assert kernels.linear(x, weight, None).device == nn.functional.linear(x, weight.dense(), None).device


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [3, 100])
def test_nan_and_infinity_only_follow_connections(way: str, bad: float, batch: int) -> None:
    weight = SparseWeight((2, 3), torch.tensor([0, 4]), torch.tensor([1.0, 2.0]))
    x = torch.ones(batch, 3)
    x[1, 1] = bad
    y = kernels.linear(x, weight, None)
    want = torch.full((batch,), 2.0)
    want[1] = 2 * bad
    torch.testing.assert_close(y[:, 1], want, equal_nan=True)
    if way == "materialised":  # zero times NaN or infinity is NaN
        assert torch.isnan(y[1, 0])
    else:  # a connection that does not exist cannot pass on what it does not see
        assert torch.equal(y[:, 0], torch.ones(batch))
    (dvalues,) = torch.autograd.grad(y.sum(), [weight.values])
    assert dvalues[0] == batch
    assert not torch.isfinite(dvalues[1])


def test_nan_in_a_weight_a_bias_and_a_gradient(way: str) -> None:
    nan = float("nan")
    weight = SparseWeight((2, 2), torch.tensor([0, 3]), torch.tensor([nan, 1.0]))
    x = torch.ones(20, 2, requires_grad=True)
    y = kernels.linear(x, weight, torch.tensor([0.0, nan]))
    assert bool(y.isnan().all())
    dy = torch.ones(20, 2)
    dy[3, 1] = nan
    dx, dvalues = torch.autograd.grad(y, [x, weight.values], dy)
    assert bool(dx[:, 0].isnan().all())
    assert dx[:, 1].isnan().nonzero().flatten().tolist() == [3]
    assert dvalues.isnan().tolist() == [False, True]


@settings(max_examples=100, deadline=None)
@given(index=st.lists(st.one_of(st.integers(-3, 14), st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_only_positions_reach_a_backend(index: list[int]) -> None:
    """What a plan lets through is strictly increasing and inside the matrix; all else is an error."""
    good = all(0 <= i < 12 for i in index) and all(a < b for a, b in itertools.pairwise(index))
    for backend in backends.installed():
        weight = SparseWeight((3, 4), torch.arange(len(index)), torch.ones(len(index)))
        weight.index = torch.tensor(index, dtype=torch.int64)
        with kernels.use("compressed", backend=backend):
            if good:
                want = torch.zeros(12).index_fill(0, weight.index, 1.0).view(3, 4)
                assert torch.equal(kernels.linear(torch.eye(4), weight, None).t(), want)
            else:
                with pytest.raises(InputError, match="index"):
                    kernels.linear(torch.eye(4), weight, None)


def missing(patch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        patch.setattr(backends.BACKENDS[name], "available", lambda: False)


def test_the_fastest_one_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [name for name in backends.BACKENDS if name in backends.installed()]
    for name in order:
        assert kernels.backend() == name
        missing(monkeypatch, name)
    assert kernels.backend() is None
    weight = make_weight(5, 6, 10)
    with kernels.use("compressed"):
        got = kernels.linear(torch.eye(6), weight, None)
    assert torch.equal(got.t(), weight.dense())


def test_a_missing_backend_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, *backends.BACKENDS)
    for name, needed in backends.NEEDS.items():
        with pytest.raises(InputError, match=r"not installed: " + needed[:9]):
            kernels.use("auto", backend=name)
    assert kernels.current() == "auto"


def test_an_unknown_backend_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="native"):
        kernels.use("compressed", backend="nativ")
    assert kernels.current() == "auto"


def test_backends_nest_and_are_restored() -> None:
    before = kernels.backend()
    for name in backends.installed():
        with kernels.use("compressed", backend=name):
            with kernels.use("materialised"):
                assert kernels.backend() == name
            with pytest.raises(ZeroDivisionError), kernels.use("auto", backend="csr"):
                raise ZeroDivisionError
            assert kernels.backend() == name
        assert (kernels.backend(), kernels.current()) == (before, "auto")


def test_each_backend_has_its_crossover_and_its_remedy() -> None:
    assert set(dispatch.CROSSOVER) == set(backends.BACKENDS) == set(backends.NEEDS)


def test_the_rule_follows_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    true = compressed.linear

    def spy(*args: object, **kwargs: object) -> Tensor:
        seen.append(str(kernels.backend()))
        return true(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(compressed, "linear", spy)
    for backend in backends.installed():
        for density in (0.02, 0.97):
            weight = make_weight(100, 100, round(density * 1e4))
            with kernels.use("auto", backend=backend):
                kernels.linear(torch.randn(30, 100), weight, None)
        assert seen == [backend]
        seen.clear()


def test_threads_compute_side_by_side(way: str) -> None:
    torch.manual_seed(0)
    weight = make_weight(60, 80, 500)
    xs = [torch.randn(n, 80) for n in range(1, 33)]
    p = plan.of(weight)
    assert p.nnz == 500
    want = [x @ weight.dense().detach().t() for x in xs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda x: kernels.linear(x, weight, None).detach(), xs))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_numba_is_imported_when_it_computes_and_not_before() -> None:
    if "numba" not in backends.installed():
        pytest.skip("no numba here")
    code = (
        "import sys, torch\n"
        "from regraft import SparseLinear, kernels\n"
        "layer = SparseLinear.random(30, 20, density=0.1)\n"
        "with kernels.use('compressed', backend='csr'): layer(torch.randn(4, 30))\n"
        "assert 'numba' not in sys.modules\n"
        "with kernels.use('compressed', backend='numba'): layer(torch.randn(4, 30))\n"
        "assert 'numba' in sys.modules\n"
    )
    # warnings are errors: torch's note on the state of its CSR tensors is not heard
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_native_backend_is_the_compiled_module() -> None:
    assert ("native" in backends.installed()) == native.available()
