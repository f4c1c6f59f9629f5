"""Controls: what each shares with the ticket, and that everything else is drawn evenly."""

import math
from collections import Counter

import pytest
import torch
from tests.prune.toys import make_normed, net, same, state

from regraft import Topology, prune
from regraft.errors import InputError, MismatchError
from regraft.scores import weights_of


def ticket():
    """A network with a convolution, and what magnitude keeps of it."""
    model = make_normed()
    return model, prune.upfront(model, score="magnitude", density=0.3, floor=2)


def counts(topology, dims):
    """Connections per unit of the given dimensions, by weight."""
    found = {}
    for name, c in topology.items():
        mask = torch.zeros(c.size).index_fill_(0, c.index, 1.0).view(c.shape)
        found[name] = mask.sum([d for d in range(mask.ndim) if d not in dims]).tolist()
    return found


@pytest.mark.parametrize(("within", "dims"), [("layer", ()), ("output", (0,)), ("input", (1,))])
def test_shuffling_keeps_the_counts_it_names(within, dims, generator):
    _, topology = ticket()
    other = prune.shuffled(topology, within=within, generator=generator)
    assert counts(other, dims) == counts(topology, dims)
    assert other != topology


def test_shuffling_over_the_network_keeps_the_total(generator):
    _, topology = ticket()
    other = prune.shuffled(topology, within="network", generator=generator)
    assert other.nnz == topology.nnz
    assert {n: c.nnz for n, c in other.items()} != {n: c.nnz for n, c in topology.items()}


@pytest.mark.parametrize(
    ("within", "outcomes"), [("network", math.comb(8, 2)), ("layer", 4 * 4), ("output", 4), ("input", 4)]
)
def test_each_outcome_is_equally_likely(within, outcomes, generator):
    """Two weights of four positions with two connections in all; chi-square at the 0.1 % level."""
    topology = Topology({"a": ((2, 2), torch.tensor([2])), "b": ((2, 2), torch.tensor([1]))})
    n = 40 * outcomes
    seen = Counter(
        tuple(
            tuple(c.index.tolist())
            for c in prune.shuffled(topology, within=within, generator=generator).values()
        )
        for _ in range(n)
    )
    assert len(seen) == outcomes
    chi2 = sum((k - 40) ** 2 / 40 for k in seen.values())
    freedom = outcomes - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom)


def test_an_unknown_level_is_named(generator):
    with pytest.raises(InputError, match="did you mean 'layer'"):
        prune.shuffled(ticket()[1], within="layers", generator=generator)


KEEPS_TOPOLOGY = {"random": False, "shuffled": False, "shuffled-units": False, "reinitialised": True}


def test_each_control_has_its_line():
    assert set(KEEPS_TOPOLOGY) == set(prune.CONTROLS)


@pytest.mark.parametrize("name", sorted(prune.CONTROLS))
def test_controls(name):
    model, topology = ticket()
    before = state(model)
    control = prune.control_by_name(name)
    made, again, other = (control(model, topology, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert same(state(model), before)
    assert Topology.of(made).nnz == topology.nnz
    assert (Topology.of(made) == topology) == KEEPS_TOPOLOGY[name]
    assert same(state(made), state(again))
    assert not same(state(made), state(other))
    for weight_name, weight in weights_of(made).items():
        dense = before[weight_name].flatten()[weight.index]
        assert torch.equal(weight.values, dense) != KEEPS_TOPOLOGY[name]
    assert torch.equal(made.head.bias, model.head.bias)
    assert made(torch.randn(3, 8)).shape == (3, 4)


def test_an_unknown_control_is_named():
    with pytest.raises(InputError, match="unknown control 'shuffle': did you mean 'shuffled"):
        prune.control_by_name("shuffle")


def test_a_network_that_does_not_fit_the_ticket_is_refused(generator):
    topology = prune.upfront(net(8, 3), score="magnitude", density=0.5)
    with pytest.raises(MismatchError, match=r"has shape \(3, 8\), but the model's has \(3, 9\)"):
        prune.control_by_name("random")(net(9, 3), topology, generator)
