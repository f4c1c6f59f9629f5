"""``regraft federate``: many clients train one sparse network, each evolving its own topology."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from torch import nn

from regraft import checkpoint, files, measure
from regraft.allocate import ALLOCATIONS
from regraft.cli.common import console, json_option, progress_bar, table, write_json
from regraft.cli.dataset import Dataset, data_options, parse_classes
from regraft.cli.federate_options import (
    chosen_baseline,
    client_options,
    make_federation,
    make_local,
    make_recipe,
    server_options,
)
from regraft.cli.output import check_output
from regraft.cli.train import choose_device
from regraft.cli.training_options import model_options
from regraft.cli.training_report import describe_model
from regraft.data import Data, Split
from regraft.errors import InputError, RegraftError
from regraft.federated import Federation, State, federate, partitioned
from regraft.federated.gossip import Gossip, GossipRound, gossip
from regraft.federated.partition import parse as parse_partition
from regraft.train import build_model, seeds


@click.command()
@data_options("digits")
@model_options
@click.option("--density", type=float, default=0.05, metavar="X", help="Share of all connections, in (0, 1].")
@click.option("--allocate", default="erdos-renyi", metavar="NAME",
              help=f"How it is spread over layers: {', '.join(ALLOCATIONS)}.")  # fmt: skip
@client_options
@server_options
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="Where the global network goes (safetensors).")  # fmt: skip
@click.option("--device", default="cpu", metavar="NAME",
              help="Where clients train and the server merges: cpu, cuda, or cuda:N.")  # fmt: skip
@click.option("--threads", type=int, default=None, metavar="N", help="CPU threads.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of everything.")
@json_option
def command(
    name: str, data_dir: Path | None, download: bool, classes: str | None, per_class: int | None,
    test_per_class: int | None, data_seed: int, out: Path, device: str, threads: int | None, seed: int,
    clients: int, partition: str, engine: str, topology: str, baseline: str | None, state: Path | None,
    resume: bool, json_path: str | None, **choices: Any,
) -> None:  # fmt: skip
    """Train one sparse network on many clients, each of which evolves a topology of its own.

    In each round clients evolve and train what they were sent; the server merges what comes back, as it
    arrives, and cuts it down to the density again.

    \b
    regraft federate --data fashion-mnist --clients 20 --partition dirichlet:0.3 --rounds 30 \\
        --density 0.05 --align --out global.safetensors
    """
    for path in (out, json_path):
        check_output(path)
    compared = chosen_baseline(baseline, choices)
    federation = make_federation(
        choices, make_local(choices | {"topology": topology}, choices["rounds"]), seed, compared
    )
    _check_engine(engine, topology, state, resume, choices, federation)
    divide = parse_partition(partition)
    recipe = make_recipe(choices, seed, compared is not None and compared.dense)
    where = choose_device(device, threads)
    if engine == "flower" and where.type != "cpu":
        raise InputError(f"--engine flower trains its clients on the CPU, not on {device!r}: leave one out")
    dataset = Dataset(name, parse_classes(classes), per_class, test_per_class, data_seed)
    data = dataset.load(data_dir, download)
    pooled = compared is not None and compared.pooled
    splits = (
        [data.train] if pooled else partitioned(data.train, divide, clients, seeds.stream(seed, "clients"))
    )
    model = build_model(recipe, data).to(where)
    screen = console(json_path)
    describe_model(screen, recipe.model, measure.inspect(model, data.input_shape), data)
    screen.print(_describe_clients(splits))
    run = partial(_gossip, choices["exchanges"]) if topology != "star" else _served
    merged, rows = run(
        model, splits, federation, data, engine if topology == "star" else topology, out, state, resume
    )
    told: dict[str, Any] = {
        "made_by": "regraft federate", "partition": partition, "engine": engine, "topology": topology,
        "baseline": baseline, "federation": federation.config(model, splits), "model": recipe.model,
        "data": {
            **dataset.plain(), "class_names": list(data.class_names), "input_shape": list(data.input_shape),
        },
        "parents": [],
    }  # fmt: skip
    checkpoint.save(merged, out, provenance=told)
    screen.print(history_table(rows))
    last = rows[-1]
    screen.print(
        f"test accuracy {last['test_accuracy']:.4f} after {len(rows)} rounds of {len(splits)} clients; "
        f"{sum(r['upload_bytes'] for r in rows) / 1e6:.2f} MB sent by clients; wrote {out}",
        soft_wrap=True,
    )  # fmt: skip
    write_json(json_path, {
        "command": "federate", "out": str(out), "bytes_on_disk": out.stat().st_size, **told,
        "examples": [len(split) for split in splits], "rounds": rows,
        "network": measure.inspect(merged, data.input_shape), "versions": files.versions(),
    })  # fmt: skip


def _check_engine(
    engine: str,
    topology: str,
    state: Path | None,
    resume: bool,
    choices: dict[str, Any],
    federation: Federation,
) -> None:
    """Raise InputError for options that do not go together, before anything is read."""
    if resume and state is None:
        raise InputError("--resume needs --state DIR: the folder of the federation to go on with")
    if topology == "star":
        if choices["exchanges"] != 1:
            raise InputError(
                "--exchanges are between neighbours: pass --topology ring, random or full as well"
            )
        return
    if engine != "embedded":
        raise InputError(f"--topology {topology} has no server, so --engine {engine} cannot run it")
    for option in ("neurons", "clip", "baseline"):
        if choices.get(option):
            raise InputError(f"--{option} is what a server does, but --topology {topology} has none")
    if choices["robust"] != "none" or federation.fraction != 1.0 or state is not None:
        raise InputError(
            f"--robust, --fraction and --state are of a server, but --topology {topology} has none"
        )


def _served(
    model: nn.Module, splits: list[Split], federation: Federation, data: Data, engine: str, out: Path,
    state: Path | None, resume: bool,
) -> tuple[nn.Module, list[dict[str, Any]]]:  # fmt: skip
    """Rounds with a server; where one fails, the model before it is written all the same."""
    good: list[State] = []
    steps = federation.rounds * len(federation.asked(0, [str(i) for i in range(len(splits))]))
    with progress_bar("federating", steps) as advance:

        def note(at: State) -> None:
            good[:] = [at]
            advance(0, f"round {at.round}: {at.history[-1]['test_accuracy']:.4f}")

        try:
            if engine == "flower":
                from regraft.federated.flower import simulate  # says what to install, where it is not

                after = simulate(
                    model, splits, federation, test=data.test, folder=state, resume=resume, on_round=note
                )
            else:
                after = federate(
                    model, splits, federation, test=data.test, folder=state, resume=resume, on_round=note,
                    on_client=lambda client: advance(1),
                )  # fmt: skip
        except RegraftError as error:
            if not good:
                raise
            checkpoint.save(
                good[0].model, out, provenance={"made_by": "regraft federate", "stopped": str(error)}
            )
            rounds = "1 round" if good[0].round == 1 else f"{good[0].round} rounds"
            raise InputError(f"{error}; the network after {rounds} is in '{out}'") from error
    return after.model, after.history


def _gossip(
    exchanges: int, model: nn.Module, splits: list[Split], federation: Federation, data: Data, topology: str,
    out: Path, state: Path | None, resume: bool,
) -> tuple[nn.Module, list[dict[str, Any]]]:  # fmt: skip
    """Rounds without a server; the network is the mean of the nodes'."""
    settings = Gossip(
        topology, lost=federation.lost, align=getattr(federation.strategy, "align", None),
        dtype=federation.dtype, exchanges=exchanges, seed=federation.seed,
    )  # fmt: skip
    with progress_bar("gossiping", federation.rounds) as advance:

        def note(row: GossipRound) -> None:
            advance(1, "" if row.consensus is None else f"consensus {row.consensus:.4f}")

        done = gossip(
            model, splits, federation.local, federation.rounds, settings, test=data.test, on_round=note
        )
    return done.mean, [_row(row) for row in done.rounds]


def _row(row: GossipRound) -> dict[str, Any]:
    """A round of gossip in the words of the other engines."""
    return {
        "round": row.round, "clients": row.present, "failed": len(row.failed),
        "accepted": row.sent - row.lost, "rejected": dict(row.rejected), "lost": row.lost,
        "upload_bytes": row.bytes, "download_bytes": row.bytes, "test_accuracy": row.consensus,
        "node_accuracy": list(row.accuracy), "nnstd": row.nnstd,
    }  # fmt: skip


def _describe_clients(splits: list[Split]) -> str:
    sizes = sorted(len(split) for split in splits)
    seen = sum(sum(c > 0 for c in split.counts()) for split in splits) / len(splits)
    return f"{len(splits)} clients with {sizes[0]} to {sizes[-1]} samples, of {seen:.1f} classes on average"


def history_table(rows: list[dict[str, Any]], most: int = 12) -> Table:
    """The rounds, at most so many: the first ones left out where there are more."""
    shown = table("round", "accepted", "turned away", "failed", "kB up", "kB down", "accuracy")
    for row in rows[-most:]:
        shown.add_row(
            str(row["round"] + 1), str(row["accepted"]), _reasons(row["rejected"]), str(row["failed"]),
            f"{row['upload_bytes'] / 1e3:.1f}", f"{row['download_bytes'] / 1e3:.1f}",
            f"{row['test_accuracy']:.4f}",
        )  # fmt: skip
    return shown


def _reasons(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "0"
