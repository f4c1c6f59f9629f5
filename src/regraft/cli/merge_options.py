"""The options of ``regraft merge``, and the plan that they say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import click

from regraft import scores
from regraft.cli.declare import count, group, number, text
from regraft.cli.starting import was_given
from regraft.errors import InputError, check_density, unknown
from regraft.evolve import METHODS
from regraft.losses import LOSSES
from regraft.merging import RULES
from regraft.merging.keep import VALUE_SCORES, Density, Scope, check_scope
from regraft.merging.neurons import UNIT_SCORES
from regraft.merging.neurons.select import Share
from regraft.scores import SCORES
from regraft.train import SCHEDULES, Recipe, Teachers

ALIGNMENTS = ("none", "weights", "activations")
REPAIRS = ("none", "bn", "repair")
SELECTIONS = ("none", "neurons")
EVOLUTIONS = (*METHODS, "none")
BLIND = (*VALUE_SCORES, "connectivity", "synflow")
"""Scores that look at no samples."""

MEANING = {
    "rules": "merging position by position",
    "neurons": "--select neurons",
    "gates": "--gates",
    "align": "--align weights or activations",
    "tune": "--finetune after a merge without --gates",
    "train": "--finetune",
    "teach": "--teacher-weight",
    "look": "options that look at data (--align activations, --repair, --select neurons, a score)",
}
"""What a merge can be made of, in the words of the options."""

GO_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("weights", "biases", "over", "bias_density", "score", "align"), ("rules",)),
    **dict.fromkeys(("density", "scope", "repair"), ("rules", "neurons")),
    "align_to": ("align",),
    **dict.fromkeys(("unit_score", "share"), ("neurons",)),
    **dict.fromkeys(("merge_epochs", "gate_lr", "lambda_start", "lambda_rate"), ("gates",)),
    **dict.fromkeys(("finetune_evolve", "lr", "momentum", "weight_decay", "lr_schedule", "batch_size",
                     "loss"), ("train", "gates")),
    **dict.fromkeys(("rate", "teacher_weight"), ("tune",)),
    "temperature": ("teach",),
    "samples": ("look",),
}  # fmt: skip
"""What each option is of; it is refused where the merge has none of it."""


@dataclass(frozen=True)
class Plan:
    """How networks are merged; the options have the same names.

    Attributes:
        density: ``"keep"``, a share of positions, or None for all of the union.
        finetune_evolve, lr_schedule: None for what the way of merging does by itself.
    """

    weights: str
    biases: str
    over: str
    density: Density
    bias_density: float | None
    scope: Scope
    score: str
    align: str
    align_to: str
    select: str
    unit_score: str
    share: Share
    gates: bool
    merge_epochs: int
    gate_lr: float | None
    lambda_start: float
    lambda_rate: float | None
    repair: str
    samples: int
    finetune: int
    finetune_evolve: str | None
    rate: str | None
    lr: float
    momentum: float
    weight_decay: float
    lr_schedule: str | None
    batch_size: int
    loss: str
    teacher_weight: float
    temperature: float
    seed: int

    @property
    def made_of(self) -> set[str]:
        """The words of ``MEANING`` that hold for this merge."""
        way = "gates" if self.gates else "neurons" if self.select == "neurons" else "rules"
        trains = {"train"} if self.finetune else set()
        tunes = {"tune"} if self.finetune and way != "gates" else set()
        return {
            way, *trains, *tunes, *(["align"] if self.align != "none" else []),
            *(["teach"] if self.teacher_weight and tunes else []), *(["look"] if self._looks else []),
        }  # fmt: skip

    @property
    def _looks(self) -> bool:
        """Whether some training samples are looked at, other than for training."""
        if self.gates:
            return False
        scored = self.unit_score == "activity" if self.select == "neurons" else self.score not in BLIND
        return scored or self.align == "activations" or self.repair != "none"

    @property
    def needs_data(self) -> bool:
        """Whether it cannot do without samples."""
        return self._looks or self.gates or self.finetune > 0

    @property
    def in_blocks(self) -> bool:
        """Whether the files can be merged block by block, without a network in memory."""
        return self.made_of == {"rules"} and self.score in VALUE_SCORES

    def plain(self) -> dict[str, Any]:
        """For provenance and JSON: the choices that this merge is made of."""
        parts = self.made_of
        other = {name for name, of in GO_WITH.items() if not parts.intersection(of)}
        unused = {"select"} - ({"select"} if self.select != "none" else set())
        unused |= {"gates"} if not self.gates else set()
        return {k: v for k, v in asdict(self).items() if k not in other | unused}


def make_plan(ctx: click.Context, choices: dict[str, Any]) -> Plan:
    """The plan that the options say.

    Raises:
        InputError: an unknown name, a number out of range, or options that do not go together.
    """
    for name, kind, known in (
        ("weights", "weight rule", RULES), ("biases", "bias rule", RULES), ("align", "alignment", ALIGNMENTS),
        ("align_to", "reference", ("first", "mean")), ("repair", "repair", REPAIRS),
        ("select", "selection", SELECTIONS), ("unit_score", "unit score", UNIT_SCORES),
        ("share", "share", ("each", "overall")), ("finetune_evolve", "evolution method", EVOLUTIONS),
    ):  # fmt: skip
        if choices[name] is not None and choices[name] not in known:
            raise unknown(kind, choices[name], known)
    if choices["gates"] and choices["select"] != "none":
        raise InputError("--gates and --select neurons are two ways of choosing units: give one of them")
    scores.parse(choices["score"])
    check_scope(choices["scope"])
    plan = Plan(**{**choices, "density": parse_density(choices["density"])})
    _check_parts(ctx, plan)
    if plan.repair == "repair" and plan.select == "neurons":
        raise InputError(
            "--repair repair compares each unit with the same unit of all parents, but --select neurons "
            "takes whole units of one parent each: take --repair bn, or none"
        )
    if plan.select == "neurons" and not was_given(ctx, "scope"):
        plan = Plan(**{**asdict(plan), "scope": "global"})
    if plan.gates and plan.finetune_evolve not in (None, "none", "set"):
        raise InputError(
            f"--finetune-evolve is {plan.finetune_evolve!r}, but with --gates the topology evolves by set or "
            "not at all: take set or none"
        )
    return plan


def _check_parts(ctx: click.Context, plan: Plan) -> None:
    """Raise InputError for an option of something that the merge is not made of."""
    parts = plan.made_of
    for option, of in GO_WITH.items():
        if was_given(ctx, option) and not parts.intersection(of):
            known = " or ".join(MEANING[part] for part in of)
            raise InputError(
                f"--{option.replace('_', '-')} goes with {known}, which this merge has not: leave it out, or "
                "give that too"
            )


def parse_density(text: str) -> Density:
    """``keep``, ``none`` or a number.

    >>> parse_density("keep"), parse_density("none"), parse_density("0.05")
    ('keep', None, 0.05)

    Raises:
        InputError: anything else, or a number outside (0, 1].
    """
    if text in ("keep", "none"):
        return cast(Density, "keep" if text == "keep" else None)
    try:
        return check_density(float(text))
    except ValueError:  # InputError is one too
        raise InputError(f"density is '{text}', but must be 'keep', 'none' or a number in (0, 1]") from None


_recipe = Recipe()

merge_options = group(
    click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE",
                 help="The merged network; it may take the place of one of NETWORKS."),
    text("--weights", "magnitude", "Rule for weights: {names}.", "RULE", names=RULES),
    text("--biases", "average",
         "Rule for biases, and for scales of normalisation layers: the same five.", "RULE", names=RULES),
    text("--over", "networks",
         "The average divides by the number of networks, or of those that have the weight.",
         "networks|present"),
    text("--density", "keep",
         "Connections that stay: 'keep' the parents' mean count of each layer, a share of positions in "
         "(0, 1], or 'none' to keep all of the union.", "keep|none|NUMBER"),
    number("--bias-density", None, "Share of each bias that stays, its largest entries.  [default: all]"),
    text("--scope", "layer",
         "Keep the best of each layer, or of all layers together, as --select neurons does by itself.",
         "layer|global"),
    text("--score", "magnitude",
         "What makes a connection stay: {names}; stacked(a, b), inverted(a), learned:FILE.",
         "SCORE", names=SCORES),
    text("--align", "none",
         "Number the hidden units alike first, by their weights, or by their activations on --samples.",
         "none|weights|activations"),
    text("--align-to", "first", "Align to the first network, or each to the mean of the others.",
         "first|mean"),
    text("--select", "none", "Instead of the rules: keep the best whole units of all networks.",
         "none|neurons"),
    text("--unit-score", "activity", "Of --select neurons: {names}.", names=UNIT_SCORES),
    text("--share", "each", "Of --select neurons: the best of each network, or the best overall.",
         "each|overall"),
    click.option("--gates", is_flag=True,
                 help="Instead of the rules: train gates that learn which units are needed."),
    count("--merge-epochs", 50, "Of --gates: epochs with gates.", 1),
    number("--gate-lr", None, "Of --gates: learning rate of the gates.  [default: by the number of steps]"),
    number("--lambda-start", 0.05, "Of --gates: weight of the L0 loss in the first epoch."),
    number("--lambda-rate", None,
           "Of --gates: how fast that weight rises.  [default: to 16 within --merge-epochs]"),
    text("--repair", "none",
         "Measure batch normalisation anew (bn), or give all hidden units the parents' mean and spread too "
         "(repair).", "none|bn|repair"),
    count("--samples", 1000, "Training samples that alignment, repair, selection and scores look at.", 1),
    count("--finetune", 0, "Epochs of training after the merge.", 0),
    text("--finetune-evolve", None,
         "How the topology changes in it: {names}.  [default: none; set with --gates]", names=EVOLUTIONS),
    text("--rate", None, "Its evolution rate, as in train.  [default: the method's]",
         "NAME[:KEY=VALUE,...]"),
    number("--lr", 0.01, "Its learning rate."),
    number("--momentum", 0.9, "Its momentum, in [0, 1)."),
    number("--weight-decay", _recipe.weight_decay, "Its L2 penalty on all parameters, 0 or more."),
    text("--lr-schedule", None,
         "Its learning rate over epochs: {names}.  [default: constant; with --gates falling "
         "in steps]", "NAME[:KEY=VALUE,...]", names=SCHEDULES),
    count("--batch-size", 100, "Its samples per step.", 1),
    text("--loss", _recipe.loss, "Its loss: {names}.", names=[name for name in LOSSES if name != "nll"]),
    number("--teacher-weight", 0.0,
           "Its weight of the parents' averaged logits, in [0, 1]; the labels have the rest."),
    number("--temperature", Teachers.temperature, "Of the parents' and the network's softmax, above 0."),
    click.option("--seed", type=int, default=0, metavar="N",
                 help="Seed of the random rule, equal scores, samples, and training."),
    click.option("--device", default="cpu", metavar="NAME", help="To train on: cpu, cuda, or cuda:N."),
    click.option("--threads", type=int, default=None, metavar="N",
                 help="CPU threads.  [default: OMP_NUM_THREADS, else all cores]"),
)  # fmt: skip
"""How the networks are merged, and what is done to the merged one."""
