"""SparseWeight: positions and values, the dense view of them, and changes of topology."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft import SparseWeight
from regraft.errors import InputError, MismatchError


def random_weight(shape=(4, 6), nnz=9, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(torch.Size(shape).numel(), generator=generator)[:nnz].sort().values
    return SparseWeight(shape, index, torch.randn(nnz, generator=generator, dtype=dtype))


def test_only_the_values_are_a_parameter_and_nothing_of_dense_size_is_kept():
    w = random_weight((100, 50), 7)
    assert [n for n, _ in w.named_parameters()] == ["values"]
    assert [n for n, _ in w.named_buffers()] == ["index"]
    assert set(w.state_dict()) == {"index", "values"}
    assert w.index.dtype == torch.int64
    assert all(t.numel() == 7 for t in w.state_dict().values())


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_dense_and_from_dense_are_inverse(shape, data):
    size = torch.Size(shape).numel()
    chosen = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    values = torch.randn(len(chosen)).abs() + 0.1
    w = SparseWeight(shape, torch.tensor(chosen, dtype=torch.int64), values)
    expected = torch.zeros(size)
    for position, value in zip(chosen, values, strict=True):
        expected[position] = value
    assert torch.equal(w.dense().flatten(), expected)
    assert w.dense().shape == torch.Size(shape)
    back = SparseWeight.from_dense(w.dense())
    assert torch.equal(back.index, w.index)
    assert torch.equal(back.values, w.values)


def test_from_dense_copies_and_may_hold_zeros():
    dense = torch.zeros(2, 3)
    w = SparseWeight.from_dense(dense, torch.tensor([0, 4]))
    assert w.values.tolist() == [0.0, 0.0]
    dense.fill_(9.0)
    assert w.values.tolist() == [0.0, 0.0]


def test_shape_questions():
    w = random_weight((4, 3, 2, 2), 12)
    place = torch.stack(torch.unravel_index(w.index, tuple(w.shape)))
    assert (w.size, w.nnz, w.density, w.fan_in_size) == (48, 12, 0.25, 12)
    assert torch.equal(w.rows(), place[0])
    assert torch.equal(w.input_units(), place[1])
    assert torch.equal(w.columns(), place[1] * 4 + place[2] * 2 + place[3])
    assert "nnz=12" in repr(w)
    assert "density=0.25" in repr(w)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 2)])
def test_a_weight_without_connections_or_positions_is_whole(shape):
    w = SparseWeight(shape, torch.empty(0, dtype=torch.int64), torch.empty(0))
    assert w.nnz == 0
    assert w.density == 0.0
    assert torch.equal(w.dense(), torch.zeros(shape))
    assert w.rows().tolist() == w.columns().tolist() == w.input_units().tolist() == []


def test_gradient_reaches_exactly_the_active_entries():
    w = random_weight()
    upstream = torch.randn(4, 6)
    (w.dense() * upstream).sum().backward()
    assert torch.equal(w.values.grad, upstream.flatten()[w.index])


def test_dense_is_twice_differentiable():
    w = random_weight(dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    values = w.values.detach().clone().requires_grad_()

    def f(v, x):
        return torch.tanh(x @ w.dense(v).T)

    assert torch.autograd.gradcheck(f, (values, x))
    assert torch.autograd.gradgradcheck(f, (values, x))


@pytest.mark.parametrize(
    ("index", "values", "kind", "message"),
    [
        ([1, 0], [1.0, 2.0], InputError, "not strictly increasing"),
        ([0, 24], [1.0, 2.0], InputError, r"must be in \[0, 24\)"),
        ([0, 1], [1.0], MismatchError, "there are 2 positions"),
        ([0, 1], [1, 2], InputError, "must be floating point"),
        ([0, 1], [[1.0, 2.0]], MismatchError, r"values has shape \(1, 2\)"),
    ],
)
def test_bad_positions_and_values_are_refused_at_construction_and_at_replacement(
    index, values, kind, message
):
    index, values = torch.tensor(index), torch.tensor(values)
    with pytest.raises(kind, match=message):
        SparseWeight((4, 6), index, values)
    w = random_weight()
    before = copy.deepcopy(w)
    with pytest.raises(kind, match=message):
        w.replace(index, values)
    assert torch.equal(w.index, before.index)
    assert torch.equal(w.values, before.values)


def test_rewire_keeps_survivors_and_says_where_they_went():
    w = SparseWeight((2, 4), torch.tensor([0, 2, 5, 7]), torch.tensor([10.0, 12.0, 15.0, 17.0]))
    parameter = w.values
    moved = w.rewire(torch.tensor([1, 2, 6, 7]), torch.tensor([-1.0, -6.0]))
    assert w.index.tolist() == [1, 2, 6, 7]
    assert w.values.tolist() == [-1.0, 12.0, -6.0, 17.0]
    assert moved.kept_old.tolist() == [1, 3]
    assert moved.kept_new.tolist() == [1, 3]
    assert w.values is parameter
    assert dict(w.named_parameters())["values"] is parameter


@given(st.sets(st.integers(0, 23)), st.sets(st.integers(0, 23)))
def test_rewire_equals_a_dictionary_of_positions(before, after):
    before, after = sorted(before), sorted(after)
    old = torch.arange(len(before)) + 1.0
    w = SparseWeight((4, 6), torch.tensor(before, dtype=torch.int64), old)
    known = dict(zip(before, old.tolist(), strict=True))
    fresh = torch.full((len(set(after) - set(before)),), -1.0)
    moved = w.rewire(torch.tensor(after, dtype=torch.int64), fresh)
    assert w.values.tolist() == [known.get(p, -1.0) for p in after]
    assert torch.equal(w.values[moved.kept_new], old[moved.kept_old])
    assert len(moved.kept_new) == len(set(before) & set(after))


def test_rewire_drops_gradient_and_cache_and_keeps_trainability():
    w = random_weight()
    w.values.grad = torch.ones(9)
    w.cache["kernel"] = object()
    w.values.requires_grad_(False)
    w.rewire(w.index[:4], torch.empty(0))
    assert w.values.grad is None
    assert w.cache == {}
    assert w.values.requires_grad is False
    assert w.values.is_leaf


@pytest.mark.parametrize("n", [0, 2])
def test_rewire_wants_one_value_for_each_new_position(n):
    w = SparseWeight((2, 4), torch.tensor([0]), torch.tensor([1.0]))
    with pytest.raises(MismatchError, match="has 1 new positions: pass one value for each"):
        w.rewire(torch.tensor([0, 3]), torch.zeros(n))
    assert w.index.tolist() == [0]


@pytest.mark.parametrize("nnz", [3, 9, 20], ids=["fewer", "as many", "more"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_training_goes_on_while_an_old_loss_is_alive(nnz, dtype):
    """A caller who keeps the loss of the last batch must not break the next backward."""
    w = random_weight(dtype=dtype)
    kept_loss = w.dense().pow(2).sum()
    kept_loss.backward()
    w.rewire(torch.arange(nnz), torch.ones(nnz - len(set(w.index.tolist()) & set(range(nnz))), dtype=dtype))
    loss = w.dense().sum()
    loss.backward()
    assert w.values.grad.shape == (nnz,)
    assert torch.equal(w.values.grad, torch.ones(nnz, dtype=dtype))
    assert kept_loss.grad_fn is not None


def test_gradient_hooks_live_through_a_change_of_nnz():
    w = random_weight()
    seen = []
    w.values.register_hook(lambda g: seen.append(g.shape[0]))
    w.dense().sum().backward()
    w.rewire(torch.arange(4), torch.ones(4 - len(set(w.index.tolist()) & set(range(4)))))
    w.dense().sum().backward()
    assert seen == [9, 4]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])  # noqa: S301
def test_copies_are_equal_and_independent(copier):
    w = random_weight()
    w.cache["kernel"] = lambda: None  # what a kernel keeps need not be picklable
    twin = copier(w)
    assert torch.equal(twin.index, w.index)
    assert torch.equal(twin.values, w.values)
    assert twin.cache == {}
    assert "kernel" in w.cache
    twin.rewire(torch.tensor([0]), torch.zeros(1 - int(0 in w.index.tolist())))
    assert w.nnz == 9
    assert type(twin) is SparseWeight
    assert twin.shape == w.shape


def test_torch_functions_see_the_dense_weight():
    w, x, b = random_weight((4, 6), 9), torch.randn(5, 6), torch.randn(4)
    expected = x @ w.dense().T + b
    torch.testing.assert_close(torch.nn.functional.linear(x, w, b), expected)
    torch.testing.assert_close(torch.nn.functional.linear(x, weight=w, bias=b), expected)
    assert torch.equal(w(), w.dense())


def test_other_values_at_the_same_positions():
    w = random_weight((4, 6), 9)
    assert torch.equal(w.dense(2 * w.values), 2 * w.dense())


@pytest.mark.parametrize(
    ("index", "values", "message"),
    [
        ([0, 1], torch.ones(2), "index is a list, but must be a tensor of integer positions"),
        (torch.tensor([0, 1]), [1.0, 2.0], "values are a list, but must be a floating point tensor"),
    ],
)
def test_lists_are_refused_with_a_sentence(index, values, message):
    with pytest.raises(InputError, match=message):
        SparseWeight((2, 2), index, values)


def test_more_values_than_positions_are_refused():
    with pytest.raises(MismatchError, match="one value is needed for each"):
        SparseWeight((2, 2), torch.tensor([0]), torch.ones(2))


def test_positions_for_from_dense_are_checked():
    with pytest.raises(InputError, match="strictly increasing"):
        SparseWeight.from_dense(torch.eye(3), torch.tensor([4, 0]))


def test_rows_columns_and_units_of_a_weight_with_one_input():
    w = SparseWeight((3, 1), torch.tensor([0, 2]), torch.ones(2))
    assert w.rows().tolist() == [0, 2]
    assert w.columns().tolist() == w.input_units().tolist() == [0, 0]
    kernel = SparseWeight((2, 2, 1, 1), torch.tensor([0, 3]), torch.ones(2))
    assert kernel.input_units().tolist() == [0, 1]


def test_changes_of_topology_need_no_gradient():
    w = random_weight((4, 6), 2)
    new = torch.ones(3, requires_grad=True)
    w.replace(torch.tensor([0, 1, 2]), new)
    assert w.values.is_leaf
    assert w.values.requires_grad
    w.rewire(torch.tensor([0, 1, 5]), torch.ones(1, requires_grad=True))
    assert w.values.is_leaf
    w.dense().sum().backward()
    assert w.values.grad is not None
    assert new.grad is None
