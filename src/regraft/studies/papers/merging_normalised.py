"""Thesis 1, section 8: networks that are normalised while they train, merged in pairs and five at a time.

As phase 2, with each unit's incoming weights scaled to length 1 after every step and no early stopping; five
networks of each sparsity. Pairs (each network with itself too) are merged and pruned. All five together are
merged by all rules, and normalised, pruned, both or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from statistics import fmean
from typing import Any

from regraft.report import Results
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import merging_phase2 as phase2
from regraft.studies.papers import merging_shown as shown
from regraft.studies.papers.merging_measures import (
    ALL,
    KEEPING,
    Key,
    grid,
    means,
    pairs,
    parents,
    samples,
    scaled,
    sparsities,
)
from regraft.studies.papers.merging_steps import merged, options_of, parent
from regraft.studies.study import Cell, Preset, Result, Row, Rows, Study

RECIPE = replace(phase2.RECIPE, normalise_rows=True, stop_accuracy=None)
FIVE = 5
AFTERWARDS = {
    "union": "Neither normalised nor pruned", "prune": "Pruned", "normalise": "Normalised",
    "normalise prune": "Normalised, then pruned", "prune normalise": "Pruned, then normalised",
}  # fmt: skip


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """Pairs and groups of the normalised networks, and the networks of phase 2 for figure 22."""
    found: list[Cell] = []
    for sparsity in settings["sparsities"]:
        own = []
        for seed in range(settings["networks"][str(sparsity)]):
            config = {
                "data": settings["data"], "recipe": settings["recipe"], "sparsity": sparsity, "seed": seed,
                "keep_regrown": True,
            }  # fmt: skip
            own.append(Cell(parent, config))
        base = {"sparsity": sparsity, "seed": 0, "rules": list(ALL)}
        for a, b in combinations_with_replacement(range(len(own)), 2):
            found.append(Cell(merged, {**base, "a": a, "b": b, "then": [["prune"], []]}, (own[a], own[b])))
        if len(own) == FIVE:
            then = [[] if way == "union" else way.split() for way in AFTERWARDS]
            group = {**base, "a": -1, "b": -1, "networks": FIVE, "then": then}
            found.append(Cell(merged, group, tuple(own)))
        found += phase2.parents_of(settings["phase2"], sparsity)
    return found


def _is_normalised(row: Row) -> bool:
    return row.get("kind") != "parent" or bool(row.get("recipe.normalise_rows"))


def normalised(rows: Rows) -> Rows:
    """The study's own networks and their merges."""

    def own(result: Result) -> bool:
        recipe = result.config.get("recipe")
        return recipe is None or bool(recipe.get("normalise_rows"))

    results = [r for r in rows.results if own(r)]
    return Rows([r for r in rows.rows if _is_normalised(r)], results, rows.preset, rows.missing)


def as_in_phase2(rows: Rows) -> Rows:
    """The networks of phase 2, without normalisation."""
    return Rows([r for r in rows.rows if not _is_normalised(r)], [], rows.preset, rows.missing)


# --- claims

SECTION = "thesis 1, section 8"
PAPER_ONLY = ("paper",)


def of(
    weights: str | Sequence[str] = KEEPING, biases: str | Sequence[str] = ALL, least: float = 0.0,
    most: float = 1.0, **options: Any,
) -> Callable[[Rows], dict[Key, float]]:  # fmt: skip
    """A measure: one value for each network and sparsity within these."""

    def measure(rows: Rows) -> dict[Key, float]:
        at = [s for s in sparsities(rows) if least <= s <= most]
        return samples(rows, weights, biases, at, **options)

    return measure


def _mean(measure: Callable[[Rows], Mapping[Key, float]]) -> Callable[[Rows], list[float]]:
    return lambda rows: means(measure(rows))


def _matched(
    rows: Rows, weights: str | Sequence[str], networks: int, then: str = "prune"
) -> dict[Any, float]:
    """The mean over networks at each sparsity that has groups of five, by rule."""
    names = (weights,) if isinstance(weights, str) else weights
    found = {}
    for sparsity in sparsities(rows):
        for w in names:
            for b in ALL if pairs(rows, w, "average", sparsity, networks=FIVE) else ():
                own = samples(rows, w, b, (sparsity,), networks=networks, then=then)
                found[sparsity, w, b] = fmean(own.values())
    return found


def _group(weights: str | Sequence[str], then: str = "prune", networks: int = FIVE) -> Callable[[Rows], Any]:
    return lambda rows: _matched(rows, weights, networks, then)


def _training() -> list[Claim]:
    text = f"{SECTION}.2 and figure 23"
    return [
        Order("normalising phase 2's networks costs at least 30 points", f"{SECTION}.1 and figure 22",
              lambda rows: scaled(parents(as_in_phase2(rows))),
              lambda rows: scaled(parents(as_in_phase2(rows), "normalised_accuracy")), least=30.0),
        Number("best accuracy of normalised networks, sparsities up to .30", text, 90, 1.5,
               lambda rows: means({k: v for k, v in scaled(parents(normalised(rows), "best_accuracy")).items()
                                   if k[0] <= 0.3}), comparable=PAPER_ONLY),
        Order("normalised networks end more accurate than those of phase 2, sparsities up to .50", text,
              lambda rows: {k: v for k, v in scaled(parents(normalised(rows))).items() if k[0] <= 0.5},
              lambda rows: {k: v for k, v in scaled(parents(as_in_phase2(rows))).items() if k[0] <= 0.5}),
        Number("epochs after which normalised networks pass 85 %, sparsities up to .50", text, 50, 40,
               lambda rows: means({k: v for k, v in parents(normalised(rows), "passed").items()
                                   if k[0] <= 0.5}),
               unit="epochs", comparable=("small", "paper")),
        Number("epoch of the lowest loss, sparsities from .90 on: 700 to 900", text, 800, 100, _turning,
               unit="epochs", comparable=PAPER_ONLY),
        Order("sparsities from .90 on: the loss rises again towards the end (by more than .01)", text,
              lambda rows: [-low for low, _ in _losses(rows)],
              lambda rows: [-end for _, end in _losses(rows)],
              least=0.01, scale=PAPER_ONLY, unit="nats"),
    ]  # fmt: skip


def _two() -> list[Claim]:
    text = f"{SECTION}.3"
    others = ("average", "magnitude", "random")
    return [
        *(Number(f"two networks, weights by {w}", f"{text}.1 and figure 24", value, 2.0, _mean(of(w)))
          for w, value in (("average", 75), ("magnitude", 75), ("random", 75), ("addition", 77))),
        *(Order(f"two networks: addition better than {w}", f"{text}.1 and figure 24", of("addition"), of(w))
          for w in others),
        *(Order(f"two networks: the loss of addition is lower than that of {w}", f"{text}.1",
                of("addition", figure="loss", scale=-1), of(w, figure="loss", scale=-1), unit="nats")
          for w in others),
        Number("two networks: difference of the best and the worst bias rule", f"{text}.1", 0, 1.5,
               _bias_span),
        Order("two networks: average better than magnitude, sparsities up to .50", f"{text}.1 and figure 26",
              of("average", most=0.5), of("magnitude", most=0.5)),
        Order("two networks: average worse than magnitude, sparsities from .95 on", f"{text}.1 and figure 26",
              of("magnitude", least=0.95), of("average", least=0.95)),
        Order("two networks: addition better than magnitude, sparsities up to .80", f"{text}.2 and figure 25",
              of("addition", most=0.8), of("magnitude", most=0.8)),
        Order("two networks: addition is farther from its parents than magnitude, sparsities up to .80",
              f"{text}.2 and figure 25", of("addition", "average", 0.01, 0.8, figure="nnstd", scale=1),
              of("magnitude", "average", 0.01, 0.8, figure="nnstd", scale=1), unit=""),
        Order("two networks: no pair of rules beats the parents", f"{SECTION}.5",
              lambda rows: scaled(parents(normalised(rows))), _best_rule),
    ]  # fmt: skip


def _five() -> list[Claim]:
    text = f"{SECTION}.4 and figure 27"
    wide = KEEPING
    return [
        Order("five networks are worse than two", text, _group(wide, networks=2), _group(wide)),
        Order("five networks, averaged, are worse than two", text, _group("average", networks=2),
              _group("average")),
        Order("addition loses least from two networks to five", text,
              lambda rows: [-v for v in _losing(rows, ("addition",))],
              lambda rows: [-v for v in _losing(rows, ("average", "magnitude", "random"))]),
        Number("five networks, sparsity .95, weights added", text, 15, 6,
               lambda rows: list(samples(rows, "addition", at=(0.95,), networks=FIVE).values())),
        Number("five networks, random: the largest difference between bias rules", text, 20, 6,
               lambda rows: [max(_spans(rows, "random", FIVE).values())]),
        Order("five networks, averaged: normalising is better than not", text,
              _group("average", "normalise"), _group("average", "union")),
        *(Order(f"five networks, added: {a} no worse than {b} by 2 points", text, _group("addition", x),
                _group("addition", y), least=-2.0)
          for a, x, b, y in (("normalised", "normalise", "not", "union"),
                             ("not normalised", "union", "normalised", "normalise"))),
        Order("five networks: pruning costs accuracy", text, _group(wide, "union"), _group(wide)),
        *(Order(f"five networks: magnitude loses more by pruning than {w}", text,
                lambda rows: _dip(rows, "magnitude"), lambda rows, w=w: _dip(rows, w))  # type: ignore[misc]
          for w in ("average", "addition", "random")),
        *(Order(f"five networks: addition better than {w}", f"{SECTION}.5", _group("addition"), _plain(w))
          for w in ("average", "magnitude", "random")),
        Order("five networks: no pair of rules beats the parents, pruned", f"{SECTION}.5",
              lambda rows: _parent_means(rows), lambda rows: _best_of_five(rows)),
    ]  # fmt: skip


def _plain(weights: str) -> Callable[[Rows], Any]:
    """The same sparsities and bias rules, under the names that addition has."""
    return lambda rows: {(s, "addition", b): v for (s, _, b), v in _matched(rows, weights, FIVE).items()}


def _losses(rows: Rows) -> list[tuple[float, float]]:
    """Lowest and last test loss of each normalised network from sparsity .90 on."""
    lines = _loss_curves(rows)
    return [(min(line), line[-1]) for line in lines]


def _turning(rows: Rows) -> list[float]:
    return [float(1 + min(range(len(line)), key=line.__getitem__)) for line in _loss_curves(rows)]


def _loss_curves(rows: Rows) -> list[list[float]]:
    chosen = [r for r in normalised(rows).results if r.epochs and r.config["sparsity"] >= 0.9]
    return [[e["test_loss"] for e in r.epochs] for r in chosen]


def _bias_span(rows: Rows) -> list[float]:
    """Of the means over sparsities, for each weight rule."""
    found = grid(rows, "accuracy")
    return [max(v) - min(v) for w in KEEPING if (v := [found[w, b] for b in ALL if (w, b) in found])]


def _best_rule(rows: Rows) -> dict[Key, float]:
    """The best pair of rules' mean for each network."""
    table = [samples(rows, w, b) for w in KEEPING for b in ALL]
    return {key: max(t[key] for t in table) for key in table[0]}


def _losing(rows: Rows, weights: Sequence[str]) -> list[float]:
    two, five = _matched(rows, weights, 2), _matched(rows, weights, FIVE)
    at = sorted({key[0] for key in two})
    return [fmean(two[k] - five[k] for k in two if k[0] == s) for s in at]


def _dip(rows: Rows, weights: str) -> list[float]:
    """Accuracy lost by pruning, for each sparsity and bias rule."""
    pruned, union = (_matched(rows, weights, FIVE, then) for then in ("prune", "union"))
    return [union[key] - pruned[key] for key in union]


def _spans(rows: Rows, weights: str, networks: int) -> dict[float, float]:
    found = _matched(rows, weights, networks)
    by_sparsity: dict[float, list[float]] = {}
    for (sparsity, _, _), value in found.items():
        by_sparsity.setdefault(sparsity, []).append(value)
    return {s: max(v) - min(v) for s, v in by_sparsity.items()}


def _parent_means(rows: Rows) -> dict[float, float]:
    values = scaled(parents(normalised(rows)))
    at = {key[0] for key in _matched(rows, "average", FIVE)}
    return {s: fmean(v for (t, _), v in values.items() if t == s) for s in at}


def _best_of_five(rows: Rows) -> dict[float, float]:
    found = _matched(rows, KEEPING, FIVE)
    return {s: max(v for k, v in found.items() if k[0] == s) for s in {key[0] for key in found}}


# --- report


def report(rows: Rows) -> Results:
    """Figures 22 to 27 as measured."""
    if not sparsities(rows):
        return {"summary": "No pair has been merged yet."}
    own, before = normalised(rows), as_in_phase2(rows)
    return {
        "title": "Merging normalised networks: thesis 1, extended research",
        "summary": _summary(rows),
        "tables": [
            shown.rule_table(own, "Two networks: accuracy (%) by weight rule",
                             "Pruned; mean over bias rules."),
            *(
                [shown.rule_table(own, "Five networks: accuracy (%) by weight rule", "Pruned; mean over bias "
                                  "rules.", networks=FIVE)]
                if any(r.get("networks") == FIVE for r in rows.rows) else []
            ),
        ],
        "figures": shown.only([
            shown.parent_boxes(before, "Phase 2's networks before and after normalising", "Figure 22.",
                               {"accuracy": "before", "normalised_accuracy": "after"}),
            shown.curves(own, "test_accuracy", "Accuracy of normalised networks over epochs", "Figure 23.",
                         "accuracy (%)", 100),
            shown.curves(own, "test_loss", "Loss of normalised networks over epochs", "Figure 23.",
                         "loss (nats)"),
            shown.heatmap(own, "accuracy", "Two networks: accuracy", "Mean over sparsities; figure 24."),
            shown.heatmap(own, "loss", "Two networks: loss", "Mean over sparsities; figure 24."),
            shown.clouds(own, "Two networks: accuracy and NNSTD", "Figure 25 (a).", by_biases=True),
            shown.clouds(own, "The same by weight rule", "Figure 25 (b)."),
            shown.sparsity_map(own, "accuracy", "Two networks: each pair of rules", "Figure 26 "
                                                                                    "(a).", KEEPING),
            shown.parallel(own, "accuracy", "The same as lines", "Figure 26 (a).", weights=KEEPING),
            shown.parallel(own, "loss", "Two networks: loss of each pair of rules", "Figure 26 (b).",
                           weights=KEEPING),
            *(shown.parallel(own, "accuracy", f"Five networks: {text.lower()}", "Figure 27.", weights=KEEPING,
                             networks=FIVE, then=way)
              for way, text in AFTERWARDS.items() if _group("average", way)(rows)),
        ]),
    }  # fmt: skip


def _summary(rows: Rows) -> str:
    own = normalised(rows)
    two = shown.ranking(own, "weights")
    text = (
        f"Normalised networks reach {fmean(means(scaled(parents(own)))):.1f} % on average. Merged in pairs "
        f"and "
        "pruned, they reach " + ", ".join(f"{v:.1f} % by {n}" for n, v in two if n != "nothing") + "."
    )
    five = _matched(rows, KEEPING, FIVE)
    if five:
        best = max(KEEPING, key=lambda w: fmean(v for k, v in five.items() if k[1] == w))
        mean = fmean(v for k, v in five.items() if k[1] == best)
        text += f" Five at a time, {best} is the best weight rule with {mean:.1f} %."
    return text


def _settings(networks: Mapping[float, int], base: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "networks": {str(s): n for s, n in networks.items()}, "sparsities": list(networks),
        "data": base["data"], "recipe": options_of(RECIPE), "phase2": base, **more,
    }  # fmt: skip


SMOKE = _settings(
    {0.5: 2, 0.9: FIVE}, phase2.SMOKE, recipe={**options_of(RECIPE), **phase2.SMALL_RECIPE},
)  # fmt: skip
SMALL = _settings(
    {0.0: 2, 0.5: 2, 0.9: FIVE, 0.95: FIVE, 0.99: FIVE}, phase2.SMALL,
    recipe={**options_of(RECIPE), "epochs": 400},
)  # fmt: skip
PAPER = _settings(dict.fromkeys(phase2.SPARSITIES, FIVE), phase2.PAPER)

STUDIES = [
    Study(
        "merging-normalised",
        "Normalised networks, merged two and five at a time",
        "thesis 1, figures 22-27",
        "Magnitude rules favour the parent with the larger weights. If all networks keep each unit's "
        "incoming weights at length 1 while they train, which rules merge them best? And do five merge "
        "better than two?",
        cells,
        {
            "smoke": Preset(SMOKE, "4 s", ("digits",)),
            "small": Preset(SMALL, "10 min after merging-phase-2", ("fashion-mnist",)),
            "paper": Preset(
                PAPER, "2 h after merging-phase-2, estimated", ("fashion-mnist",), comparable=True
            ),
        },
        [*_training(), *_two(), *_five()],
        report,
        (
            "At preset small five sparsities instead of twelve, 400 epochs instead of 1500, and two "
            "networks instead of five at sparsities .00 and .50, where five are not merged at once.",
            "The thesis does not say whether five merged networks are normalised before or after they are "
            "pruned: both orders are there.",
        ),
    )
]
