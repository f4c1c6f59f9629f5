"""The network of thesis 5 and its training, from a cell's configuration (section 4.2, table C.1).

Thesis: LeNet-300-100 (266,200 weights) on MNIST, He-normal initial values, SGD with learning rate 0.1 and
without momentum, batches of 64, up to 100 epochs with early stopping, three runs. Scores look at 100 training
samples; all layers are compared with each other; biases are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regraft import losses, models, prune
from regraft.data import Data
from regraft.probe import Probe
from regraft.studies.study import Work
from regraft.train import EarlyStopping, History, fit

STANDARD = "standard"
"""Initial values as the thesis's baselines have them: He-normal."""

SETTING = (
    "data",
    "per_class",
    "test_per_class",
    "model",
    "epochs",
    "patience",
    "lr",
    "batch_size",
    "samples",
)
"""What all cells of one table have in common; a preset's settings hold them."""


def setting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """That part of a preset's settings that goes into every cell's configuration."""
    return {name: settings[name] for name in SETTING}


def load(work: Work) -> Data:
    """The cell's data."""
    config = work.config
    return work.data(config["data"], per_class=config["per_class"], test_per_class=config["test_per_class"])


def build(config: Mapping[str, Any], data: Data, init: str = STANDARD) -> nn.Module:
    """The network before it is pruned or trained; the same for the same seed, whatever is done to it.

    Args:
        init: ``"standard"``, or a name that ``prune.initialise`` reads, such as ``"scores:snip"``.
    """
    g = torch.Generator().manual_seed(config["seed"])
    built = models.build(config["model"], input_shape=data.input_shape, classes=data.classes, generator=g)
    model = prune.initialise(built, "he-normal", generator=g)
    if init == STANDARD:
        return model
    return prune.initialise(model, init, probe(config, data), generator=g)


def probe(config: Mapping[str, Any], data: Data) -> Probe:
    """What scores may look at: training samples drawn once for each seed."""
    g = torch.Generator().manual_seed(config["seed"])
    chosen = torch.randperm(len(data.train), generator=g)[: config["samples"]]
    return Probe(
        losses.by_name("cross-entropy"),
        [data.train[chosen]],
        torch.Generator().manual_seed(config["seed"]),
        input_shape=data.input_shape,
    )


def train(config: Mapping[str, Any], model: nn.Module, data: Data, epochs: int | None = None) -> History:
    """Train a network in place; the same network and seed give the same result.

    Args:
        epochs: default: the configuration's; early stopping watches the test loss, as no samples are set
            aside.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
    patience = config["patience"]
    return fit(
        model, data, epochs=config["epochs"] if epochs is None else epochs, optimizer=optimizer,
        batch_size=config["batch_size"], seed=config["seed"],
        callbacks=[] if patience is None else [EarlyStopping(patience)],
    )  # fmt: skip
