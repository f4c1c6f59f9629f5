"""Two processes with seeds alike choose the same topology and keep the same weights."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

WORKER = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from regraft import Topology, sparsify
from regraft.evolve import Evolve, RandomGrowth

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
sparsify(model, density=0.3, generator=torch.Generator().manual_seed(0))
wrapped = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.01)
evolver = Evolve(grow=RandomGrowth("fan_in"), every=2, generator=torch.Generator().manual_seed(7))
evolver.attach(wrapped, optimizer)
own = torch.Generator().manual_seed(100 + rank)  # each rank has its own data
for _ in range(8):
    optimizer.zero_grad()
    wrapped(torch.randn(5, 20, generator=own)).square().mean().backward()
    optimizer.step()
    evolver.step()
done = {"state": model.state_dict(), "names": list(evolver.history[0].dropped), "updates": evolver.updates}
torch.save(done, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without torch.distributed")
def test_two_ranks_stay_alike(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        errors = [p.communicate(timeout=120)[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    assert [p.returncode for p in processes] == [0, 0], errors
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert a["updates"] == 4
    assert a["names"] == ["0.weight", "2.weight"]
    for key, value in a["state"].items():
        assert value.equal(b["state"][key]), key
