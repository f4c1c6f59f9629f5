"""``regraft evaluate``: accuracy and loss of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from regraft import checkpoint, files, measure
from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.dataset import choose_data, data_options, sample_options
from regraft.cli.output import check_output
from regraft.cli.train import choose_device
from regraft.cli.training_report import bits_of
from regraft.losses import LOSSES


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@data_options(None, seed=None)
@click.option("--loss", default="cross-entropy", metavar="NAME", help=", ".join(LOSSES) + ".")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1000,
    metavar="N",
    help="Samples at a time; changes only memory and speed.",
)
@click.option("--per-class-accuracy", is_flag=True, help="Also the accuracy of each class.")
@click.option("--device", default="cpu", metavar="NAME", help="cpu, cuda, or cuda:N.")
@click.option(
    "--threads",
    type=int,
    default=None,
    metavar="N",
    help="CPU threads.  [default: OMP_NUM_THREADS, else all cores]",
)
@json_option
def command(
    network: Path, name: str | None, data_dir: Path | None, download: bool, classes: str | None,
    per_class: int | None, test_per_class: int | None, data_seed: int | None, loss: str, batch_size: int,
    per_class_accuracy: bool, device: str, threads: int | None, json_path: str | None,
) -> None:  # fmt: skip
    """Accuracy and loss of NETWORK on the test samples.

    Without --data, and with the name of the set that it was trained on, the other choices of samples are
    those of its training too, as far as no option says otherwise.
    """
    check_output(json_path)
    where = choose_device(device, threads)
    header = checkpoint.read_header(network)
    options = sample_options(classes, per_class, test_per_class, data_seed)
    dataset = choose_data(name, options, header, network)
    model = checkpoint.load(network).to(where)
    data = dataset.load(data_dir, download)
    figures: dict[str, Any] = dict(measure.evaluate(model, data.test, batch_size, loss))
    if per_class_accuracy:
        parts = zip(data.class_names, measure.by_class(data.test, data.classes), strict=True)
        figures["per_class"] = {
            label: measure.evaluate(model, part, batch_size, loss)["accuracy"]
            for label, part in parts
            if part is not None
        }
    screen = console(json_path)
    screen.print(
        f"{network} on {figures['n']:,} test samples of {data.name}: accuracy {figures['accuracy']:.4f}, "
        f"{loss} loss {figures['loss']:.4f}{bits_of(figures['loss'], loss, data.test)}",
        soft_wrap=True,
    )
    if per_class_accuracy:
        lines = table("class", "accuracy")
        for label, accuracy in figures["per_class"].items():
            lines.add_row(label, f"{accuracy:.4f}")
        screen.print(lines)
    write_json(json_path, {
        "command": "evaluate", "network": str(network), "data": dataset.plain(), "loss_function": loss,
        **figures, "versions": files.versions(),
    })  # fmt: skip
