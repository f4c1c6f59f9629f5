"""Updates: copies, in both directions, and what does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from regraft import sparsify
from regraft.errors import MismatchError
from regraft.federated import Entries, Plan, Update


def test_a_model_goes_through_an_update_bit_for_bit(net, update, equal):
    assert equal(update(3).put(net(0)), net(3))


def test_an_update_is_a_copy(net, equal):
    model = net()
    made = Update.of(model, round=0, client="a", examples=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert equal(made.put(net(1)), net())


def test_parameters_stay_the_same_objects(net, update):
    model = net(0)
    before = list(model.parameters())
    update(1).put(model)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))


def test_buffers_and_integers_go_along():
    def made(seed):
        torch.manual_seed(seed)
        model = sparsify(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), density=0.5)
        model(torch.randn(5, 4))
        return model

    filled = Update.of(made(0), round=0, client="a", examples=1).put(made(1))
    assert int(filled[1].num_batches_tracked) == 1
    assert torch.equal(filled[1].running_var, made(0)[1].running_var)


def test_two_architectures_have_two_fingerprints(net):
    assert Plan.of(net(0)).fingerprint == Plan.of(net(1)).fingerprint  # topology is no architecture
    others = [
        net(0, None), net(0).double(), sparsify(nn.Sequential(nn.Linear(6, 12)), density=0.5),
        sparsify(nn.Sequential(nn.Linear(12, 6)), density=0.5),
    ]  # fmt: skip
    prints = {Plan.of(model).fingerprint for model in (net(0), *others)}
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers": {}}, "the model has the sparse weight 'fc1.weight', but the update has not"),
        ({"dense": {}}, "the model has the tensor 'fc1.bias', but the update has not"),
    ],
)
def test_tensors_that_are_missing(net, update, change, sentence):
    with pytest.raises(MismatchError, match=sentence):
        dataclasses.replace(update(), **change).put(net())


def test_tensors_that_do_not_fit(net, update):
    good = update()
    extra = dataclasses.replace(good, layers={**good.layers, "x": good.layers["fc1.weight"]})
    with pytest.raises(MismatchError, match="the update has the sparse weight 'x', but the model has not"):
        extra.put(net())
    odd = Entries(good.layers["fc1.weight"].index, torch.ones(2))
    with pytest.raises(MismatchError, match="one value is needed for each position"):
        dataclasses.replace(good, layers={**good.layers, "fc1.weight": odd}).put(net())
    for tensor, sentence in (
        (torch.ones(5), "has shape \\(5,\\)"),
        (torch.ones(12).long(), "is torch.int64"),
    ):
        with pytest.raises(MismatchError, match=sentence):
            dataclasses.replace(good, dense={**good.dense, "fc1.bias": tensor}).put(net())
