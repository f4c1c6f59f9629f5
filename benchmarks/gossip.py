"""Training without a server: accuracy on a ring, random rings and the full graph, with letters lost and late.

    python benchmarks/gossip.py --cells runs/gossip.jsonl --case ring-lost --seed 0   # one cell
    python benchmarks/gossip.py --cells runs/gossip.jsonl                             # every cell missing
    python benchmarks/gossip.py --cells runs/gossip.jsonl --table                     # the tables

Fashion-MNIST (REGRAFT_DATA), 16 nodes, Dirichlet 0.3, 784-100-10 at density 5 %.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _common as common
from regraft import Topology, models, sparsify
from regraft import data as datasets
from regraft.federated import Local, partition
from regraft.federated.gossip import Gossip, RandomRings, gossip
from regraft.train import seeds

NODES, DENSITY = 16, 0.05
LOCAL = Local(epochs=1, batch_size=20, lr=0.05, rate=0.2, together=True)
CASES = {
    "full": Gossip("full"),
    "full-lost": Gossip("full", lost=0.2),
    "ring": Gossip("ring"),
    "ring-lost": Gossip("ring", lost=0.2),
    "ring-lost-4": Gossip("ring", lost=0.2, exchanges=4),
    "ring-lost-late": Gossip("ring", lost=0.2, late=0.3),
    "random": Gossip("random"),
    "random-lost": Gossip("random", lost=0.2),
    "random2-lost": Gossip(RandomRings(2), lost=0.2),
    # a quarter of the nodes joins late, another leaves for good, another is away for a while
    "ring-lost-churn": Gossip(
        "ring", lost=0.2, away={
            1: range(10), 5: range(10), 2: range(25, 1000), 9: range(25, 1000), 4: range(12, 24),
            12: range(12, 24),
        },
    ),
    "alone": Gossip("ring", lost=1.0),
}  # fmt: skip


def cell(case: str, seed: int, rounds: int, per_class: int) -> dict[str, Any]:
    """One training, its last round and its accuracy over rounds."""
    data = datasets.load("fashion-mnist", per_class=per_class, seed=seed, flatten=True)
    parts = partition.partitioned(
        data.train, partition.Dirichlet(0.3), NODES, seeds.stream(seed, "partition")
    )
    generator = seeds.stream(seed, "network")
    model = sparsify(models.build("mlp:784-100-10", generator=generator), DENSITY, generator=generator)
    settings, local = replace(CASES[case], seed=seed), replace(LOCAL, rounds=rounds)
    started = time.perf_counter()
    done = gossip(model, parts, local, rounds, settings, test=data.test, evaluate_every=5)
    last = done.rounds[-1]
    return {
        "case": case, "seed": seed, "rounds": rounds, "per_class": per_class, "consensus": last.consensus,
        "nodes": statistics.mean(last.accuracy),
        "worst": min(last.accuracy), "nnstd": last.nnstd, "density": Topology.of(done.mean).density,
        "bytes": sum(r.bytes for r in done.rounds), "sent": sum(r.sent for r in done.rounds),
        "lost": sum(r.lost for r in done.rounds), "stale": sum(r.stale for r in done.rounds),
        "by_round": {r.round + 1: r.consensus for r in done.rounds if r.consensus is not None},
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def table(cells: list[dict[str, Any]]) -> None:
    """Mean and standard deviation over seeds, and the difference to the full graph, paired by seed."""
    reference = {c["seed"]: c["consensus"] for c in cells if c["case"] == "full"}
    print("| case | seeds | consensus | minus full | mean of nodes | worst node | NNSTD | MB a node |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        rows = [c for c in cells if c["case"] == case]
        if not rows:
            continue
        apart = [100 * (c["consensus"] - reference[c["seed"]]) for c in rows if c["seed"] in reference]
        words = [
            case, str(len(rows)), spread([100 * c["consensus"] for c in rows]), spread(apart, "+.2f"),
            spread([100 * c["nodes"] for c in rows]), spread([100 * c["worst"] for c in rows]),
            f"{statistics.mean(c['nnstd'] for c in rows):.3f}",
            f"{statistics.mean(c['bytes'] for c in rows) / NODES / 1e6:.2f}",
        ]  # fmt: skip
        print("| " + " | ".join(words) + " |")


def spread(numbers: list[float], form: str = ".2f") -> str:
    """``12.34 ± 0.56``, the standard deviation over seeds."""
    if not numbers:
        return "-"
    std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{statistics.mean(numbers):{form}} ± {std:.2f}"


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="file of finished cells, one a line")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), help="these cases alone")
    parser.add_argument("--seed", nargs="+", type=int, default=list(range(5)), help="(default 0 to 4)")
    parser.add_argument("--rounds", type=int, default=40, help="of training (default 40)")
    parser.add_argument("--per-class", type=int, default=640, help="training images of a class (default 640)")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    options = parser.parse_args()
    common.set_threads(options.threads)
    if not options.table:
        for seed in options.seed:
            for case in options.case:
                key = {"case": case, "seed": seed, "rounds": options.rounds, "per_class": options.per_class}
                done = common.read_cells(options.cells)
                if not any(all(c[k] == v for k, v in key.items()) for c in done):
                    common.add_cell(options.cells, cell(**key))
                    print(f"{key}: done", file=sys.stderr)
    cells = common.read_cells(options.cells)
    for rounds, per_class in sorted({(c["rounds"], c["per_class"]) for c in cells}):
        print(f"\n{rounds} rounds, {per_class} images of each class\n")
        table([c for c in cells if (c["rounds"], c["per_class"]) == (rounds, per_class)])


if __name__ == "__main__":
    main()
