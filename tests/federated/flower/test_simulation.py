"""Flower's simulation: the same bits as in one process. Needs Ray, which is heavy: see ``make flower``."""

from __future__ import annotations

import pytest
from tests.federated.nets import network, samples

pytest.importorskip("flwr", reason="Flower is not installed (extra federated)")

from regraft.errors import FileError, InputError, MissingDependency
from regraft.federated import Federation, Local, SparseMerge, federate
from regraft.federated.flower import simulate

PARTS = [samples(20, seed=i) for i in range(3)]
FEDERATION = Federation(SparseMerge(), Local(batch_size=10, lr=0.1), rounds=2)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"regraft\[federated-simulation\]"):
        simulate(network(0), PARTS, FEDERATION)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(InputError, match="at least one client"):
        simulate(network(0), [], FEDERATION)
    federate(network(0), PARTS, FEDERATION, folder=tmp_path)
    with pytest.raises(FileError, match="holds the state of a federation"):
        simulate(network(0), PARTS, FEDERATION, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_model_and_the_history_are_those_of_one_process(equal):
    pytest.importorskip("ray", reason="Ray is not installed (extra federated-simulation)")
    here = federate(network(0), PARTS, FEDERATION, test=samples(50, seed=9))
    there = simulate(network(0), PARTS, FEDERATION, test=samples(50, seed=9))
    assert equal(here.model, there.model)
    for a, b in zip(here.history, there.history, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
