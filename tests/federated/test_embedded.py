"""Rounds in one process: they learn, resume, survive lost and failing clients, and count their bytes."""

from __future__ import annotations

import copy

import pytest
import torch

from regraft import Topology, load, sparsify
from regraft.errors import FileError, InputError, MismatchError
from regraft.federated import (
    IID,
    ByClass,
    Federation,
    Local,
    Plan,
    SelectNeurons,
    SparseMerge,
    Update,
    encode,
    federate,
    local_round,
    partitioned,
)
from regraft.models import build

LOCAL = Local(epochs=2, batch_size=10, lr=0.1)


@pytest.fixture
def clients(split, generator):
    return partitioned(split(200), IID(), 4, generator)


def test_it_learns_and_keeps_the_density(net, clients, split):
    model = net(density=0.5)
    after = federate(model, clients, Federation(SparseMerge(), LOCAL, rounds=6), test=split(300, seed=1))
    assert after.history[-1]["test_accuracy"] > 0.7
    assert {row["connections"] for row in after.history} == {Topology.of(model).nnz}
    assert Topology.of(after.model) != Topology.of(model)


def test_one_round_equals_merging_the_local_rounds(net, clients, equal):
    model = net()
    after = federate(model, clients, Federation(SparseMerge(), LOCAL, rounds=1, seed=4))
    under_way = SparseMerge().begin(model)
    for number, split in enumerate(clients):
        under_way.add(local_round(model, split, LOCAL, round=0, client=str(number), seed=4))
    assert equal(after.model, under_way.finish())
    assert equal(model, net())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_interrupted_federation_goes_on_to_the_same_bits(net, clients, split, equal, tmp_path, dtype):
    rounds = Federation(SparseMerge(), LOCAL, rounds=5, fraction=0.6, dtype=dtype)
    whole = federate(net(), clients, rounds, test=split())

    def kill(state):
        if state.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(net(), clients, rounds, test=split(), folder=tmp_path, on_round=kill)
    resumed = federate(net(), clients, rounds, test=split(), folder=tmp_path, resume=True)
    assert equal(whole.model, resumed.model)
    plain = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in s.history] for s in (whole, resumed)
    ]
    assert plain[0] == plain[1]
    assert len(list(tmp_path.iterdir())) == 2  # old rounds are forgotten


def test_a_folder_is_used_for_one_federation_only(net, clients, tmp_path):
    federate(net(), clients, Federation(SparseMerge(), LOCAL, rounds=1), folder=tmp_path)
    with pytest.raises(FileError, match="pass resume to go on"):
        federate(net(), clients, Federation(SparseMerge(), LOCAL, rounds=1), folder=tmp_path)
    with pytest.raises(MismatchError, match="with seed = 0, but now it is 1"):
        federate(
            net(), clients, Federation(SparseMerge(), LOCAL, rounds=1, seed=1), folder=tmp_path, resume=True
        )


def test_bytes_are_those_of_the_messages(net, clients):
    model = sparsify(build("mlp:6-80-60-3"), density=0.3)
    after = federate(model, clients, Federation(SparseMerge(), Local(evolve="none"), rounds=2))
    update = Update.of(model, round=0, client="0", examples=50)
    plan, base = Plan.of(model), Topology.of(model)
    first, second = after.history
    assert first["upload_bytes"] == 4 * len(encode(update, plan, base=base))
    assert first["download_bytes"] > second["download_bytes"]  # only changes are sent from then on
    half = federate(
        model, clients, Federation(SparseMerge(), Local(evolve="none"), rounds=1, dtype="float16")
    )
    assert half.history[0]["upload_bytes"] == first["upload_bytes"] - 8 * (update.nnz + 143)


def test_lost_updates_are_not_waited_for(net, clients):
    after = federate(net(), clients, Federation(SparseMerge(), LOCAL, rounds=4, lost=0.5, seed=1))
    lost = sum(row["lost"] for row in after.history)
    assert 0 < lost < 16
    assert all(row["accepted"] + row["lost"] == 4 for row in after.history)


def test_a_client_that_fails_is_left_out(net, clients, split):
    broken = copy.copy(clients)
    broken[2] = type(clients[2])(clients[2].x * 1e30, clients[2].y)
    after = federate(net(), broken, Federation(SparseMerge(), LOCAL, rounds=1))
    assert (after.history[0]["failed"], after.history[0]["accepted"]) == (1, 3)


def test_when_all_clients_fail_the_last_good_model_is_kept(net, clients, equal, tmp_path):
    model = net()
    broken = [type(c)(c.x * 1e30, c.y) for c in clients]
    rounds = Federation(SparseMerge(), LOCAL, rounds=3)
    with pytest.raises(InputError, match=r"0 usable updates, but needs 1.*diverged.*round-000000"):
        federate(model, broken, rounds, folder=tmp_path)
    assert equal(load(tmp_path / "round-000000.safetensors", into=net(3)), model)


def test_neurons_are_selected_in_one_shot(net, clients, split):
    local = Local(epochs=5, lr=0.1, unit_score="activity", evolve="none")
    after = federate(net(), clients, Federation(SelectNeurons(), local, rounds=1), test=split())
    assert after.history[0]["accepted"] == 4


def test_a_part_of_the_clients_is_asked(net, clients):
    after = federate(net(), clients, Federation(SparseMerge(), LOCAL, rounds=3, fraction=0.5))
    assert [row["clients"] for row in after.history] == [2, 2, 2]


def test_the_servers_memory_does_not_grow_with_the_clients(net, split, generator):
    def held(count):
        strategy = SparseMerge().begin(net())
        for number in range(count):
            update = Update.of(net(number % 7), round=0, client=str(number), examples=3)
            assert strategy.add(update) is None
        folded = strategy._merger._folded
        return sum(t.numel() for part in folded.values() for t in (part.total, part.count))

    assert held(35) == held(14)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"rounds": 0}, "rounds is 0"), ({"fraction": 0}, "fraction is 0"), ({"lost": 1.0}, "lost 1.0"),
        ({"dtype": "f8"}, "unknown type of values"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(choice, sentence):
    with pytest.raises(InputError, match=sentence):
        Federation(SparseMerge(), LOCAL, **choice)


def test_no_client(net):
    with pytest.raises(InputError, match="at least one client"):
        federate(net(), [], Federation(SparseMerge(), LOCAL))


def test_folders_that_hold_no_state(net, clients, tmp_path):
    rounds = Federation(SparseMerge(), LOCAL, rounds=1)
    (tmp_path / "round-000003.safetensors").write_bytes(b"junk")
    with pytest.raises(FileError, match="not a network file"):
        federate(net(), clients, rounds, folder=tmp_path, resume=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="cannot make the folder"):
        federate(net(), clients, rounds, folder=tmp_path / "file" / "x")


def test_clients_of_one_class_each_can_be_partitioned(net, split, generator):
    parts = partitioned(split(300), ByClass(1), 3, generator)
    after = federate(net(density=0.6), parts, Federation(SparseMerge(), LOCAL, rounds=2), test=split())
    assert torch.isfinite(torch.tensor(after.history[-1]["test_loss"]))
