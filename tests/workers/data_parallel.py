"""One of several processes that train one sparse model with DistributedDataParallel, for test_distributed.py.

Arguments: rank, number of processes, folder. Writes ``<folder>/<rank>.pt`` with the state it ends with.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import regraft


def build(seed: int) -> nn.Module:
    """A sparse network; the seed decides values and topology, not the counts."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    return regraft.sparsify(model, 0.3, generator=torch.Generator().manual_seed(seed))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """The data of all processes together."""
    generator = torch.Generator().manual_seed(99)
    x = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (8,), generator=generator)


def rewire(model: nn.Module, step: int) -> None:
    """Move a fifth of the connections, decided by a generator that all processes seed alike."""
    generator = torch.Generator().manual_seed(step)
    for weight in (model[0].weight, model[2].weight):
        k = weight.nnz // 5
        kept = weight.index[weight.values.abs().argsort()[k:]].sort().values
        grown = regraft.positions.sample_absent(weight.index, weight.size, k, generator)
        index = torch.cat([kept, grown]).sort().values
        weight.rewire(index, torch.zeros(k, dtype=torch.float64))


def train(model: nn.Module, forward: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Six steps of plain SGD with a change of topology after each second one."""
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for step in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()
        if step % 2:
            rewire(model, step)


def main(rank: int, processes: int, folder: Path) -> None:
    """Train on this process's share of the data, from its own start."""
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
    model = build(seed=rank)
    x, y = (tensor.chunk(processes)[rank] for tensor in batch())
    model(x)  # kernels that remember the topology remember the one that is about to be overwritten
    train(model, DistributedDataParallel(model), x, y)
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
