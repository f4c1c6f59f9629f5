"""torch.compile (inductor) on sparse and dense networks: a step of each way in turn, and how often it
compiles while the topology changes.

    python benchmarks/compiled.py                  # 784-1000-1000-1000-10, epsilon 20: two minutes
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import regraft
from _common import options, ratio, set_threads, write_figures
from interleaved import timings
from regraft import models

BATCH = 100


def network(spec: str, epsilon: float | None) -> nn.Module:
    """The network, dense where ``epsilon`` is None."""
    torch.manual_seed(0)
    model = models.build(spec)
    if epsilon is not None:
        regraft.sparsify(model, epsilon=epsilon, generator=torch.Generator().manual_seed(0))
    return model.train()


def step_of(model: nn.Module, forward: Callable[..., Any], x: torch.Tensor, y: torch.Tensor) -> Any:
    """One training step, and the optimizer that it uses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step, optimizer


def main() -> None:
    """Print the table."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("--model", default="mlp:784-1000-1000-1000-10")
    parser.add_argument("--epsilon", type=float, default=20)
    parser.add_argument("--updates", type=int, default=10, help="changes of topology (default 10)")
    args = parser.parse_args()
    set_threads(args.threads)
    torch.manual_seed(1)
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))

    jobs, seconds = {}, {}
    compiled: dict[str, Any] = {}
    for kind, epsilon in (("dense", None), ("sparse", args.epsilon)):
        for way in ("as it is", "compiled"):
            model = network(args.model, epsilon)
            forward = torch.compile(model) if way == "compiled" else model
            step, optimizer = step_of(model, forward, x, y)
            start = time.perf_counter()
            step()
            seconds[f"{kind}, {way}"] = time.perf_counter() - start
            jobs[f"{kind}, {way}"] = step
            compiled[f"{kind}, {way}"] = (forward, optimizer)

    counters = torch._dynamo.utils.counters["stats"]
    before = counters["unique_graphs"]
    forward, optimizer = compiled["sparse, compiled"]
    evolver = regraft.Evolve("magnitude", "gradient", 0.3, every=2).attach(forward, optimizer)
    for _ in range(2 * args.updates):
        with evolver.watch():
            jobs["sparse, compiled"]()
        evolver.step()
    again = int(counters["unique_graphs"] - before)

    done = timings(jobs, "dense, as it is", rounds=args.rounds)
    print(f"{args.model}, batch {BATCH}, {args.threads} thread(s)")
    print(f"graphs compiled anew during {len(evolver.history)} changes of topology: {again}")
    for name, timing in done.items():
        print(
            f"{name:18} {1e3 * timing.median:7.2f} ms a step, faster than dense {ratio(timing._asdict())}, "
            f"first step {seconds[name]:.1f} s"
        )
    write_figures(
        args.json, {"again": again, "first": seconds, "steps": {n: t._asdict() for n, t in done.items()}}
    )


if __name__ == "__main__":
    main()
