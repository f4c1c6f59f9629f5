"""Networks for an estimator: trained until they converge, merged into one, read for their inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from regraft.data import Data, Split
from regraft.errors import InputError
from regraft.layers import SparseLinear
from regraft.merging import Ensemble, select_neurons
from regraft.merging.neurons import readout_sums, refit_readout
from regraft.probe import Probe
from regraft.train import Callback, Diverged, Recipe, Trained, build_model, train_recipe

TRIES = 5
SLOWER = 4.0
AT_ONCE = 1000  # samples of one pass through a network


def train(
    recipe: Recipe,
    data: Data,
    callbacks: Callable[[], Sequence[Callback]],
    *,
    start: Callable[[], nn.Module] | None = None,
    retry: bool = False,
    device: torch.device,
) -> Trained:
    """Train one network; with ``retry`` a training that diverges begins anew, each time with a quarter of the
    learning rate.

    Args:
        callbacks: makes those of one training.
        start: makes the network to train on; default: a new one.
        device: where it trains; then it comes back to the CPU.

    Raises:
        InputError: it diverged, with ``retry`` five times; otherwise as ``train_recipe``.
        MismatchError: as ``train_recipe``.
    """
    for left in reversed(range(TRIES if retry else 1)):
        model = build_model(recipe, data) if start is None else start()
        try:
            trained = train_recipe(recipe, data, model=model, callbacks=callbacks(), device=device)
            return replace(trained, model=trained.model.cpu())
        except InputError as error:
            # a change of the topology may come upon the NaN before the next loss does
            diverged = isinstance(error, Diverged) or not _finite(model)
            if left == 0 or not diverged:
                raise
            assert recipe.lr is not None
            slower = recipe.lr / SLOWER
            warnings.warn(
                f"training diverged with a learning rate of {recipe.lr:g} and begins anew with {slower:g}: "
                "standardise the samples, or set learning_rate_init",
                ConvergenceWarning,
                stacklevel=4,
            )
            recipe = replace(recipe, lr=slower)
    raise AssertionError("unreachable")


def _finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def merge(networks: Sequence[nn.Module], samples: Split) -> nn.Module:
    """Networks of the same samples as one of their size and density: the units that say most, whole
    (``select_neurons``), and a last layer whose connections are chosen anew and fitted to what the networks
    say together (``refit_readout``)."""
    batches = list(zip(torch.split(samples.x, AT_ONCE), torch.split(samples.y, AT_ONCE), strict=True))
    merged = select_neurons(networks, Probe(batches=batches))
    sums = readout_sums(merged, batches, teacher=Ensemble(networks))
    return refit_readout(merged, [sums], choose=True)


def linear_layers(model: nn.Module) -> list[SparseLinear]:
    """The sparse layers, from input to output."""
    return [module for module in model.modules() if isinstance(module, SparseLinear)]


@torch.no_grad()
def rescale_outputs(model: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Let the network give ``scale * output + shift``, in place, by its last layer alone.

    Args:
        scale, shift: one number for each output, [outputs].
    """
    last = linear_layers(model)[-1]
    scale, shift = scale.double(), shift.double()
    values = last.weight.values
    values.copy_(values.double() * scale[last.weight.rows()])
    bias = cast(Tensor, last.bias)
    bias.copy_(bias.double() * scale + shift)


@torch.no_grad()
def input_flow(model: nn.Module) -> Tensor:
    """Of each input the sum over all paths to any output of the product of the weights' magnitudes, float64
    [in]: 1^T |W_L| ... |W_1|."""
    layers = linear_layers(model)
    flow = torch.ones(layers[-1].weight.shape[0], dtype=torch.float64)
    for layer in reversed(layers):
        weight = layer.weight
        each = weight.values.double().abs() * flow[weight.rows()]
        flow = torch.zeros(weight.shape[1], dtype=torch.float64).index_add(0, weight.columns(), each)
    return flow
