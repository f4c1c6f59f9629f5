"""Data-parallel training of a sparse model by two real processes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

WORKER = Path(__file__).parent / "workers" / "data_parallel.py"


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo")
def test_two_processes_train_one_network(tmp_path):
    """Different starts become rank 0's (positions too), and both end where one process with all data ends."""
    processes = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), "2", str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))

    spec = importlib.util.spec_from_file_location("data_parallel", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    alone = worker.build(seed=0)
    start = alone.state_dict()["0.weight.index"].clone()
    worker.train(alone, alone, *worker.batch())

    assert not torch.equal(start, worker.build(seed=1)[0].weight.index), "the starts differ"
    assert not torch.equal(start, alone[0].weight.index), "the topology has changed"
    for name, expected in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected)
