"""One of several processes that train sparse models with DistributedDataParallel, for test_distributed.py.

Arguments: rank, number of processes, folder. Writes ``<folder>/<rank>.pt``: the end of each case.
"""

import contextlib
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import regraft
from regraft.evolve import Gradient, InnerProduct
from regraft.probe import Probe

STEPS = 24
# case: grow rule, options of train()
CASES = {
    "set": ("random", {}),
    "rigl": ("gradient", {"watch": True}),
    "rigl-accumulated": (Gradient(batches=2), {"watch": True, "accumulate": 2}),
    "inner-product": (InnerProduct(samples=None), {"watch": True}),
    "inner-product-probe": (InnerProduct(samples=None), {"probe": True}),
}
# the processes see unequal numbers of samples, or draw some of them: no single process does the same
UNEQUAL = {
    "set": ("random", {}),
    "rigl": ("gradient", {"watch": True}),
    "inner-product-sampled": (InnerProduct(samples=5), {"watch": True}),
}


def build(seed: int) -> nn.Module:
    """A sparse network; the seed decides values and topology, not the counts."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    return regraft.sparsify(model, 0.3, generator=torch.Generator().manual_seed(seed))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The data of all processes together."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (8,), generator=generator)


def share(step: int, rank: int, processes: int, *, unequal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What one process sees of it."""
    x, y = batch(step)
    sizes = [2, 6] if unequal and processes == 2 else [8 // processes] * processes
    return x.split(sizes)[rank], y.split(sizes)[rank]


def train(model, forward, grow, data, *, seed=0, watch=False, probe=False, accumulate=1):
    """SGD with a change of topology after each third step; ``data(step)`` gives a batch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    evolver = regraft.Evolve("magnitude", grow, 0.3, every=3, generator=generator)
    evolver.attach(forward, optimizer)
    for step in range(STEPS):
        optimizer.zero_grad()
        with evolver.watch() if watch else contextlib.nullcontext():
            parts = list(zip(*(t.chunk(accumulate) for t in data(step)), strict=True))
            for i, (x, y) in enumerate(parts):
                last = i == len(parts) - 1 or not isinstance(forward, DistributedDataParallel)
                with contextlib.nullcontext() if last else forward.no_sync():
                    (nn.functional.cross_entropy(forward(x), y) / len(parts)).backward()
        optimizer.step()
        evolver.step(Probe(loss=nn.functional.cross_entropy, batches=[data(step)]) if probe else None)
    return {
        "state": model.state_dict(),
        "momentum": optimizer.state_dict()["state"],
        "dropped": [done.total for done in evolver.history],
        "regrown": [sum(done.regrown.values()) for done in evolver.history],
    }


def main(rank: int, processes: int, folder: Path) -> None:
    """Each case from this process's own start and seed, on its share of the data."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
    done = {}
    for unequal, cases in ((False, CASES), (True, UNEQUAL)):
        for name, (grow, options) in cases.items():
            model = build(seed=rank)
            model(
                batch(0)[0]
            )  # kernels that remember the topology remember one that is about to be overwritten
            wrapped = DistributedDataParallel(model)

            def data(step, unequal=unequal):
                return share(step, rank, processes, unequal=unequal)

            done[name, unequal] = train(model, wrapped, grow, data, seed=rank, **options)
    torch.save(done, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
