"""A SparseWeight as a module: state dicts of another topology, types, devices."""

import copy

import pytest
import torch
from torch import nn

import regraft
from regraft import SparseWeight
from regraft.errors import InputError, MismatchError


def model(seed, density=0.3):
    generator = torch.Generator().manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return regraft.sparsify(made, density, generator=generator)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.9])
def test_state_dict_of_any_nnz_loads_strictly(density):
    source, target = model(1, density), model(2)
    parameters = dict(target.named_parameters())
    outcome = target.load_state_dict(source.state_dict(), strict=True)
    assert outcome.missing_keys == outcome.unexpected_keys == []
    assert regraft.Topology.of(target) == regraft.Topology.of(source)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name
    assert all(p is parameters[n] for n, p in target.named_parameters())
    x = torch.randn(5, 6)
    assert torch.equal(target(x), source(x))
    target(x).sum().backward()


def test_the_state_is_copied_not_shared():
    source, target = model(1), model(2)
    target.load_state_dict(source.state_dict())
    with torch.no_grad():
        target[0].weight.values.add_(1.0)
        target[0].weight.index.sub_(target[0].weight.index.clone())
    assert not torch.equal(source[0].weight.values, target[0].weight.values)
    assert not torch.equal(source[0].weight.index, target[0].weight.index)


def test_assigning_load_takes_over_the_tensors():
    source, target = model(1, 0.1), model(2, 0.5)
    target.load_state_dict(source.state_dict(), assign=True)
    x = torch.randn(5, 6)
    target.eval(), source.eval()
    assert torch.equal(target(x), source(x))


@pytest.mark.parametrize("assign", [False, True])
def test_int32_positions_of_a_file_become_int64(assign):
    source, target = model(1), model(2)
    state = source.state_dict()
    state["0.weight.index"] = state["0.weight.index"].int()
    target.load_state_dict(state, assign=assign)
    assert target[0].weight.index.dtype == torch.int64
    target(torch.randn(5, 6))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([5, 4, 3], "0.weight.index is not strictly increasing"),
        ([0, 1, 48], r"0.weight.index holds the position 48.*the weight here has shape \(8, 6\)"),
        ([-1, 1, 2], "holds the position -1"),
    ],
)
def test_wrong_positions_are_refused_by_name(index, message):
    target = model(2)
    before = copy.deepcopy(target.state_dict())
    state = target.state_dict() | {
        "0.weight.index": torch.tensor(index),
        "0.weight.values": torch.zeros(len(index)),
    }
    with pytest.raises(InputError, match=message):
        target.load_state_dict(state)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


@pytest.mark.parametrize("same_index", [False, True])
def test_positions_and_values_of_different_length_are_refused(same_index):
    target = model(2)
    state = target.state_dict()
    state["0.weight.values"] = torch.zeros(2)
    if not same_index:
        state["0.weight.index"] = torch.tensor([0, 1, 2])
    with pytest.raises((MismatchError, RuntimeError), match="values"):
        target.load_state_dict(state)


def test_a_missing_half_is_reported_as_torch_does():
    target = model(2)
    state = target.state_dict()
    del state["0.weight.values"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"0\.weight\.values"'):
        target.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_dtype_changes_the_values_only(dtype):
    w = SparseWeight((2, 3), torch.tensor([1, 5]), torch.tensor([3.0, -1.0])).to(dtype)
    assert w.values.dtype == dtype
    assert w.index.dtype == torch.int64
    assert w.dense().dtype == dtype
    w.rewire(torch.tensor([1, 2]), torch.tensor([0.5]))
    assert w.values.dtype == dtype
    assert w.values.tolist() == [3.0, 0.5]


def test_type_casts_leave_the_positions_alone():
    """``Module.type`` casts buffers of any kind; 2049 is not a float16, so positions must not take part."""
    w = SparseWeight((1, 3000), torch.tensor([2049]), torch.tensor([1.0])).type(torch.float16)
    assert w.index.dtype == torch.int64
    assert w.index.tolist() == [2049]
    assert w.values.dtype == torch.float16


def test_meta_device_and_back():
    made = model(1)
    state = copy.deepcopy(made.state_dict())
    made.to("meta")
    assert {t.device.type for t in made.state_dict().values()} == {"meta"}
    assert made(torch.empty(5, 6, device="meta")).shape == (5, 3)
    made.to_empty(device="cpu")
    made.load_state_dict(state)
    assert all(torch.equal(v, state[k]) for k, v in made.state_dict().items())


def test_a_model_may_be_sparsified_without_memory_for_its_values():
    with torch.device("meta"):
        skeleton = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    regraft.sparsify(skeleton, 0.3)
    source = regraft.sparsify(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), 0.5)
    skeleton.load_state_dict(source.state_dict(), assign=True)
    x = torch.randn(2, 6)
    assert torch.equal(skeleton(x), source(x))


@pytest.mark.parametrize(
    "move", [lambda w: w.double(), lambda w: w.to("cpu", torch.float16), lambda w: w.cpu()]
)
def test_moving_empties_the_cache(move):
    w = SparseWeight((2, 3), torch.tensor([1]), torch.tensor([3.0]))
    w.cache["kernel"] = 1
    assert move(w).cache == {}


def test_rewire_takes_positions_from_any_integer_type():
    w = SparseWeight((2, 3), torch.tensor([1, 5]), torch.tensor([3.0, -1.0]))
    w.rewire(torch.tensor([1, 4], dtype=torch.int32), torch.tensor([2.0], dtype=torch.float64))
    assert w.index.dtype == torch.int64
    assert w.values.dtype == torch.float32
    assert w.values.tolist() == [3.0, 2.0]


def small(index, values):
    return SparseWeight((3, 4), torch.tensor(index), torch.tensor(values))


def test_a_state_of_other_positions_of_the_same_number_empties_the_cache():
    target, source = (
        small([0, 5, 11], [1.0, 2.0, 3.0]),
        small([1, 5, 8], [4.0, 5.0, 6.0]),
    )
    target.cache["plan"] = "of other positions"
    target.load_state_dict(source.state_dict())
    assert target.cache == {}
    assert torch.equal(target.dense(), source.dense())


def test_a_state_of_the_same_positions_keeps_the_cache():
    """Plans are of positions alone, and a training that resumes each round loads the same ones again."""
    target, source = (
        small([0, 5, 11], [1.0, 2.0, 3.0]),
        small([0, 5, 11], [4.0, 5.0, 6.0]),
    )
    target.cache["plan"] = "of these positions"
    target.load_state_dict(source.state_dict())
    assert target.cache == {"plan": "of these positions"}
    assert torch.equal(target.dense(), source.dense())


def test_a_state_on_the_meta_device_is_taken_over_by_its_shape():
    with torch.device("meta"):
        target = SparseWeight((3, 4), torch.tensor([0, 1, 2]), torch.zeros(3))
    source = small([0, 5, 11], [1.0, 2.0, 3.0])
    target.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(target.dense(), source.dense())
