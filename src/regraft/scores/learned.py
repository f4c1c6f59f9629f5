"""A score that was learned: a regressor over the features of one connection (thesis 5, section 5.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.container import PathLike, atomic_write
from regraft.errors import FileError, InputError, MismatchError, RegraftError
from regraft.probe import Probe
from regraft.scores import regressors
from regraft.scores.features import FOUR, check_names, features, unit_range
from regraft.scores.protocol import Score, Vectors, weights_of
from regraft.scores.regressors import Regressor
from regraft.scores.saliency import synflow

KEY = "regraft-learned-score"
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Learned:
    """What a regressor predicts from each connection's features.

    Attributes:
        regressor: fitted on these features.
        features: their names, in order.

    Raises:
        InputError: unknown features.
        MismatchError: the regressor was trained on another number of features.
    """

    regressor: Regressor
    features: tuple[str, ...] = FOUR

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", check_names(self.features))
        if self.regressor.inputs != len(self.features):
            raise MismatchError(
                f"the regressor was trained on {self.regressor.inputs} features, but {len(self.features)} "
                f"are named ({', '.join(self.features)}): name those that it was trained on"
            )

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The prediction for each connection, float64."""
        rows = features(model, probe, self.features, values=values, active=active)
        return {n: self.regressor.predict(r) for n, r in rows.items()}

    def save(self, path: PathLike) -> None:
        """Write a safetensors file: arrays and names, no code, so that any version can read it.

        Raises:
            FileError: the file cannot be written.
        """
        from safetensors.torch import save

        about = {"format": FORMAT, "kind": self.regressor.kind, "features": list(self.features)}
        tensors = {n: t.detach().cpu().contiguous() for n, t in self.regressor.tensors.items()}
        with atomic_write(path) as file:
            file.write(save(tensors, {KEY: json.dumps(about)}))

    @classmethod
    def load(cls, path: PathLike, features: Sequence[str] | None = None) -> Self:
        """Read what ``save`` wrote.

        Args:
            features: where given, the features that it must have been trained on.

        Raises:
            FileError: missing, damaged, not a learned score, or of a newer format.
            MismatchError: trained on other features.
        """
        tensors, about = _read(path)
        try:
            regressor = Regressor(about["kind"], tensors, len(about["features"]))
            found = cls(regressor, tuple(about["features"]))
        except RegraftError as error:
            raise FileError(f"'{path}' holds no usable learned score: {error}") from error
        if features is not None and tuple(features) != found.features:
            raise MismatchError(
                f"'{path}' was trained on the features {', '.join(found.features)}, not on "
                f"{', '.join(features)}: fit one on these, or ask for those"
            )
        return found


def _read(path: PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot read '{path}' as a learned score ({error}): check the path") from error
    try:
        about = json.loads(metadata[KEY])
        newer = about["format"] > FORMAT
        fits = isinstance(about["kind"], str) and all(isinstance(n, str) for n in about["features"])
    except (KeyError, TypeError, ValueError, RecursionError):
        newer, fits = False, False
    if newer:
        raise FileError(f"'{path}' is of a newer format than this version of regraft reads: update regraft")
    if not fits:
        raise FileError(f"'{path}' is no learned score: Learned.save writes one")
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise FileError(f"'{path}' holds NaN or infinite numbers: fit the score again")
    return tensors, about


@dataclass(frozen=True, eq=False)
class Example:
    """A network to learn from: its features and what its connections were worth.

    Attributes:
        rows: {weight name: [nnz, features]}, as ``features`` gives them.
        targets: {weight name: [nnz]} in [0, 1], as ``targets`` gives them.
    """

    rows: Vectors
    targets: Vectors


def targets(
    model: nn.Module, ticket: nn.Module, probe: Probe | None = None, *, score: Score = synflow
) -> dict[str, Tensor]:
    """What each connection of ``model`` was worth to a ticket: its score there, 0 where the ticket has not
    got it, scaled to [0, 1] over the network.

    Args:
        model: at its initial values, with all candidates.
        ticket: the same network pruned and trained, as the last round of iterative pruning left it.
        score: the one that found the ticket; thesis 5 takes SynFlow's.

    Raises:
        MismatchError: the ticket has other weights, or connections that the model has not.
    """
    candidates, kept = weights_of(model), weights_of(ticket)
    shapes = ({n: tuple(w.shape) for n, w in each.items()} for each in (candidates, kept))
    if next(shapes) != next(shapes):
        raise MismatchError(
            "the ticket's sparse weights are not the model's: give one network and its ticket"
        )
    worth = {}
    for name, scores in score(ticket, probe).items():
        here, there = candidates[name].index, kept[name].index
        if not bool(positions.contains(here, there).all()):
            raise MismatchError(f"the ticket's '{name}' has connections that are no candidates of the model")
        worth[name] = torch.zeros(here.numel(), dtype=torch.float64, device=here.device)
        worth[name][torch.searchsorted(here, there)] = scores.double()
    return unit_range(worth)


def fit(
    examples: Sequence[Example],
    regressor: Any = "linear",
    *,
    features: Sequence[str] = FOUR,
    generator: torch.Generator | None = None,
) -> Learned:
    """Learn a score from networks and their tickets; every connection is one sample.

    Args:
        examples: one or more networks.
        regressor: ``"linear"``, ``"sgd"``, ``"tree"``, ``"forest"`` or ``"mlp"``, with the defaults of thesis
            5; a ``Perceptron``; or a scikit-learn estimator: linear, a tree or a forest.
        features: the names of the columns of ``Example.rows``.
        generator: for regressors that draw numbers; default: one with seed 0.

    >>> rows = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).double()
    >>> learned = fit([Example({"0.weight": rows}, {"0.weight": rows.mean(1)})])
    >>> learned.regressor.tensors["coef"].round(decimals=3).tolist()
    [0.25, 0.25, 0.25, 0.25]

    Raises:
        InputError: no examples, an unknown regressor, or one that cannot become a score.
        MismatchError: rows that do not have these features, or targets that do not line up with them.
    """
    if not examples:
        raise InputError("there is nothing to learn from: give at least one Example")
    names = check_names(features)
    for example in examples:
        for name, rows in example.rows.items():
            if rows.ndim != 2 or rows.shape[1] != len(names):
                raise MismatchError(
                    f"the rows of '{name}' have shape {tuple(rows.shape)}, but {len(names)} features are "
                    f"named ({', '.join(names)}): one column for each"
                )
            if name not in example.targets or len(example.targets[name]) != len(rows):
                raise MismatchError(f"the targets of '{name}' do not line up with its {len(rows)} rows")
    rows = torch.cat([r.cpu() for e in examples for r in e.rows.values()]).double()
    wanted = torch.cat([e.targets[n].cpu() for e in examples for n in e.rows]).double()
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return Learned(regressors.fit(regressor, rows, wanted, generator), names)
