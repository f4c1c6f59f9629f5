"""Values to start from: (model, probe, generator) -> {weight name: values}. Scores as weights, and controls.

A member gives a value to each connection of a sparse model; ``initialise`` puts them into any model, dense or
sparse, before it is pruned or after.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from regraft import scores
from regraft.errors import InputError, MismatchError, unknown
from regraft.evolve.named import Patterns, unwrapped
from regraft.probe import Probe
from regraft.prune.candidates import candidates, is_sparse
from regraft.prune.upfront import name_of
from regraft.scores import Score, weights_of
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


class Init(Protocol):
    """``(model, probe, generator) -> {weight name: values [nnz]}``, lined up with each weight's ``index``.

    The model is sparse, and left as it was.
    """

    def __call__(
        self, model: nn.Module, probe: Probe | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class ScoresAsWeights:
    """Scores as Weights (thesis 5, sections 3.4 and 5.4): ``|score|`` with the sign of the original weight,
    scaled to [-1, 1].

    The thesis scales "all scores"; with scale ``"global"`` the largest of the whole network becomes 1, which
    keeps the ranks between layers, and with ``"layer"`` the largest of each layer.

    Attributes:
        score: as everywhere; its magnitude is taken, since GraSP has a sign of its own.
        scale: ``"global"`` or ``"layer"``.

    >>> from regraft import SparseLinear
    >>> model = SparseLinear(SparseWeight((1, 3), torch.tensor([0, 2]), torch.tensor([0.5, -2.0])), None)
    >>> ScoresAsWeights(scores.magnitude)(model)["weight"].tolist()
    [0.25, -1.0]

    Raises:
        InputError: unknown scale; when called: scores that are all 0 or not finite.
    """

    score: Score
    scale: Literal["global", "layer"] = "global"

    def __post_init__(self) -> None:
        if self.scale not in ("global", "layer"):
            raise unknown("scale of the scores", self.scale, ("global", "layer"))

    def __call__(
        self, model: nn.Module, probe: Probe | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The scaled scores of each connection."""
        sizes = {n: v.detach().abs() for n, v in self.score(model, probe).items()}
        largest = {n: float(v.max()) if v.numel() else 0.0 for n, v in sizes.items()}
        if self.scale == "global":
            largest = dict.fromkeys(largest, max(largest.values()))
        values = {}
        for name, weight in weights_of(model).items():
            top = largest[name]
            if weight.nnz and not 0.0 < top < math.inf:
                raise InputError(
                    f"the score {name_of(self.score)} is {top:g} at most in '{name}', so it cannot be scaled "
                    "to [-1, 1]: look for a network that is not connected or an input that is not finite"
                )
            scaled = (sizes[name] / top).to(weight.values)
            values[name] = torch.copysign(scaled, weight.values.detach())
        return values


@dataclass(frozen=True)
class Bimodal:
    """Two bumps either side of 0: a random sign times N(c, (width c)^2), where c makes the mean square that
    of He's initialisation, 2 / fan-in. The control for scores as weights, whose values are bimodal too.
    (Thesis 5 has such a control, but does not give its distribution.)

    Attributes:
        width: of each bump, relative to its centre, >= 0.

    Raises:
        InputError: width is negative; when called without a generator.
    """

    width: float = 0.25

    def __post_init__(self) -> None:
        if not 0.0 <= self.width < math.inf:
            raise InputError(f"the width of Bimodal is {self.width!r}, but must be 0 or more")

    def __call__(
        self, model: nn.Module, probe: Probe | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """A draw for each connection."""
        g = _require(generator, "Bimodal")

        def draw(weight: SparseWeight) -> Tensor:
            normal = torch.randn(weight.nnz, generator=g, device=g.device)
            sign = torch.randint(2, (weight.nnz,), generator=g, device=g.device) * 2.0 - 1.0
            centre = math.sqrt(2.0 / (max(weight.fan_in_size, 1) * (1.0 + self.width**2)))
            return sign * centre * (1.0 + self.width * normal)

        return {n: draw(w).to(w.values) for n, w in weights_of(model).items()}


@dataclass(frozen=True)
class Reinitialised:
    """A fresh draw by the dense fan-in: the control that tells a ticket's topology from its
    initial values (Frankle and Carbin 2019, arXiv:1803.03635, section 2).

    Attributes:
        kind: ``"he"``, uniform with variance 2 / fan-in, or ``"torch"``, uniform in +-1 / sqrt(fan-in), both
            as in ``regraft.models``; or ``"he-normal"``, normal with variance 2 / fan-in, which thesis 5
            starts from.

    Raises:
        InputError: unknown kind; when called without a generator.
    """

    kind: Literal["he", "he-normal", "torch"] = "he"

    def __post_init__(self) -> None:
        if self.kind not in ("he", "he-normal", "torch"):
            raise unknown("kind of initial values", self.kind, ("he", "he-normal", "torch"))

    def __call__(
        self, model: nn.Module, probe: Probe | None = None, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """A draw for each connection."""
        g = _require(generator, "Reinitialised")

        def draw(weight: SparseWeight) -> Tensor:
            scale = 1.0 / math.sqrt(max(weight.fan_in_size, 1))
            if self.kind == "he-normal":
                return torch.randn(weight.nnz, generator=g, device=g.device) * (math.sqrt(2.0) * scale)
            # a uniform draw's bound is sqrt(3) times its standard deviation
            bound = math.sqrt(6.0) * scale if self.kind == "he" else scale
            return (2.0 * torch.rand(weight.nnz, generator=g, device=g.device) - 1.0) * bound

        return {n: draw(w).to(w.values) for n, w in weights_of(model).items()}


def permuted(
    model: nn.Module, probe: Probe | None = None, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Each weight's own values, in another order: the control that keeps a ticket's topology and the
    distribution of its values, and nothing that ties one to the other.

    Raises:
        InputError: no generator.
    """
    g = _require(generator, "permuted")
    return {
        n: w.values.detach()[torch.randperm(w.nnz, generator=g, device=g.device).to(w.index.device)]
        for n, w in weights_of(model).items()
    }


INITS: dict[str, Callable[[], Init]] = {
    "bimodal": Bimodal,
    "reinitialised": Reinitialised,
    "he-normal": lambda: Reinitialised("he-normal"),
    "permuted": lambda: permuted,
}


def init_by_name(name: str) -> Init:
    """The initial values called ``name``: one of ``INITS``, or ``scores:`` and a score as
    ``regraft.scores.parse`` reads it.

    >>> init_by_name("bimodal")
    Bimodal(width=0.25)
    >>> init_by_name("scores:magnitude") == ScoresAsWeights(scores.magnitude)
    True
    """
    kind, colon, score = name.partition(":")
    if kind == "scores" and colon:
        return ScoresAsWeights(scores.parse(score))
    if name not in INITS:
        raise unknown("initial values", name, (*INITS, "scores:snip"))
    return INITS[name]()


def initialise(
    model: M,
    init: str | Init,
    probe: Probe | None = None,
    *,
    include: Patterns = ("*",),
    exclude: Patterns = (),
    generator: torch.Generator | None = None,
) -> M:
    """Give a model new values where ``upfront`` would prune, in place. Returns the model.

    Its parameters stay the same objects. Biases stay as they are.

    Args:
        init: a name (``"scores:snip"``, ``"bimodal"``, ``"reinitialised"``, ``"he-normal"``, ``"permuted"``)
            or a function ``(model, probe, generator) -> {weight name: values}``.
        probe: for scores.
        include, exclude: as in ``upfront``.
        generator: for values that are drawn.

    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> signs = model[0].weight.sign()
    >>> _ = initialise(model, "scores:magnitude")
    >>> model[0].weight.abs().max().item(), torch.equal(model[0].weight.sign(), signs)
    (1.0, True)

    Raises:
        InputError: unknown name, no prunable weight, no generator where one is needed, scores that are all 0.
        MismatchError: not one value for each connection.
    """
    rule = init_by_name(init) if isinstance(init, str) else init
    work, weights = candidates(model, include, exclude)
    values = rule(work, probe, generator=generator)
    for name, weight in weights.items():
        if name not in values or values[name].shape != (weight.nnz,):
            raise MismatchError(
                f"the initial values for '{name}' are not one number for each of its {weight.nnz} connections"
            )
    inner = unwrapped(model)
    for name in weights:
        if is_sparse(inner):
            target = cast(SparseWeight, inner.get_submodule(name)).values
        else:
            target = cast(nn.Parameter, inner.get_submodule(name.removesuffix(".weight")).weight)
        with torch.no_grad():
            target.copy_(values[name].view(target.shape))
    return model


def _require(generator: torch.Generator | None, user: str) -> torch.Generator:
    if generator is None:
        raise InputError(f"{user} draws random numbers: pass generator=torch.Generator().manual_seed(0)")
    return generator
