"""The last layer in closed form: against NumPy's least squares, over several owners, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft import Topology, sparsify
from regraft.errors import InputError, MismatchError
from regraft.merging import Ensemble, select_neurons
from regraft.merging.neurons import readout_sums, refit_readout
from regraft.probe import Probe


def network(seed: int, density: float | None = None, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4, bias=bias)).double()
    return model if density is None else sparsify(model, density, allocate="uniform")


def batches(n: int = 60, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, dtype=torch.float64, generator=generator)
    return [(x, torch.randint(4, (n,), generator=generator))]


def dense(layer: Any) -> np.ndarray[Any, Any]:
    weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.dense()
    array: np.ndarray[Any, Any] = weight.detach().numpy()
    return array


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("bias", [True, False])
def test_against_numpy_with_labels(density: float | None, bias: bool) -> None:
    model, data = network(0, density, bias), batches()
    made = refit_readout(model, [readout_sums(model, data)], ridge=1e-13)
    x, y = data[0]
    h = model[1](model[0](x)).detach().numpy()
    wanted, weight = np.eye(4)[y.numpy()], dense(model[2])
    for row in range(4):
        on = np.arange(9) if density is None else weight[row].nonzero()[0]
        columns = np.concatenate([h[:, on], np.ones((60, 1))], 1) if bias else h[:, on]
        solved = np.linalg.lstsq(columns, wanted[:, row], rcond=None)[0]
        said = made(x).detach().numpy()[:, row]  # units that are constant leave the values themselves open
        np.testing.assert_allclose(said, columns @ solved, rtol=1e-6, atol=1e-8)
    if density is not None:
        assert Topology.of(made) == Topology.of(model)


@pytest.mark.parametrize("density", [None, 0.4])
def test_sums_of_several_owners_are_those_of_all_data(density: float | None) -> None:
    model, teacher = network(0, density), network(1)
    parts = [batches(n, n)[0] for n in (20, 30, 25)]
    apart = refit_readout(model, [readout_sums(model, [part], teacher) for part in parts])
    together = [(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))]
    once = refit_readout(model, [readout_sums(model, together, teacher)])
    x = batches()[0][0]
    torch.testing.assert_close(apart(x), once(x))
    assert readout_sums(model, parts).count == 75


def test_it_comes_nearer_to_what_the_parents_say() -> None:
    parents, data = [network(i, 0.5) for i in range(3)], batches(300)
    merged = select_neurons(parents, Probe(batches=data))
    sums = readout_sums(merged, data, Ensemble(parents))
    near = refit_readout(merged, [sums])
    x, said = data[0][0], Ensemble(parents)(data[0][0])
    assert (near(x) - said).square().mean() < 0.8 * (merged(x) - said).square().mean()
    assert Topology.of(near) == Topology.of(merged)


def test_a_large_ridge_and_a_perfect_network_change_nothing() -> None:
    model, data = network(0, 0.4), batches()
    x = data[0][0]
    held = refit_readout(model, [readout_sums(model, data)], ridge=1e12)
    torch.testing.assert_close(held(x), model(x))
    same = refit_readout(model, [readout_sums(model, data, teacher=model)])
    torch.testing.assert_close(same(x), model(x))


def test_units_that_are_always_0_keep_their_weights() -> None:
    model, data = network(0), batches()
    model[1] = nn.ReLU()
    with torch.no_grad():
        model[0].bias[3] = -100.0
    made = refit_readout(model, [readout_sums(model, data)])
    torch.testing.assert_close(made[2].weight[:, 3], model[2].weight[:, 3])
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    silent = nn.Sequential(*model[:2], nn.Linear(9, 4, bias=False).double())
    assert torch.equal(refit_readout(silent, [readout_sums(silent, data)])[2].weight, silent[2].weight)


def test_everything_is_left_alone() -> None:
    model, teacher = network(0, 0.4).train(), network(1).train()
    before = copy.deepcopy(model.state_dict())
    refit_readout(model, [readout_sums(model, batches(), teacher)])
    assert all(torch.equal(model.state_dict()[n], before[n]) for n in before)
    assert model.training
    assert teacher.training
    assert not model[2]._forward_pre_hooks


def test_bad_input() -> None:
    model, data = network(0), batches()
    sums = readout_sums(model, data)
    with pytest.raises(InputError, match="at least one batch"):
        readout_sums(model, [])
    with pytest.raises(InputError, match="at least one ReadoutSums"):
        refit_readout(model, [])
    with pytest.raises(InputError, match=r"ridge is 0\.0, but must be positive"):
        refit_readout(model, [sums], ridge=0.0)
    with pytest.raises(InputError, match="does more to its output after '2'"):
        readout_sums(nn.Sequential(*model, nn.Softmax(1)), data)
    with pytest.raises(InputError, match="NaN or infinite"):
        readout_sums(model, [(data[0][0] * torch.nan, data[0][1])])
    other = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    with pytest.raises(
        MismatchError, match="sums over 9 units and 4 outputs do not add to sums over 5 and 4"
    ):
        refit_readout(model, [sums, readout_sums(other, data)])
    with pytest.raises(MismatchError, match="'2' from 9 units to 4 outputs, which the Sequential does not"):
        refit_readout(other, [sums])
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
    with pytest.raises(InputError, match="does not end with one linear layer"):
        readout_sums(convolution, [(torch.zeros(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64))])


def test_chosen_connections_are_those_that_say_most() -> None:
    """Outputs that are each made of two of the units: they are found, and nothing is left."""
    model, data = network(0, 0.3), batches(200)
    k = model[2].weight.nnz
    assert k >= 8
    teacher = network(0)
    teacher.load_state_dict({**teacher.state_dict(), **dense_state(model)})
    with torch.no_grad():
        teacher[2].weight.zero_()
        for row in range(4):
            teacher[2].weight[row, [row, row + 4]] = torch.tensor([3.0, -2.0], dtype=torch.float64)
    made = refit_readout(model, [readout_sums(model, data, teacher)], choose=True, ridge=1e-12)
    torch.testing.assert_close(made(data[0][0]), teacher(data[0][0]), rtol=1e-4, atol=1e-4)
    assert made[2].weight.nnz == k
    assert Topology.of(made)["0.weight"] == Topology.of(model)["0.weight"]


def dense_state(model: nn.Sequential) -> dict[str, Tensor]:
    weight: Any = model[0].weight
    return {"0.weight": weight.dense().detach(), "0.bias": model[0].bias.detach()}  # type: ignore[dict-item]


def test_choosing_is_better_than_keeping_and_counts_stay() -> None:
    parents, data = [network(i, 0.3) for i in range(3)], batches(400)
    merged = select_neurons(parents, Probe(batches=data), readout=9)
    assert merged[2].weight.nnz == 9
    assert Topology.of(merged).nnz == Topology.of(parents[0]).nnz
    sums = [readout_sums(merged, data)]
    x, wanted = data[0][0], nn.functional.one_hot(data[0][1], 4)
    errors = [
        (refit_readout(merged, sums, choose=choose)(x) - wanted).square().mean() for choose in (False, True)
    ]
    assert errors[1] < errors[0]
    one, other = (refit_readout(merged, sums, choose=True) for _ in range(2))
    assert Topology.of(one) == Topology.of(other)
    assert one[2].weight.nnz == 9


def test_a_dense_last_layer_has_nothing_to_choose() -> None:
    model, data = network(0), batches()
    sums = [readout_sums(model, data)]
    kept, chosen = refit_readout(model, sums), refit_readout(model, sums, choose=True)
    assert torch.equal(kept[2].weight, chosen[2].weight)


def test_readouts_that_cannot_be() -> None:
    parents, probe = [network(i, 0.3) for i in range(2)], Probe(batches=batches())
    for readout in (0, -1, 10_000, True, 2.5):
        with pytest.raises(InputError, match=r"readout is .*, but must be a whole number in \(0, "):
            select_neurons(parents, probe, readout=readout)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"readout is 5, but the last layer '2\.weight' is dense"):
        select_neurons([network(0), network(1)], probe, readout=5)
