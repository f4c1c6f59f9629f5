"""``simulate``: a federation on Flower's simulation, many nodes on one machine."""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import safetensors.torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from torch import nn

from regraft.data import Split
from regraft.errors import FileError, InputError, MissingDependency
from regraft.federated import state as states
from regraft.federated.embedded import Federation
from regraft.federated.flower.client import client_app, name_of
from regraft.federated.flower.strategy import FlowerStrategy
from regraft.federated.state import State


def simulate(
    model: nn.Module,
    clients: Sequence[Split],
    federation: Federation,
    *,
    test: Split | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_round: Callable[[State], None] | None = None,
) -> State:
    """What ``federate`` does, on Flower's simulation: the same model, bit for bit, and the same history.

    Needs Ray (extra ``federated-simulation``), which takes some seconds to start and one process for each
    core. The nodes' samples go to files in a temporary folder, each of which one node reads.

    Args:
        model, clients, federation, test, folder, resume, on_round: as for ``federate``.

    Raises:
        MissingDependency: Ray is not installed.
        InputError, MismatchError, FileError: as ``federate``.
    """
    if not clients:
        raise InputError("a federation needs at least one client, but got none")
    if importlib.util.find_spec("ray") is None:
        raise MissingDependency("ray", "federated-simulation", "Flower's simulation")
    with states.held(folder):
        if folder is not None and not resume and states.find(folder) is not None:
            raise FileError(
                f"'{folder}' holds the state of a federation: pass resume to go on with it, or give another "
                "folder"
            )
        return _simulated(model, clients, federation, test, folder, on_round)


def _simulated(
    model: nn.Module,
    clients: Sequence[Split],
    federation: Federation,
    test: Split | None,
    folder: str | os.PathLike[str] | None,
    on_round: Callable[[State], None] | None,
) -> State:
    strategy = FlowerStrategy(
        model, federation, clients=len(clients), test=test, folder=folder, on_round=on_round
    )
    failed: list[Exception] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            strategy.start(grid)
        except Exception as error:  # Flower logs errors of its threads and goes on
            failed.append(error)

    with tempfile.TemporaryDirectory() as samples:
        for number, split in enumerate(clients):
            safetensors.torch.save_file({"x": split.x, "y": split.y}, _file(samples, str(number)))
        app = client_app(partial(_model, model), partial(_samples, samples), federation)
        resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
        run_simulation(server, app, num_supernodes=len(clients), backend_config=resources)
    if failed:
        raise failed[0]
    return strategy.state


def _file(folder: str, client: str) -> Path:
    return Path(folder) / f"{client}.safetensors"


def _samples(folder: str, context: Context) -> Split:
    found = safetensors.torch.load_file(_file(folder, name_of(context)))
    return Split(found["x"], found["y"])


def _model(model: nn.Module, context: Context) -> nn.Module:
    return copy.deepcopy(model)
