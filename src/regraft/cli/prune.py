"""``regraft prune``: from a network to a ticket, before training or between rounds of it."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from regraft import checkpoint, diagnose, files
from regraft.cli.common import console, json_option, write_json
from regraft.cli.dataset import Dataset, choose_data, data_options, sample_options
from regraft.cli.output import check_output
from regraft.cli.prune_job import Job, check_epochs, keep_options, notes_of
from regraft.cli.prune_options import Plan, make_plan, prune_options
from regraft.cli.prune_report import print_layers, print_rounds
from regraft.cli.train import choose_device, make_recipe
from regraft.cli.training_options import training_options
from regraft.data import Data
from regraft.errors import InputError
from regraft.prune import LayerCollapseWarning, Ticket
from regraft.train import Recipe

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@data_options(None, seed=None, without="that of the training of --from, else digits")
@prune_options
@training_options
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="Where the ticket goes (safetensors).")  # fmt: skip
@click.option("--trained", type=click.Path(path_type=Path), default=None, metavar="FILE",
              help="Also train the ticket to the last epoch, and write that network here.")  # fmt: skip
@click.option("--checkpoint", "folder", type=_FOLDER, default=None, metavar="DIR",
              help="Keep the state after each round here; the same command goes on from it.")  # fmt: skip
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, or cuda:N.")
@click.option("--threads", type=int, default=None, metavar="N",
              help="CPU threads.  [default: OMP_NUM_THREADS, else all cores]")  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, name: str | None, data_dir: Path | None, download: bool, classes: str | None,
    per_class: int | None, test_per_class: int | None, data_seed: int | None, start: Path | None, out: Path,
    trained: Path | None, folder: Path | None, device: str, threads: int | None, json_path: str | None,
    **choices: Any,
) -> None:  # fmt: skip
    """Prune a network, before training or in rounds of training, and write the ticket to a file.

    The ticket has its initial values (or those of the epoch rewound to, or those that were kept) and trains
    on with regraft train --start. SynFlow before training, and the Lottery Ticket Hypothesis:

    \b
    regraft prune --model lenet-300-100 --data mnist --score synflow --density 0.005 \\
        --shots 100 --out ticket.safetensors
    regraft prune --model lenet-300-100 --data mnist --score magnitude --density 0.005 \\
        --schedule iterative --rounds 20 --rewind 0 --out ticket.safetensors
    """
    for path in (out, trained, json_path):
        check_output(path)
    plan = make_plan(choices)
    _refuse_model_options(ctx, start, plan)
    drawn = {"dense": True, "density": None, "init": plan.drawn}
    recipe = check_epochs(plan, make_recipe({**choices, **drawn}), trained is not None)
    if folder is not None and plan.rounds is None:
        raise InputError("--checkpoint keeps rounds: it goes with --schedule iterative or gradual")
    where = choose_device(device, threads)
    options = sample_options(classes, per_class, test_per_class, data_seed)
    dataset = _dataset(name, options, start)
    samples = dataset.load(data_dir, download)
    if folder is not None:
        keep_options(folder, {**_options(plan, recipe, start), "data": dataset.plain(), "from": str(start)})
    job = Job(plan, recipe, samples.to(where), start, where, folder)
    model = job.make_model()
    screen = console(json_path)
    title = recipe.model if start is None else str(start)
    screen.print(
        f"{title} on {samples.name}: {samples.classes} classes, {len(samples.train):,} training samples, of "
        f"which scores see {len(job.probe.batches[0][1]):,}",
        soft_wrap=True,
    )
    before = job.gradient_norm(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LayerCollapseWarning)
        ticket = job.controlled(job.run())
    paths = diagnose.connectivity(ticket.model, samples.input_shape)
    gradient = {"before": before, "ticket": job.gradient_norm(ticket.model)}
    notes = notes_of(paths, caught)
    provenance = _provenance(plan, recipe, dataset, samples, start, ticket)
    final = None
    if trained is not None:
        done = job.train(ticket)
        final = {k: v for k, v in done.history.final.items() if not k.endswith("seconds")}
        checkpoint.save(done.model.cpu(), trained, provenance={**provenance, "final": final})
    checkpoint.save(ticket.model.cpu(), out, provenance=provenance)
    print_rounds(screen, ticket.history)
    print_layers(screen, paths, gradient)
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    if final is not None:
        screen.print(f"trained: test accuracy {final['test_accuracy']:.4f}; wrote {trained}", soft_wrap=True)
    screen.print(f"wrote {out}", soft_wrap=True)
    write_json(json_path, {
        "command": "prune", "out": str(out), "bytes_on_disk": out.stat().st_size, **provenance,
        "connectivity": paths.plain(), "gradient_norm": gradient, "warnings": notes, "trained": final,
        "versions": files.versions(),
    })  # fmt: skip


def _refuse_model_options(ctx: click.Context, start: Path | None, plan: Plan) -> None:
    """A network from a file has its architecture and its values."""
    if start is None:
        return
    for name in ("model", "dropout", "activation"):
        if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise InputError(
                f"--{name} is of a new network, but --from names one that exists: give one of them"
            )
    if plan.drawn in plan.init:
        raise InputError(
            f"--init {plan.drawn} draws the values of a new network, but --from names one that exists: leave "
            "it out"
        )


def _dataset(name: str | None, options: dict[str, Any], start: Path | None) -> Dataset:
    if start is not None:
        return choose_data(name, options, checkpoint.read_header(start), start)
    return Dataset(name or "digits", **{k: v for k, v in options.items() if v is not None})


def _provenance(
    plan: Plan, recipe: Recipe, dataset: Dataset, samples: Data, start: Path | None, ticket: Ticket
) -> dict[str, Any]:
    """Where the ticket came from. No times and dates: equal prunings give equal files."""
    return {
        "made_by": "regraft prune",
        "options": _options(plan, recipe, start),
        "data": {
            **dataset.plain(), "class_names": list(samples.class_names),
            "input_shape": list(samples.input_shape),
        },
        "rounds": [{**asdict(done), "counts": dict(done.counts)} for done in ticket.history],
        "epoch": ticket.epoch,
        "parents": [] if start is None else [{"file": str(start)}],
    }  # fmt: skip


def _options(plan: Plan, recipe: Recipe, start: Path | None) -> dict[str, Any]:
    """The options that decide what the ticket is."""
    choices = recipe.resolved()
    of_training = (
        "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "lr_schedule", "patience",
        "restore_best", "stop_accuracy", "stop_extra",
    )  # fmt: skip
    used = ["loss", "label_smoothing", "seed"]
    used += ["model", "dropout", "activation"] if start is None else []
    used += of_training if plan.rounds is not None else ()
    return {**plan.plain(), **{name: choices[name] for name in used}}
