"""Federated training of one sparse network: accuracy against bytes, clients, non-IID-ness, losses, memory.

A cell is one federation; each is a line of a file (--out), so that an interrupted study goes on:

    python benchmarks/federated.py --data-dir DIR --out runs/federated.jsonl [--parts main unlike ...]
    python benchmarks/federated.py --table --out runs/federated.jsonl

Parts: main (all methods, 20 clients, Dirichlet 0.3), unlike (other partitions), clients (other numbers of
them), loss (updates that never arrive), shot (one round after long local training), many (1,000 clients
in one round: memory), malformed (10,000 updates that are none: time for each).
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_rel
from torch import nn

from _common import add_cell, read_cells
from regraft import Topology, data, models, sparsify
from regraft.data import Data, Split
from regraft.federated import (
    Federation,
    Local,
    Plan,
    SelectNeurons,
    SparseMerge,
    Strategy,
    Update,
    encode,
    federate,
    partitioned,
    receive,
)
from regraft.federated.baselines import BASELINES, personal
from regraft.federated.partition import parse
from regraft.federated.subsets import entropy_bits, pack
from regraft.merging.align import WeightMatching
from regraft.train import seeds as streams

MODEL, DENSITY = "mlp:784-256-128-10", 0.05
LOCAL = Local(
    epochs=2, batch_size=50, lr=0.1, rounds=30, momentum=0.9, rate=0.3, drop="server",
    together=True,
)  # fmt: skip
SLOWER = {"dense-fedavg": 0.05, "feddst": 0.05}  # learning rates: both are unstable at 0.1
MERGE: dict[str, tuple[Strategy, dict[str, Any]]] = {
    "sparse": (SparseMerge(scope="global"), {}),
    "sparse, float16": (SparseMerge(scope="global"), {}),
    "sparse, each layer its count": (SparseMerge(), {}),
    "sparse, grown apart": (SparseMerge(scope="global"), {"rate": 0.2, "together": False}),
    "sparse, gradient growth": (SparseMerge(scope="global"), {"evolve": "rigl", "grow_batches": 5}),
    "sparse, clients drop": (SparseMerge(scope="global"), {"every": 3, "drop": "client"}),
    "sparse, aligned": (SparseMerge(scope="global", align=WeightMatching(restarts=1)), {}),
}
"""Strategies and what they change of LOCAL."""

Cell = dict[str, Any]
KIND = ("part", "per_class", "partition", "clients", "lost", "rounds", "lr_schedule")
"""What cells of one table have in common."""


def main() -> None:
    options = parser().parse_args()
    if not options.table:
        torch.set_num_threads(1)
        loaded = data.load("fashion-mnist", data_dir=options.data_dir, per_class=options.per_class)
        for key in wanted(options):
            if any(all(cell.get(k) == v for k, v in key.items()) for cell in read_cells(options.out)):
                continue
            started = time.process_time()
            figures = RUN[key["part"]](key, loaded)
            cell = key | figures | {"cpu_seconds": round(time.process_time() - started, 1)}
            add_cell(options.out, cell)
            print({k: v for k, v in cell.items() if k not in ("curve", "traffic", "memory")}, flush=True)
    show(read_cells(options.out))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--data-dir", type=Path, default=None)
    made.add_argument("--parts", nargs="+", default=["main"], choices=sorted(RUN))
    made.add_argument("--methods", nargs="+", default=None)
    made.add_argument("--seeds", nargs="+", type=int, default=list(range(10, 15)))
    made.add_argument("--rounds", type=int, default=30)
    made.add_argument("--per-class", type=int, default=1000)
    made.add_argument("--lr-schedule", default="cosine", help="of the clients, over the rounds")
    made.add_argument("--table", action="store_true")
    return made


def wanted(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells that the options ask for, the ones that say most first."""
    own = ["sparse", "dense-fedavg", "fixed-mask", "feddst", *MERGE, "dispfl", "local only", "centralised"]
    own = list(dict.fromkeys(own))
    common = {"per_class": options.per_class, "rounds": options.rounds, "lr_schedule": options.lr_schedule}
    for part in options.parts:
        if part in ("many", "malformed"):
            yield {"part": part, "seed": 0}
            continue
        for seed in options.seeds:
            for changed in VARIED[part]:
                for method in options.methods or (own if part == "main" else METHODS[part]):
                    usual = {"clients": 20, "partition": "dirichlet:0.3", "lost": 0.0}
                    yield {"part": part, "method": method, "seed": seed, **common, **usual, **changed}


VARIED: dict[str, list[Cell]] = {
    "main": [{}],
    "unlike": [{"partition": p} for p in ("iid", "dirichlet:0.1", "classes:2")],
    "clients": [{"clients": n} for n in (5, 50)],
    "loss": [{"lost": x} for x in (0.2, 0.5)],
    "shot": [{"rounds": 1, "clients": 5, "partition": p} for p in ("iid", "dirichlet:0.3")],
}
METHODS = {
    "unlike": ["sparse", "fixed-mask"],
    "clients": ["sparse", "fixed-mask"],
    "loss": ["sparse"],
    "shot": ["average", "aligned", "neurons"],
}


def start(key: Cell, loaded: Data, dense: bool = False) -> tuple[nn.Module, list[Split]]:
    """The network that all methods of a seed begin with, and the clients' samples."""
    parts = partitioned(
        loaded.train, parse(key["partition"]), key["clients"], streams.stream(key["seed"], "clients")
    )
    model = models.build(MODEL, generator=streams.stream(key["seed"], "init"))
    if not dense:
        model = sparsify(model, density=DENSITY, generator=streams.stream(key["seed"], "topology"))
    return model, parts


def federation(key: Cell, loaded: Data) -> Cell:
    """One federation of a method with a server."""
    method, local = key["method"], replace(LOCAL, rounds=key["rounds"], lr_schedule=key["lr_schedule"])
    if method in ("dispfl", "local only"):
        return alone(key, loaded, local)
    baseline = BASELINES.get(method)
    model, parts = start(key, loaded, dense=baseline is not None and baseline.dense)
    strategy: Strategy
    if baseline is not None:
        strategy = baseline.strategy
        local = replace(baseline.local(local), lr=SLOWER.get(method, local.lr))
        parts = [loaded.train] if baseline.pooled else parts
    else:
        chosen, change = MERGE[method]
        strategy, local = chosen, replace(local, **change)
    dtype = "float16" if method.endswith("float16") else "float32"
    rounds = Federation(
        strategy, local, rounds=key["rounds"], lost=key["lost"], dtype=dtype, seed=key["seed"]
    )
    done = federate(model, parts, rounds, test=loaded.test)
    curve = [row["test_accuracy"] for row in done.history]
    return {
        "accuracy": curve[-1],
        "last5": statistics.fmean(curve[-5:]),
        "upload": sum(row["upload_bytes"] for row in done.history),
        "download": sum(row["download_bytes"] for row in done.history),
        "curve": [round(a, 4) for a in curve],
        "traffic": [row["upload_bytes"] + row["download_bytes"] for row in done.history],
    }


def alone(key: Cell, loaded: Data, local: Local) -> Cell:
    """A network for each client: their mean accuracy on all classes."""
    model, parts = start(key, loaded)
    neighbours = 5 if key["method"] == "dispfl" else 0
    local = replace(local, evolve="rigl" if neighbours else local.evolve, drop="client", together=False)
    done = personal(
        model, parts, local, rounds=key["rounds"], neighbours=neighbours, test=loaded.test, seed=key["seed"]
    )
    mean = statistics.fmean(done.accuracy)
    return {"accuracy": mean, "last5": mean, "upload": done.upload_bytes, "download": done.upload_bytes}


def one_shot(key: Cell, loaded: Data) -> Cell:
    """One merge after 20 local epochs: the clients' networks begin alike, evolve and train apart."""
    model, parts = start(key, loaded)
    local = replace(LOCAL, epochs=20, drop="client", together=False, unit_score="activity")
    shots: dict[str, Strategy] = {
        "average": SparseMerge(),
        "aligned": SparseMerge(align=WeightMatching(restarts=1)),
        "neurons": SelectNeurons(),
    }
    strategy = shots[key["method"]]
    done = federate(model, parts, Federation(strategy, local, rounds=1, seed=key["seed"]), test=loaded.test)
    row = done.history[-1]
    return {
        "accuracy": row["test_accuracy"], "last5": row["test_accuracy"], "upload": row["upload_bytes"],
        "download": row["download_bytes"],
    }  # fmt: skip


def many(key: Cell, loaded: Data) -> Cell:
    """One round of 1,000 clients: the process's peak memory after each hundred of them, in MiB."""
    model, parts = start({"partition": "iid", "clients": 1000, "seed": 0}, loaded)
    peaks: list[float] = []

    def note(client: str) -> None:
        if (int(client) + 1) % 100 == 0:
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    local = replace(LOCAL, epochs=1, batch_size=20, drop="client", together=False, rounds=1)
    rounds = Federation(SparseMerge(), local, rounds=1)
    done = federate(model, parts, rounds, on_client=note)
    size = sum(connections.size for connections in Topology.of(model).values())
    return {
        "accepted": done.history[0]["accepted"], "memory": [round(p, 1) for p in peaks],
        "union_at_most_mib": round(12 * size / 2**20, 1), "upload": done.history[0]["upload_bytes"],
    }  # fmt: skip


def malformed(key: Cell, loaded: Data) -> Cell:
    """10,000 messages of which a part was overwritten at random, each with or without a matching checksum."""
    model, _ = start({"partition": "iid", "clients": 20, "seed": 0}, loaded)
    plan, draw = Plan.of(model), random.Random(0)
    message = encode(Update.of(model, round=0, client="a", examples=10), plan)
    under_way = SparseMerge().begin(model, 0, examples={"a": 10})
    reasons: dict[str, int] = {}
    started = time.process_time()
    for _ in range(10_000):
        at = draw.randrange(len(message))
        forged = message[:at] + draw.randbytes(draw.randrange(1, 100)) + message[at + draw.randrange(200) :]
        reason = receive(under_way, forged, "a")
        reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    return {"reasons": reasons, "milliseconds_each": round((time.process_time() - started) / 10, 3)}


RUN = {
    "main": federation, "unlike": federation, "clients": federation, "loss": federation, "shot": one_shot,
    "many": many, "malformed": malformed,
}  # fmt: skip


def position_bits() -> tuple[float, float]:
    """Bits that the positions of a new network take, and their entropy."""
    model = sparsify(models.build(MODEL), density=DENSITY, generator=streams.stream(0, "topology"))
    found = list(Topology.of(model).values())
    return sum(8.0 * len(pack(c.index, c.size)) for c in found), sum(
        entropy_bits(c.size, c.nnz) for c in found
    )


def show(cells: list[Cell]) -> None:
    """Tables of all that is there: mean and standard deviation over seeds, paired tests against "sparse"."""
    bits, best = position_bits()
    print(f"positions: {bits / 8:.0f} bytes, {bits / best:.3f} times their entropy")
    kinds = {tuple((name, c[name]) for name in KIND) for c in cells if "accuracy" in c}
    for kind in map(dict, sorted(kinds)):
        same = [c for c in cells if all(c.get(k) == v for k, v in kind.items())]
        print("\n" + ", ".join(f"{name} {value}" for name, value in kind.items()))
        print("method | seeds | last round | last five | bytes of dense | p against sparse")
        for method in dict.fromkeys(c["method"] for c in same):
            print(line(method, same))
    for cell in cells:
        if cell["part"] in ("many", "malformed"):
            print(f"\n{cell}")


def line(method: str, same: list[Cell]) -> str:
    """One method's row."""
    by_seed = {c["seed"]: c for c in same if c["method"] == method}
    ours = {c["seed"]: c for c in same if c["method"] == "sparse"}
    dense = [c for c in same if c["method"] == "dense-fedavg"]
    row = [method, str(len(by_seed))]
    for figure in ("accuracy", "last5"):
        found = [100 * c[figure] for c in by_seed.values()]
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        row.append(f"{statistics.fmean(found):.2f}{spread}")
    sent = statistics.fmean(c["upload"] + c["download"] for c in by_seed.values())
    whole = statistics.fmean(c["upload"] + c["download"] for c in dense) if dense else 0
    row.append(f"{100 * sent / whole:.2f} %" if whole else f"{sent / 1e6:.2f} MB")
    shared = sorted(by_seed.keys() & ours.keys())
    if method != "sparse" and len(shared) > 1:
        pairs = [[by_seed[s]["last5"] for s in shared], [ours[s]["last5"] for s in shared]]
        row.append(f"{ttest_rel(*pairs).pvalue:.3f}")
    return " | ".join(row)


if __name__ == "__main__":
    main()
