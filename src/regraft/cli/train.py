"""``regraft train``: train a sparse network whose topology evolves."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import torch

from regraft import checkpoint, files, measure
from regraft.cli import starting
from regraft.cli.common import console, json_option, progress_bar, write_json
from regraft.cli.dataset import Dataset, data_options, parse_classes
from regraft.cli.output import check_output
from regraft.cli.teachers import read_teachers, teacher_options, teachers_provenance
from regraft.cli.training_options import model_options, run_options, sparsity_options, training_options
from regraft.cli.training_report import bits_of, describe_model, history_table
from regraft.data import Data
from regraft.errors import InputError
from regraft.train import Callback, Checkpoint, Recipe, ShowProgress, TensorBoard, Trained, train_recipe
from regraft.train.checkpoints import find
from regraft.train.recipe import build_model


@click.command()
@data_options("digits")
@model_options
@sparsity_options
@training_options
@run_options
@click.option("--start", type=click.Path(path_type=Path), default=None, metavar="FILE",
              help="Train this network on, such as a ticket of prune.  [default: a new one]")  # fmt: skip
@teacher_options
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, name: str, data_dir: Path | None, download: bool, classes: str | None,
    per_class: int | None, test_per_class: int | None, data_seed: int, out: Path, device: str,
    threads: int | None, start: Path | None, teachers: tuple[Path, ...], teacher_weight: float,
    temperature: float, checkpoint_dir: Path | None, checkpoint_steps: int | None, resume: bool,
    tensorboard: Path | None, json_path: str | None, **choices: Any,
) -> None:  # fmt: skip
    """Train a sparse network whose topology evolves, and write it to a file.

    The defaults train an MLP on scikit-learn's digits by SET. A training that the thesis on topology pruning
    describes:

    \b
    regraft train --data fashion-mnist --model mlp:784-1000-1000-1000-10 --epsilon 20 \\
        --evolve set --rate exd --dropout 0.3 --epochs 20 --out a.safetensors
    """
    for path in (out, json_path):
        check_output(path)
    started = None if start is None else starting.read(start, ctx, choices)
    recipe = make_recipe(choices)
    taught_by = read_teachers(teachers, teacher_weight, temperature, ctx)
    where = choose_device(device, threads)
    resume_from = _find_checkpoint(checkpoint_dir, resume)
    callbacks: list[Callback] = []
    if checkpoint_dir is not None:
        callbacks.append(Checkpoint(checkpoint_dir, every_steps=checkpoint_steps))
    if tensorboard is not None:
        callbacks.append(TensorBoard(tensorboard))
    dataset = Dataset(name, parse_classes(classes), per_class, test_per_class, data_seed)
    if start is not None:
        dataset = starting.dataset(start, ctx, dataset)
    data = dataset.load(data_dir, download)
    model = build_model(recipe, data) if started is None else started
    screen = console(json_path)
    describe_model(screen, str(start or recipe.model), measure.inspect(model, data.input_shape), data)
    batch = recipe.batch_size or len(data.train)
    steps = recipe.epochs * -(-len(data.train) // batch)
    try:
        with progress_bar("training", steps) as advance:
            trained = train_recipe(
                recipe, data, model=model, device=where, callbacks=[*callbacks, ShowProgress(advance)],
                teachers=taught_by, resume=resume_from,
                config={"data_choices": dataset.plain(), **({"start": str(start)} if start else {})},
            )  # fmt: skip
    except KeyboardInterrupt:
        if checkpoint_dir is not None and find(checkpoint_dir) is not None:
            click.echo(
                f"go on with the same command and --resume: '{checkpoint_dir}' has a checkpoint", err=True
            )
        raise
    provenance = make_provenance(recipe, dataset, data, trained) | teachers_provenance(teachers, taught_by)
    if start is not None:
        provenance |= starting.provenance(start, provenance["options"])
    checkpoint.save(trained.model.cpu(), out, provenance=provenance)
    screen.print(history_table(trained.history))
    screen.print(f"training step: {trained.history.step}", soft_wrap=True)
    if trained.history.stopped:
        screen.print(f"stopped early: {trained.history.stopped}")
    final = trained.history.final
    screen.print(
        f"test accuracy {final['test_accuracy']:.4f}, test loss {final['test_loss']:.4f}"
        f"{bits_of(final['test_loss'], recipe.loss, data.test)}, "
        f"{sum(trained.history.column('seconds')):.1f} s of training; wrote {out}",
        soft_wrap=True,
    )
    write_json(json_path, {
        "command": "train", "out": str(out), "bytes_on_disk": out.stat().st_size, **provenance,
        "network": measure.inspect(trained.model, data.input_shape), "history": trained.history.epochs,
        "step": trained.history.step, "versions": files.versions(),
    })  # fmt: skip


def make_recipe(choices: dict[str, Any]) -> Recipe:
    """The recipe that the options say."""
    full = choices.pop("batch_size")
    if full != "full" and not full.isdecimal():
        raise InputError(f"--batch-size is {full!r}, but must be a whole number, or 'full'")
    known = {f.name for f in fields(Recipe)}
    plain = {k: v for k, v in choices.items() if k in known and v is not None}
    plain["include"] = tuple(plain.get("include") or ("*",))
    plain["exclude"] = tuple(plain.get("exclude") or ())
    return Recipe(**plain, batch_size=None if full == "full" else int(full))


def choose_device(device: str, threads: int | None) -> torch.device:
    """The device to train on; also sets the number of CPU threads.

    Raises:
        InputError: no such device here, or fewer than 1 thread.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads is {threads}, but must be 1 or more")
        torch.set_num_threads(threads)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0].split(":")[0][:80].rstrip(".")
        raise InputError(
            f"--device {device!r} cannot be used here ({reason}): try cpu, cuda or cuda:0"
        ) from error
    return chosen


def _find_checkpoint(folder: Path | None, resume: bool) -> Path | None:
    if folder is None:
        if resume:
            raise InputError("--resume needs --checkpoint DIR: the folder of the training to go on with")
        return None
    found = find(folder)
    if found is not None and not resume:
        raise InputError(
            f"'{folder}' holds the checkpoint of a training: pass --resume to go on with it, or give another "
            "folder"
        )
    return found


def make_provenance(recipe: Recipe, dataset: Dataset, data: Data, trained: Trained) -> dict[str, Any]:
    """Where the network came from. No times and dates: equal trainings give equal files."""
    final = trained.history.final
    figures = {k: v for k, v in final.items() if not k.endswith("seconds")}
    return {
        "made_by": "regraft train",
        "options": recipe.resolved(),
        "data": {
            **dataset.plain(),
            "class_names": list(data.class_names),
            "input_shape": list(data.input_shape),
        },
        "final": figures,
        "stopped": trained.history.stopped,
        "parents": [],
    }
