"""Flower's engine: bit for bit the one in this process; nodes that die, lie or are of another kind."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.federated.nets import network, samples

pytest.importorskip("flwr", reason="Flower is not installed (extra federated)")

from flwr.app import ArrayRecord, MetricRecord, RecordDict
from tests.federated.flower.loopback import Loopback, context, train_messages

from regraft import Topology
from regraft.errors import InputError, MismatchError
from regraft.federated import Federation, Local, SparseMerge, Trust, decode, federate, wire
from regraft.federated.flower import FlowerStrategy, client_app, records, server_app

PARTS = [samples(20 + 5 * i, seed=i) for i in range(4)]
TEST = samples(100, seed=99)
FEDERATION = Federation(SparseMerge(min_fit=2), Local(batch_size=10, lr=0.1), rounds=3, seed=7)


def nodes(federation=FEDERATION, count=4, order=1, density=0.3):
    """A grid of nodes that run the app; each builds its own model, of other values."""
    app = client_app(
        lambda context: network(50, density), lambda c: PARTS[int(c.node_config["partition-id"])], federation
    )
    return Loopback(app, count, order)


def run(grid, federation=FEDERATION, timeout=60.0, clients=4, **more):
    strategy = FlowerStrategy(network(0), federation, clients=clients, test=TEST, wait=0.0, **more)
    return strategy, strategy.start(grid, timeout=timeout)


def timeless(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"dtype": "float16"},
        {"fraction": 0.5},
        {"lost": 0.3},
        {"strategy": SparseMerge("magnitude", by_examples=False)},
        {"strategy": SparseMerge(align="weights")},
    ],
    ids=lambda change: "-".join(change) or "usual",
)
def test_the_model_and_the_history_are_those_of_one_process(change, order, equal):
    federation = dataclasses.replace(FEDERATION, **change)
    here = federate(network(0), PARTS, federation, test=TEST)
    strategy, result = run(nodes(federation, order=order), federation)
    assert equal(strategy.state.model, here.model)
    assert timeless(strategy.state.history) == timeless(here.history)
    again = decode(records.message_of(result.arrays), network(3)).put(network(4))
    assert equal(again, here.model)


def test_the_model_passed_in_and_the_global_generator_are_left_alone(equal):
    model, state = network(0), torch.get_rng_state()
    FlowerStrategy(model, FEDERATION, clients=4, wait=0.0).start(nodes())
    assert equal(model, network(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_from_the_second_round_on_changes_are_sent(equal):
    grid = nodes()
    run(grid)
    flags = [records.message_of(m.content[records.ARRAYS])[6] for m in train_messages(grid)]
    assert flags == [0] * 4 + [1] * 8


def test_a_node_that_lost_its_memory_is_sent_everything_in_the_next_round():
    grid = nodes()

    def forget(node, reply):
        if node == 101:
            grid.nodes[101] = context(1, 4)
        return reply

    grid.spoil = forget
    strategy, _ = run(grid)
    rejected = [row["rejected"] for row in strategy.state.history]
    assert rejected == [{}, {"base": 1}, {}]
    assert [row["accepted"] for row in strategy.state.history] == [4, 3, 4]


def test_silent_nodes_are_given_up_and_the_round_is_that_of_the_others(equal):
    grid = nodes()
    grid.dead, grid.broken = {102}, {103}
    federation = dataclasses.replace(FEDERATION, rounds=1)
    strategy, _ = run(grid, federation, timeout=0.3)
    row = strategy.state.history[0]
    assert (row["accepted"], row["lost"], row["rejected"]) == (2, 2, {})
    from regraft.federated import local_round

    under_way = federation.strategy.begin(network(0), 0)
    for i in range(2):
        under_way.add(local_round(network(0), PARTS[i], federation.local, round=0, client=str(i), seed=7))
    assert equal(strategy.state.model, under_way.finish())


def test_a_node_that_leaves_before_it_says_who_it_is_is_asked_again():
    grid = nodes()
    grid.broken, grid.breaks = {103}, "query"

    def back(state):
        grid.broken = set()

    strategy, _ = run(grid, on_round=back)
    assert [row["accepted"] for row in strategy.state.history] == [3, 4, 4]
    assert [row["lost"] for row in strategy.state.history] == [1, 0, 0]


def test_too_few_answers_end_the_run_with_the_last_model_kept(tmp_path):
    grid = nodes()
    grid.dead = {100, 102, 103}
    with pytest.raises(InputError, match=r"round 0 has 1 usable updates, but needs 2.*round-000000"):
        run(grid, timeout=0.2, folder=tmp_path)


def test_a_server_that_starts_again_goes_on_from_its_last_round(tmp_path, equal):
    whole, _ = run(nodes())

    def killed(state):
        if state.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(nodes(), folder=tmp_path, on_round=killed)
    grid = nodes()
    strategy, _ = run(grid, folder=tmp_path)
    assert len(train_messages(grid)) == 4
    assert equal(strategy.state.model, whole.state.model)
    assert [row["test_accuracy"] for row in strategy.state.history] == [
        row["test_accuracy"] for row in whole.state.history
    ]


def test_a_folder_of_another_federation_is_refused(tmp_path):
    run(nodes(), folder=tmp_path)
    with pytest.raises(MismatchError, match="seed"):
        run(nodes(), dataclasses.replace(FEDERATION, seed=8), folder=tmp_path)


def garbage(node, reply):
    if node == 101 and records.ARRAYS in reply.content:
        reply.content[records.ARRAYS] = records.arrays_of(b"rgfu" + bytes(60))
    if node == 102 and records.ARRAYS in reply.content:
        reply.content[records.ARRAYS] = ArrayRecord()
    return reply


def test_what_is_no_update_is_turned_away_by_name():
    grid = nodes()
    grid.spoil = garbage
    strategy, _ = run(grid, dataclasses.replace(FEDERATION, rounds=1))
    assert strategy.state.history[0]["rejected"] == {"corrupt": 1, "version": 1}
    assert strategy.state.history[0]["accepted"] == 2


def test_a_nodes_training_that_fails_is_told_and_the_round_goes_on():
    def bad(context):
        i = int(context.node_config["partition-id"])
        part = samples(20, i)
        if i == 1:
            part.x.mul_(1e25)
        return part

    app = client_app(lambda context: network(50), bad, FEDERATION)
    strategy, _ = run(Loopback(app, 4))
    assert [row["failed"] for row in strategy.state.history] == [1, 1, 1]
    assert [row["accepted"] for row in strategy.state.history] == [3, 3, 3]


def test_nodes_of_another_architecture_are_left_out_by_name():
    with pytest.raises(InputError, match=r"0 nodes can take part, but a round needs 2.*another architecture"):
        run(nodes(density=None))


def test_nodes_of_another_version_are_left_out_by_name(monkeypatch):
    grid = nodes()
    app = grid.app
    monkeypatch.setattr(wire, "VERSION", 2)
    told = app(question(), grid.nodes[100]).content[records.CONFIG]
    monkeypatch.undo()

    def other(node, reply):
        if node == 100:
            reply.content[records.CONFIG] = told
        return reply

    grid.spoil = other
    strategy, _ = run(grid, dataclasses.replace(FEDERATION, rounds=1))
    assert strategy.state.history[0]["accepted"] == 3
    assert "format 2" in strategy._roster.refused[100]


def question():
    from flwr.app import Message

    return Message(RecordDict(), dst_node_id=100, message_type="query")


def test_a_node_without_a_name_or_beyond_the_last_is_left_out():
    grid = nodes()
    grid.nodes[100] = context(None, 4)
    strategy, _ = run(grid, clients=3)
    assert strategy.state.history[0]["accepted"] == 2
    assert "partition-id" in strategy._roster.refused[100]
    assert "none of 0 to 2" in strategy._roster.refused[103]


def test_a_forged_number_of_examples_is_turned_away():
    strategy, _ = run(nodes())
    assert strategy.state.history[0]["rejected"] == {}

    def forge(node, reply):
        if node == 101 and records.CONFIG in reply.content:
            reply.content[records.CONFIG]["examples"] = 9
        return reply

    grid = nodes()
    grid.spoil = forge
    strategy, _ = run(grid, dataclasses.replace(FEDERATION, rounds=1))
    assert strategy.state.history[0]["rejected"] == {"examples": 1}


def test_it_starts_from_other_arrays_and_calls_back(equal):
    start = FlowerStrategy(network(9), FEDERATION, clients=4).arrays
    strategy = FlowerStrategy(network(0), FEDERATION, clients=4, wait=0.0)
    seen = []

    def evaluate(number, arrays):
        seen.append((number, type(arrays)))
        return MetricRecord({"rounds": number})

    result = strategy.start(nodes(), start, num_rounds=2, evaluate_fn=evaluate)
    assert equal(
        strategy.state.model, federate(network(9), PARTS, dataclasses.replace(FEDERATION, rounds=2)).model
    )
    assert seen == [(1, ArrayRecord), (2, ArrayRecord)]
    assert result.evaluate_metrics_serverapp[2]["rounds"] == 2
    assert result.train_metrics_clientapp[1]["accepted"] == 4


def test_the_server_app_runs_all_rounds():
    made = []

    def strategy_of(context):
        made.append(FlowerStrategy(network(0), FEDERATION, clients=4, wait=0.0))
        return made[0]

    server_app(strategy_of)(nodes(), context(0, 4))
    assert made[0].state.round == 3


@pytest.mark.parametrize("clients", [0, -1, 2.5, True])
def test_a_number_of_clients_that_cannot_be(clients):
    with pytest.raises(InputError, match="clients is"):
        FlowerStrategy(network(0), FEDERATION, clients=clients)


def test_records_of_something_else_are_rejected():
    import numpy as np
    from flwr.app import Array

    for arrays in (
        ArrayRecord(), ArrayRecord({"update": Array(np.zeros(3))}),
        ArrayRecord({"update": Array(dtype="uint8", shape=(3,), stype="numpy.ndarray", data=b"nonsense")}),
    ):  # fmt: skip
        with pytest.raises(InputError, match="array"):
            records.message_of(arrays)
    with pytest.raises(InputError, match=r"regraft\.config"):
        records.config_of(RecordDict())


def test_a_remembered_topology_of_another_model_is_not_used():
    state = RecordDict()
    assert records.remembered(state, network(0)) is None
    records.remember(state, network(0))
    assert records.remembered(state, network(1)) == Topology.of(network(0))
    assert records.remembered(state, torch.nn.Linear(2, 2)) is None
    name = next(iter(Topology.of(network(0))))
    import numpy as np
    from flwr.app import Array

    state[records.TOPOLOGY][name] = Array(np.array([10**6]))
    assert records.remembered(state, network(0)) is None


def test_updates_that_are_not_believed_are_turned_away():
    federation = dataclasses.replace(FEDERATION, strategy=SparseMerge(trust=Trust(largest=1e-6)), rounds=1)
    with pytest.raises(InputError, match="0 usable updates"):
        run(nodes(federation), federation)
