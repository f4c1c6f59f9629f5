"""All rules at once: what comes out is what merging and evaluating one by one gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft import measure, models, sparsify
from regraft.data import Split
from regraft.errors import InputError, MismatchError
from regraft.evolve import normalise_rows
from regraft.merging import RULES, merge
from regraft.merging.grid import Evaluated, merge_grid
from regraft.topology import Topology
from regraft.train import seeds

NAMES = tuple(RULES)


def network(seed: int, sparsity: float, activation: str = "sigmoid", sizes: str = "30-20-12-4") -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    made = models.build(f"mlp:{sizes}", activation=activation, generator=g)
    model = sparsify(made, density=1 - sparsity, allocate="uniform", generator=g)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (1.0 if name.endswith("bias") else 2.0))
    return model


def samples(n: int = 150, features: int = 30, classes: int = 4) -> Split:
    g = torch.Generator().manual_seed(9)
    return Split(torch.randn(n, features, generator=g), torch.arange(n) % classes)


def plain(networks: list[nn.Module], test: Split, found: Evaluated, density: object) -> nn.Module:
    generator = seeds.stream(5, "merge")
    return merge(networks, found.weights, found.biases, density, generator=generator)  # type: ignore[arg-type]


def near(outputs: torch.Tensor, within: float = 1e-5) -> int:
    """Samples whose two largest outputs are too close for rounding to leave their order alone."""
    top = outputs.topk(2, dim=1).values
    return int((top[:, 0] - top[:, 1] < within).sum())


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize(("sparsity", "count"), [(0.0, 2), (0.3, 2), (0.7, 3), (0.95, 2), (0.95, 5)])
def test_it_equals_merging_and_evaluating_one_by_one(sparsity, count, activation) -> None:
    networks, test = [network(i, sparsity, activation) for i in range(count)], samples()
    found = merge_grid(networks, test, then=((), ("prune",)), generator=seeds.stream(5, "merge"))
    assert [(m.then, m.weights, m.biases) for m in found] == [
        (then, w, b) for then in ((), ("prune",)) for w in NAMES for b in NAMES
    ]
    for m in found:
        model = plain(networks, test, m, "keep" if m.then else None)
        expected, topology = measure.evaluate(model, test), Topology.of(model)
        ties = near(model(test.x))
        constant = m.weights == "nothing"  # one output for all samples, computed once: no tie is broken
        assert abs(m.accuracy - expected["accuracy"]) * len(test) <= (0 if constant else ties)
        assert m.loss == pytest.approx(expected["loss"], rel=2e-5)
        assert m.density == topology.density
        assert m.nnstd == pytest.approx([topology.nnstd(Topology.of(n)) for n in networks], abs=1e-12)


def test_normalised_and_pruned_in_the_order_asked_for() -> None:
    networks, test = [network(i, 0.6) for i in range(3)], samples()
    ways = (("normalise",), ("prune", "normalise"))
    found = merge_grid(networks, test, weights=["addition"], biases=["average"], then=ways)
    for m in found:
        model = merge(networks, "addition", "average", "keep" if "prune" in m.then else None)
        normalise_rows(model)
        assert m.loss == pytest.approx(measure.evaluate(model, test)["loss"], rel=1e-5)
    other = merge_grid(
        networks, test, weights=["addition"], biases=["average"], then=[("normalise", "prune")]
    )[0]
    assert other.density == found[1].density == Topology.of(networks[0]).density
    assert other.loss != found[1].loss


def test_equal_weights_are_pruned_as_merge_prunes_them() -> None:
    """All magnitudes are equal, so that hashes alone decide which stay."""
    networks, test = [network(i, 0.9) for i in range(2)], samples()
    for model in networks:
        for name, p in model.named_parameters():
            if name.endswith("values"):
                p.data = p.data.sign() * 0.5
    for m in merge_grid(networks, test, biases=["average"], generator=seeds.stream(5, "merge")):
        topology = Topology.of(plain(networks, test, m, "keep"))
        assert m.nnstd == pytest.approx([topology.nnstd(Topology.of(n)) for n in networks], abs=1e-12)


def test_a_network_merged_with_itself_is_itself() -> None:
    one, test = network(0, 0.8), samples()
    expected = measure.evaluate(one, test)
    for m in merge_grid([one, one], test, weights=["magnitude", "random", "average"], biases=["average"]):
        assert (m.accuracy, m.nnstd) == (expected["accuracy"], (0.0, 0.0))
        assert m.loss == pytest.approx(expected["loss"], rel=1e-6)


def test_more_samples_than_one_batch_and_dense_layers() -> None:
    g = torch.Generator().manual_seed(0)
    networks = []
    for i in range(2):
        model = network(i, 0.5, "relu")
        model.fc3 = nn.Linear(12, 4)
        nn.init.normal_(model.fc3.weight, generator=g)
        networks.append(model)
    test = samples(2300)
    for m in merge_grid(networks, test, weights=["average"], biases=["addition", "nothing"]):
        expected = measure.evaluate(merge(networks, m.weights, m.biases), test)
        assert m.loss == pytest.approx(expected["loss"], rel=1e-5)
        assert m.accuracy == pytest.approx(expected["accuracy"], abs=2 / 2300)


def test_what_it_cannot_take_is_said() -> None:
    a, b, test = network(0, 0.5), network(1, 0.5), samples()
    with pytest.raises(InputError, match=r"unknown weight rule 'avarage'.*average"):
        merge_grid([a, b], test, weights=["avarage"])
    with pytest.raises(InputError, match=r"unknown step after merging 'prunes'.*prune"):
        merge_grid([a, b], test, then=[("prunes",)])
    with pytest.raises(InputError, match="no network"):
        merge_grid([], test)
    with pytest.raises(InputError, match=r"perceptrons.*'conv'"):
        merge_grid([_convolution(), _convolution()], test)
    with pytest.raises(InputError, match="no weight of the networks is sparse"):
        merge_grid([nn.Sequential(nn.Linear(30, 4)) for _ in range(2)], test)
    with pytest.raises(MismatchError, match="share one architecture"):
        merge_grid([a, network(1, 0.5, sizes="30-21-12-4")], test)
    with pytest.raises(InputError, match=r"nn\.Sequential"):
        merge_grid([nn.Linear(30, 4)] * 2, test)
    b.get_parameter("fc1.weight.values").data[0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        merge_grid([a, b], test)


def _convolution() -> nn.Module:
    model = nn.Sequential()
    model.add_module("conv", nn.Conv1d(1, 1, 1))
    return model
