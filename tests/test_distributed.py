"""Data-parallel training of sparse models by two real processes, with every grow rule."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import regraft
from regraft.errors import InputError
from regraft.evolve import GROWS
from regraft.evolve.together import decided, gathered, group_of

WORKER = Path(__file__).parent / "workers" / "data_parallel.py"
pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo"
)


def worker_module():
    spec = importlib.util.spec_from_file_location("data_parallel", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = worker_module()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes ended with, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), "2", str(folder)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_every_grow_rule_has_its_case():
    assert set(GROWS) == {"random" if name == "set" else name for name in worker.CASES} - {
        "rigl", "rigl-accumulated", "inner-product-probe"
    } | {"gradient"}  # fmt: skip


@pytest.mark.parametrize("name", worker.CASES)
def test_two_processes_train_one_network(ranks, name):
    """From starts and seeds that differ, both end where one process with all data and rank 0's seed ends."""
    first, second = (done[name, False] for done in ranks)
    alone = worker.build(seed=0)
    start = alone.state_dict()["0.weight.index"].clone()
    grow, options = worker.CASES[name]
    expected = worker.train(alone, alone, grow, worker.batch, **options)

    assert not torch.equal(start, worker.build(seed=1)[0].weight.index), "the starts differ"
    assert not torch.equal(start, alone[0].weight.index), "the topology has changed"
    assert first["dropped"] == second["dropped"] == expected["dropped"]
    assert len(expected["dropped"]) == worker.STEPS // 3
    assert min(expected["dropped"]) > 0
    assert first["regrown"] == second["regrown"] == expected["regrown"]
    for key, value in expected["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        torch.testing.assert_close(first["state"][key], value)
    torch.testing.assert_close(first["momentum"], expected["momentum"])


@pytest.mark.parametrize("name", worker.UNEQUAL)
def test_two_processes_stay_alike_on_unequal_shares(ranks, name):
    """2 and 6 samples a step; the processes draw other numbers of random numbers where they look at some."""
    first, second = (done[name, True] for done in ranks)
    assert first["dropped"] == second["dropped"]
    assert min(first["dropped"]) > 0
    for part in ("state", "momentum"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    assert not torch.equal(first["state"]["0.weight.index"], worker.build(seed=0)[0].weight.index)


def test_accumulating_gradients_over_micro_batches_is_one_larger_batch():
    whole, parts = worker.build(seed=0), worker.build(seed=0)
    worker.train(whole, whole, "gradient", worker.batch, watch=True)
    worker.train(parts, parts, "gradient", worker.batch, watch=True, accumulate=4)
    assert regraft.Topology.of(whole) == regraft.Topology.of(parts)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class TestOneProcess:
    """What the helpers of several processes do where there is one."""

    @pytest.fixture
    def alone(self, tmp_path):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
        yield
        dist.destroy_process_group()

    def test_nothing_travels(self, alone):
        wrapped = torch.nn.parallel.DistributedDataParallel(worker.build(seed=0))
        assert group_of(wrapped, None) is None
        assert group_of(wrapped, dist.group.WORLD) is None

    def test_the_group_of_a_compiled_wrapper_is_found(self, alone, monkeypatch):
        wrapped = torch.nn.parallel.DistributedDataParallel(worker.build(seed=0))
        monkeypatch.setattr("regraft.evolve.together.processes", lambda: 2)
        monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
        assert group_of(torch.compile(wrapped, backend="eager"), None) is wrapped.process_group

    def test_a_gradient_that_only_some_have_seen_is_refused(self, alone, monkeypatch):
        def gather(shapes, mine, group):
            shapes[:] = [mine, {"a": []}]

        monkeypatch.setattr(dist, "all_gather_object", gather)
        with pytest.raises(InputError, match="only some processes have seen a gradient of 'a'"):
            gathered({"a": [(torch.ones(2), torch.ones(2))]}, ["a"], dist.group.WORLD)

    def test_a_group_without_this_process_is_refused(self, alone, monkeypatch):
        monkeypatch.setattr("regraft.evolve.together.processes", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda group: -1)
        with pytest.raises(InputError, match="not in the group"):
            regraft.Evolve().attach(worker.build(seed=0), group=dist.group.WORLD)

    def test_choices_and_gradients_are_ones_own(self):
        choice = torch.arange(3)
        assert decided(choice, None) is choice
        assert gathered({"a": [(choice, choice)]}, ["a"], None) == {"a": [(choice, choice)]}

    def test_a_group_of_one_gathers_what_it_has(self, alone):
        pairs = [
            (torch.ones(2, 3), torch.zeros(4, dtype=torch.float64)),
            (torch.ones(1, 3), torch.ones(2).double()),
        ]
        found = gathered({"a": pairs}, ["a", "b"], dist.group.WORLD)
        assert list(found) == ["a"]
        torch.testing.assert_close(found["a"], pairs)
        assert decided(torch.arange(4), dist.group.WORLD).tolist() == [0, 1, 2, 3]
