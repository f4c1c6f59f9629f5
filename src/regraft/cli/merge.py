"""``regraft merge``: several networks into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from regraft import checkpoint, files, measure
from regraft.cli.common import console, json_option, progress_bar, write_json
from regraft.cli.dataset import Dataset, choose_data, data_options, sample_options
from regraft.cli.merge_options import Plan, make_plan, merge_options
from regraft.cli.merge_report import evaluation_table, layer_figures, layer_table
from regraft.cli.output import check_output
from regraft.cli.train import choose_device
from regraft.data import Data
from regraft.errors import InputError
from regraft.merging import MergedLayer, merge_files
from regraft.merging.networks import data_of, opened, parent_of


@dataclass(frozen=True)
class Outcome:
    """What a merge gave besides its file."""

    layers: Sequence[MergedLayer]
    evaluation: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@merge_options
@data_options(None, seed=None, without="no evaluation; the set of the networks' training where one is needed")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, networks: tuple[Path, ...], out: Path, name: str | None, data_dir: Path | None,
    download: bool, classes: str | None, per_class: int | None, test_per_class: int | None,
    data_seed: int | None, json_path: str | None, device: str, threads: int | None, **choices: Any,
) -> None:  # fmt: skip
    """Merge NETWORKS, files of one architecture, into one of the same sparsity.

    At each position the rule combines the values of the networks that have it; then the best connections are
    kept. So the files are read in blocks, and memory does not grow with their number. With --data NAME the
    parents and the merged network are evaluated on the test samples.

    Hidden units can be aligned first, and the merged network repaired and fine-tuned; or units are selected
    whole, or by gates that are trained. That takes the networks into memory.

    \b
    regraft merge a.safetensors b.safetensors --align weights --weights average \\
        --repair repair --finetune 5 --data fashion-mnist --out m.safetensors
    regraft merge a.safetensors b.safetensors --select neurons --out m.safetensors
    regraft merge a.safetensors b.safetensors --gates --finetune 50 --out student.safetensors
    """
    check_output(out)
    check_output(json_path)
    plan = make_plan(ctx, choices)
    where = choose_device(device, threads)
    options = sample_options(classes, per_class, test_per_class, data_seed)
    dataset = choose_dataset(plan, networks, name, options)
    data = None if dataset is None else dataset.load(data_dir, download)
    if plan.in_blocks:
        outcome = merged_in_blocks(plan, networks, out, data)
    else:
        outcome = merged_in_memory(plan, networks, out, data, dataset, where)
    header = checkpoint.read_header(out)
    figures: dict[str, Any] = {
        "command": "merge", "out": str(out), "bytes_on_disk": out.stat().st_size,
        "parents": header.provenance["parents"], **plan.plain(),
        "layers": [layer_figures(layer) for layer in outcome.layers],
    }  # fmt: skip
    screen = console(json_path)
    screen.print(layer_table(outcome.layers))
    if data is not None and dataset is not None:
        figures |= {"data": dataset.plain(), "evaluation": outcome.evaluation}
        screen.print(evaluation_table(outcome.evaluation, data.name))
    for note in outcome.notes:
        click.echo(f"warning: {note}", err=True)
    screen.print(f"merged {len(networks)} networks by {way_of(plan)}; wrote {out}", soft_wrap=True)
    write_json(json_path, {**figures, "warnings": list(outcome.notes), "versions": files.versions()})


def way_of(plan: Plan) -> str:
    """How, in a few words."""
    if plan.gates:
        return "gates"
    if plan.select == "neurons":
        return "neuron selection"
    return f"{plan.weights} x {plan.biases}" + ("" if plan.align == "none" else f", aligned by {plan.align}")


def choose_dataset(
    plan: Plan, networks: Sequence[Path], name: str | None, options: dict[str, Any]
) -> Dataset | None:
    """The samples that the options say; those of the networks' training where all have the same, and the
    options name that set, or none although the merge needs samples.

    Raises:
        InputError: samples are needed, and neither the options nor all networks alike say which.
        FileError: a network cannot be read.
    """
    if name is None and not plan.needs_data:
        return None
    headers = [checkpoint.read_header(path) for path in networks]
    if all(header.provenance.get("data") == headers[0].provenance.get("data") for header in headers):
        return choose_data(name, options, headers[0], networks[0])
    if name is None:
        raise InputError(
            "the networks were trained on different data, and this merge needs samples: pass --data NAME, "
            "such as digits"
        )
    return Dataset(name, **{k: v for k, v in options.items() if v is not None})


def merged_in_blocks(plan: Plan, networks: Sequence[Path], out: Path, data: Data | None) -> Outcome:
    """Merge files into a file, a block at a time."""
    # before merging, since the merged file may take the place of a parent
    before = [] if data is None else [evaluated(path, data, str(path), plan.loss) for path in networks]
    with progress_bar("merging", None) as advance:
        layers = merge_files(
            networks, out, plan.weights, plan.biases, plan.density, scope=plan.scope, score=plan.score,
            over=plan.over, bias_density=plan.bias_density, provenance={"seed": plan.seed},
            generator=torch.Generator().manual_seed(plan.seed), on_layer=lambda layer: advance(note=layer),
        )  # fmt: skip
    after = [] if data is None else [evaluated(out, data, "merged", plan.loss)]
    return Outcome(layers, [*before, *after])


def evaluated(path: Path, data: Data, label: str, loss: str) -> dict[str, Any]:
    """Accuracy and loss of a network file on the test samples."""
    return {"network": label, **measure.evaluate(checkpoint.load(path), data.test, loss=loss)}


def merged_in_memory(
    plan: Plan, networks: Sequence[Path], out: Path, data: Data | None, dataset: Dataset | None,
    device: torch.device,
) -> Outcome:  # fmt: skip
    """Merge networks in memory, with all that the plan has, and write the result."""
    from regraft.cli.merge_job import Job  # loads what only this way of merging needs

    with opened(networks) as parents:
        origin = {**data_of(parents), "parents": [parent_of(parent) for parent in parents]}
    job = Job(plan, networks, data, device)
    model, layers = job.run()
    if data is not None and dataset is not None and (plan.gates or plan.finetune):
        origin["data"] = {
            **dataset.plain(), "class_names": list(data.class_names), "input_shape": list(data.input_shape)
        }  # fmt: skip
    made = {"made_by": "regraft merge", "seed": plan.seed, "merge": plan.plain()}
    checkpoint.save(model, out, provenance={**made, **origin})
    return Outcome(layers, job.evaluation, job.notes)
