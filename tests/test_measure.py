"""Accuracy, loss, and the cost of a network, against counting by hand on dense arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import measure, models, sparsify
from regraft.data import Split
from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLinear
from regraft.weight import SparseWeight


def linear(rows: int, columns: int, index: list[int]) -> SparseLinear:
    weight = SparseWeight((rows, columns), torch.tensor(index, dtype=torch.int64), torch.ones(len(index)))
    return SparseLinear(weight, torch.zeros(rows))


@given(st.integers(1, 40), st.integers(1, 50))
def test_evaluation_does_not_depend_on_the_batch(n: int, batch: int) -> None:
    g = torch.Generator().manual_seed(n)
    split = Split(torch.randn(n, 3, generator=g), torch.randint(3, (n,), generator=g))
    figures = measure.evaluate(nn.Identity(), split, batch)
    assert figures["n"] == n
    assert figures["accuracy"] == pytest.approx(np.mean(split.x.numpy().argmax(1) == split.y.numpy()))
    expected = nn.functional.cross_entropy(split.x.double(), split.y).item()
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


def test_evaluation_leaves_mode_and_generator_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    model[1].eval()
    split = Split(torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1]))
    state = torch.get_rng_state()
    first = measure.evaluate(model, split)
    assert measure.evaluate(model, split) == first
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert torch.equal(state, torch.get_rng_state())


def test_evaluation_of_a_model_that_does_not_fit() -> None:
    split = Split(torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 4]))
    with pytest.raises(MismatchError, match=r"samples of shape \(3,\)"):
        measure.evaluate(nn.Linear(4, 5), split)
    with pytest.raises(MismatchError, match="has 2 outputs, but the data has the label 4"):
        measure.evaluate(nn.Linear(3, 2), split)
    with pytest.raises(MismatchError, match="one row of class scores"):
        measure.evaluate(nn.Unflatten(1, (3, 1)), split)
    with pytest.raises(InputError, match="batch_size is 0"):
        measure.evaluate(nn.Linear(3, 5), split, batch_size=0)
    with pytest.raises(InputError, match="unknown loss"):
        measure.evaluate(nn.Linear(3, 5), split, loss="none")


def test_the_thesis_network() -> None:
    model = sparsify(models.build("mlp:784-1000-1000-1000-10"), epsilon=20)
    figures = measure.inspect(model)
    # epsilon (n_in + n_out) connections, the last layer full, and 3010 biases
    assert figures["parameters"] == 20 * (1784 + 2000 + 2000) + 10_000 + 3010
    assert figures["dense_parameters"] == 2_797_010
    assert figures["flops"] == 2 * figures["weights"]
    assert figures["dense_flops"] == 2 * (2_797_010 - 3010)
    assert figures["bytes"] == figures["weights"] * 12 + 3010 * 4
    assert figures["dense_bytes"] == 2_797_010 * 4


def test_dead_units_by_hand() -> None:
    # unit 0 of the hidden layer has no input, unit 1 no output, unit 2 both, unit 3 neither
    first = linear(4, 3, [3, 4, 9])
    second = linear(2, 4, [0, 3])
    figures = measure.inspect(nn.Sequential(first, nn.ReLU(), second))
    hidden, last = figures["layers"]
    assert (hidden["no_incoming"], hidden["no_outgoing"], hidden["dead_units"]) == (2, 2, 3)
    assert (last["no_incoming"], last["no_outgoing"], last["dead_units"]) == (1, None, 1)
    assert figures["dead_units"] == 4
    assert figures["unused_inputs"] == 1


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6))
def test_dead_units_against_dense_matrices(seed: int, density: float) -> None:
    g = torch.Generator().manual_seed(seed)
    model = models.build("mlp:7-9-6-4", generator=g)
    sparsify(model, density=density, generator=g)
    masks = [(m.weight.dense() != 0).numpy() for m in (model.fc1, model.fc2, model.fc3)]
    for layer, mask, after in zip(measure.inspect(model)["layers"], masks, (*masks[1:], None), strict=True):
        dead = ~mask.any(1) if after is None else ~mask.any(1) | ~after.any(0)
        assert layer["dead_units"] == dead.sum()


def test_convolutions_and_the_layer_after_flattening() -> None:
    model = models.build("lenet-5", generator=torch.Generator().manual_seed(0))
    sparsify(model, density=0.05, generator=torch.Generator().manual_seed(0))
    figures = {layer["name"]: layer for layer in measure.inspect(model)["layers"]}
    assert figures["conv1"]["flops"] == 2 * model.conv1.weight.nnz * 28 * 28
    assert figures["conv2"]["flops"] == 2 * model.conv2.weight.nnz * 10 * 10
    assert figures["fc1"]["flops"] == 2 * model.fc1.weight.nnz
    conv2, fc1 = model.conv2.weight.dense() != 0, model.fc1.weight.dense() != 0
    reaches = fc1.any(0).view(16, 25).any(1)
    assert figures["conv2"]["no_outgoing"] == int((~reaches).sum())
    assert figures["conv2"]["no_incoming"] == int((~conv2.flatten(1).any(1)).sum())
    reached = conv2.any(0).flatten(1).any(1)
    assert figures["conv1"]["no_outgoing"] == int((~reached).sum())


def test_grouped_convolution_counts_inputs_by_group() -> None:
    first = nn.Conv1d(2, 4, 1)
    second = nn.Conv1d(4, 4, 1, groups=2)
    model = sparsify(nn.Sequential(first, second), density=1.0)
    # group 0 sees channels 0 and 1, group 1 channels 2 and 3; only channel 2 is used
    model[1].weight.replace(torch.tensor([4]), torch.ones(1))
    assert measure.inspect(model)["layers"][0]["no_outgoing"] == 3


def test_dense_models_and_unknown_input_shapes() -> None:
    figures = measure.inspect(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    assert figures["flops"] is None
    assert figures["layers"][1]["flops"] == 32
    assert (figures["density"], figures["compression"], figures["dead_units"]) == (1.0, 1.0, 0)
    with_shape = measure.inspect(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), (1, 4, 4))
    assert with_shape["flops"] == 2 * 18 * 4 + 32


def test_a_linear_layer_applied_to_a_sequence_counts_each_position() -> None:
    assert measure.inspect(nn.Sequential(nn.Linear(3, 5), nn.Flatten(), nn.Linear(20, 2)), (4, 3))[
        "flops"
    ] == 2 * (15 * 4 + 40)


def test_very_wide_layers_are_evaluated_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sparsify(nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 3)), density=0.5)
    split = Split(torch.randn(50, 5), torch.randint(0, 3, (50,)))
    seen: list[int] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    whole = measure.evaluate(model, split)
    assert seen == [50]
    monkeypatch.setattr(measure, "MOST_ACTIVATIONS", 40 * 20)
    parts = measure.evaluate(model, split)
    assert seen == [50, 20, 20, 10]
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["loss"] == pytest.approx(whole["loss"])
