"""What thesis 1 says of its phase 2: tables 2, 4, 5 and 6, and figures 9 to 20 as its text reads them.

The values of the heat maps and the parallel coordinates stand in its pictures alone; of those, what the text
says is taken. Tolerances: a mean of accuracies over pairs of five networks has a standard error of about a
point, so differences "around 10 %" may be off by 4, those of a few percent by 2; what the thesis calls a
minimum or a maximum is an ordering with that difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers.merging_measures import (
    ALL,
    KEEPING,
    Key,
    grid,
    less,
    means,
    pairs,
    parents,
    samples,
    scaled,
    sparsities,
)
from regraft.studies.papers.merging_steps import deactivation
from regraft.studies.study import Rows

REAL = ("small", "paper")  # what does not depend on how many networks there are
Samples = Callable[[Rows], Any]

EXPECTED = {0.1: 0.18, 0.2: 0.33, 0.3: 0.46, 0.4: 0.57, 0.5: 0.67, 0.6: 0.75, 0.7: 0.82, 0.8: 0.89, 0.9: 0.95,
            0.95: 0.97, 0.99: 0.99}  # fmt: skip
DIAMETERS = {0.1: 0.006, 0.2: 0.011, 0.3: 0.017, 0.4: 0.018, 0.5: 0.018, 0.6: 0.015, 0.7: 0.017, 0.8: 0.027,
             0.9: 0.035, 0.95: 0.057, 0.99: 0.132}  # fmt: skip
# table 5: maximum difference and spread over the other kind of rule, in percent
SWITCHED = {
    ("weights", "addition"): (5, 2), ("weights", "average"): (13, 5), ("weights", "magnitude"): (5, 2),
    ("weights", "random"): (7, 3), ("biases", "addition"): (18, 7), ("biases", "average"): (9, 4),
    ("biases", "magnitude"): (14, 6), ("biases", "random"): (17, 7), ("biases", "nothing"): (17, 7),
}  # fmt: skip


def of(
    weights: str | Sequence[str] = KEEPING,
    biases: str | Sequence[str] = ALL,
    at: Sequence[float] | None = None,
    *,
    figure: str = "accuracy",
    scale: float = 100.0,
) -> Callable[[Rows], Mapping[Key, float]]:
    """A measure for an ordering: one value for each network and sparsity."""
    return lambda rows: samples(rows, weights, biases, at, figure=figure, scale=scale)


def difference(
    a: Callable[[Rows], Mapping[Key, float]], b: Callable[[Rows], Mapping[Key, float]]
) -> Callable[[Rows], list[float]]:
    """A measure for a number: the mean of a - b at each sparsity."""
    return lambda rows: less(a(rows), b(rows))


def mean_of(values: Callable[[Rows], Mapping[Key, float]]) -> Callable[[Rows], list[float]]:
    """A measure for a number: the mean at each sparsity."""
    return lambda rows: means(values(rows))


def distances() -> list[Claim]:
    """Table 2, and what figures 19 and 20 say of NNSTD."""
    found: list[Claim] = []
    for sparsity, value in EXPECTED.items():
        found.append(Number(
            f"NNSTD of two random topologies, sparsity {sparsity:.2f}", "thesis 1, table 2", value,
            0.006,  # half of the last printed digit, and the spread of a draw of 300,000 positions
            lambda rows, s=sparsity: _random(rows, s),  # type: ignore[misc]
            unit="", comparable=REAL,
        ))  # fmt: skip
    for sparsity, value, tolerance in ((0.95, 0.67, 0.02), (0.9, 0.65, 0.05), (0.99, 0.65, 0.05)):
        found.append(Number(
            f"NNSTD of a merged network to its parents, sparsity {sparsity:.2f}",
            "thesis 1, section 7.8.1 and figure 20", value, tolerance,
            lambda rows, s=sparsity: _to_parents(rows, s), unit="", comparable=REAL,  # type: ignore[misc]
        ))  # fmt: skip
    for sparsity, value in DIAMETERS.items():
        found.append(Number(
            f"mean diameter of the ellipses along NNSTD, sparsity {sparsity:.2f}", "thesis 1, table 6", value,
            # a standard deviation that comes from how unlike 20 networks are is known to some 16 %; with
            # fewer of them less well: a third of the value, or half a hundredth
            max(0.005, value / 3),
            lambda rows, s=sparsity: _diameters(rows, s), unit="",  # type: ignore[misc]
        ))  # fmt: skip
    found.append(Order(
        "merged networks are nearer to their parents than chance", "thesis 1, section 7.8.1",
        lambda rows: {k: v for k, v in _chance(rows).items() if k[0] > 0},
        lambda rows: {k: v for k, v in _nnstd(rows, KEEPING).items() if k[0] > 0}, unit="",
    ))  # fmt: skip
    found.append(Order(
        "parents trained on the same data are nearer to each other than chance (by a tenth of the distance "
        "that this is to explain)", "thesis 1, section 7.8.1", lambda rows: _between(rows, "expected_nnstd"),
        lambda rows: _between(rows, "nnstd"), least=0.03, unit="",
    ))  # fmt: skip
    for near, far in (("magnitude", ("addition",)), ("magnitude", ("average",)), ("addition", ("random",)),
                      ("average", ("random",))):  # fmt: skip
        found.append(Order(
            f"NNSTD to the parents: {near} is below {far[0]}, sparsities .10 to .80",
            "thesis 1, section 7.8.2 and figure 19",
            lambda rows, f=far: _below(_nnstd(rows, f), 0.8),  # type: ignore[misc]
            lambda rows, n=near: _below(_nnstd(rows, (n,)), 0.8), unit="",  # type: ignore[misc]
        ))  # fmt: skip
    return found


def training() -> list[Claim]:
    """Sections 7.6.1 and 7.6.2, figure 9."""
    source = "thesis 1, section 7.6"
    found: list[Claim] = [
        Number("final accuracy of the parents", f"{source}.2 and figure 12", 87.0, 1.0,
               lambda rows: means(scaled(parents(rows)))),
        Number("share of the parents that settle at about 87 % (here: within 2 points)", f"{source}.2",
               # three of 240 do not; one network of some 35 is 3 %
               98.75, 3.0, lambda rows: _share(list(parents(rows).values()), lambda a: a >= 0.85)),
        Number("epochs after which 85 % are passed, sparsities up to .95: 50 to 250", f"{source}.2", 150, 100,
               lambda rows: means(_below(parents(rows, "passed"), 0.95)), unit="epochs"),
        Number("epochs after which 85 % are passed, sparsity .99: 600 to 1500", f"{source}.2", 1050, 450,
               lambda rows: means(parents(rows, "passed", (0.99,))), unit="epochs"),
        Number("time saved by stopping 200 epochs after 85 %", "thesis 1, section 7.5", 60, 10,
               lambda rows: [100 * (1 - v / 1500) for v in means(parents(rows, "epochs"))]),
        Order("sparser networks take longer: .99 against .95", f"{source}.2",
              lambda rows: list(parents(rows, "epochs", (0.99,)).values()),
              lambda rows: list(parents(rows, "epochs", (0.95,)).values()), paired=False, unit="epochs"),
        Order("denser networks reach a lower loss: up to .50 against .95", f"{source}.2",
              lambda rows: [-v for k, v in parents(rows, "loss").items() if k[0] <= 0.5],
              lambda rows: [-v for v in parents(rows, "loss", (0.95,)).values()], paired=False, unit="nats"),
    ]  # fmt: skip
    for sparsity in (0.1, 0.5, 0.9, 0.99):
        found += [
            Number(
                f"share of weights deactivated, sparsity {sparsity:.2f}, rate {rate:.1f}",
                f"{source}.3 and figure 9", 100 * deactivation(sparsity, rate), 0.5,
                lambda rows, s=sparsity, e=rate: _deactivated(rows, s, e),  # type: ignore[misc]
                comparable=REAL,
            )
            for rate in (0.1, 0.5)
        ]  # fmt: skip
    return found


def rankings() -> list[Claim]:
    """Table 4 and section 7.7.1."""
    found: list[Claim] = []
    order = {
        ("accuracy", "weights"): ("magnitude", "addition", "random", "average", "nothing"),
        ("loss", "weights"): ("magnitude", "addition", "random", "average", "nothing"),
        ("accuracy", "biases"): ("average", "magnitude", "addition", "random", "nothing"),
        ("loss", "biases"): ("average", "magnitude", "addition", "nothing", "random"),
    }
    for (figure, part), names in order.items():
        scale, unit = (100.0, "%") if figure == "accuracy" else (-1.0, "nats")
        for a, b in itertools.pairwise(names):
            better, worse = (
                of(name, figure=figure, scale=scale) if part == "weights"
                else of(KEEPING, name, figure=figure, scale=scale)
                for name in (a, b)
            )  # fmt: skip
            text = f"{part}, {figure}: {a} better than {b}"
            found.append(Order(text, "thesis 1, table 4", better, worse, unit=unit))
    text = "thesis 1, section 7.7.1"
    found += [
        Number("weights: magnitude above addition by up to a point", text, 0.5, 1.0,
               difference(of("magnitude"), of("addition"))),
        Number("weights: random below magnitude by around 10 points", text, 10, 4,
               difference(of("magnitude"), of("random"))),
        Number("weights: average below random by around 10 points", text, 10, 4,
               difference(of("random"), of("average"))),
        Number("loss of addition over that of magnitude: around 10 % more", text, 10, 5, _loss_ratio),
        Number("biases: magnitude below average by 5 points where weights are averaged", text, 5, 2,
               difference(of("average", "average"), of("average", "magnitude"))),
        Number("biases: addition below average by 6 points where weights are averaged", text, 6, 2,
               difference(of("average", "average"), of("average", "addition"))),
        Number("biases: random below addition by around 3 points", text, 3, 2,
               difference(of(biases="addition"), of(biases="random"))),
        Number("biases: nothing below random by around a point", text, 1, 2,
               difference(of(biases="random"), of(biases="nothing"))),
        Number("accuracy without weights", text, 20, 0.5, mean_of(of("nothing")), comparable=REAL),
        Number("loss without weights, biases added", text, 5.40, 0.54,
               mean_of(of("nothing", "addition", figure="loss", scale=1)), unit="nats"),
        # 2.30 is ln 10: with zero logits, the loss of ten outputs; five outputs would have ln 5 = 1.61
        Number("loss without weights and biases", text, 2.30, 0.01,
               mean_of(of("nothing", "nothing", figure="loss", scale=1)), unit="nats", comparable=REAL),
    ]  # fmt: skip
    return found


def switched() -> list[Claim]:
    """Table 5: what switching the other kind of rule changes."""
    found: list[Claim] = []
    for (part, name), published in SWITCHED.items():
        for i, what in enumerate(("maximum difference", "spread")):
            found.append(Number(
                f"{what} over the {'biases' if part == 'weights' else 'weights'}' rules, {part} by {name}",
                "thesis 1, table 5", published[i],
                # the difference of the best and the worst of four or five means, and their deviation
                (3.0, 1.5)[i],
                lambda rows, p=part, n=name, k=i: [_switch(rows, p, n)[k]],  # type: ignore[misc]
            ))  # fmt: skip
    found.append(Order(
        "at high sparsity (.95, .99) the bias rule matters more than the weight rule",
        "thesis 1, section 7.7.2 and figure 15", lambda rows: _impact(rows, "biases", (0.95, 0.99)),
        lambda rows: _impact(rows, "weights", (0.95, 0.99)),
    ))  # fmt: skip
    found.append(Order(
        "at low sparsity (.00, .10) the weight rule matters more than the bias rule",
        "thesis 1, section 7.7.2 and figure 15", lambda rows: _impact(rows, "weights", (0.0, 0.1)),
        lambda rows: _impact(rows, "biases", (0.0, 0.1)),
    ))  # fmt: skip
    return found


def by_sparsity() -> list[Claim]:
    """Sections 7.7.2 to 7.7.5, figures 14 to 16."""
    text = "thesis 1, section 7.7.4 and figure 14"
    low, high = (0.0, 0.1), (0.95, 0.99)
    alike = "no worse than by 2 points at .95 and .99"
    found: list[Claim] = [
        Number("random, all biases, full networks", text, 55, 4, mean_of(of("random", at=(0.0,)))),
        Number("magnitude above random at .00 and .10: 20 points", "thesis 1, section 7.7.2", 20, 5,
               difference(of("magnitude", at=low), of("random", at=low))),
        Order("random: more than 25 points between sparsity .99 and full", text,
              lambda rows: list(samples(rows, "random", at=(0.99,)).values()),
              lambda rows: list(samples(rows, "random", at=(0.0,)).values()), paired=False, least=25.0),
        *(Order(f"{rule}: {alike} than magnitude", "thesis 1, sections 4.2 and 7.7.4", of(rule, at=high),
                of("magnitude", at=high), least=-2.0) for rule in ("addition", "random")),
        *(Order(f"{rule}: at most 15 points between any two sparsities",
                text, lambda rows, r=rule: dict.fromkeys(_ranges(rows, r), 15.0),  # type: ignore[misc]
                lambda rows, r=rule: _ranges(rows, r))  # type: ignore[misc]
          for rule in ("magnitude", "addition")),
        *(Order(f"{rule} with biases added is better at .95 and .99 than at .00 and .10",
                "thesis 1, section 7.7.5",
                lambda rows, r=rule: list(samples(rows, r, "addition", high).values()),  # type: ignore[misc]
                lambda rows, r=rule: list(samples(rows, r, "addition", low).values()),  # type: ignore[misc]
                paired=False)
          for rule in ("addition", "magnitude", "random")),
        Order("average with biases added is worse at .95 and .99 than at .00 and .10",
              "thesis 1, section 7.7.5",
              lambda rows: list(samples(rows, "average", "addition", low).values()),
              lambda rows: list(samples(rows, "average", "addition", high).values()), paired=False),
        Number("weights averaged: averaging biases above adding them, mean", text, 11, 4,
               difference(of("average", "average"), of("average", "addition"))),
        Order("weights averaged: averaging biases above adding them by over 15 points at .99", text,
              of("average", "average", (0.99,)), of("average", "addition", (0.99,)), least=15.0),
        Number("weights averaged: averaging biases above adding them, full networks", text, 1, 2,
               difference(of("average", "average", (0.0,)), of("average", "addition", (0.0,)))),
    ]  # fmt: skip
    return found


# --- measures


def _deactivated(rows: Rows, sparsity: float, rate: float) -> list[float]:
    found = rows.where(kind="deactivated", sparsity=sparsity, rate=rate).column("share")
    return [100 * v for v in found]


def _random(rows: Rows, sparsity: float) -> list[float]:
    return rows.where(kind="random pair", sparsity=sparsity).column("nnstd")


def _to_parents(rows: Rows, sparsity: float) -> list[float]:
    return list(_nnstd(rows, ("magnitude", "addition", "random", "average"), (sparsity,)).values())


def _nnstd(rows: Rows, rules: Sequence[str], at: Sequence[float] | None = None) -> dict[Key, float]:
    """Mean NNSTD to both parents over pairs of different networks, for each network (figure 19 has those)."""
    found: dict[Key, list[float]] = {}
    for sparsity in sparsities(rows):
        for rule in rules if at is None or sparsity in at else ():
            for r in pairs(rows, rule, "average", sparsity):
                for name in ("a", "b") if r["a"] != r["b"] else ():
                    found.setdefault((sparsity, r[name]), []).append(r["nnstd"])
    return {key: fmean(values) for key, values in found.items()}


def _chance(rows: Rows) -> dict[Key, float]:
    return _pair_means(rows, "expected_nnstd")


def _between(rows: Rows, figure: str) -> dict[Key, float]:
    """NNSTD of each parent to the others."""
    return {key: v for key, v in _pair_means(rows, figure).items() if key[0] > 0}


def _pair_means(rows: Rows, figure: str) -> dict[Key, float]:
    found: dict[Key, list[float]] = {}
    for r in rows.where(kind="parents").rows:
        for name in ("a", "b") if r["a"] != r["b"] else ():
            found.setdefault((r["sparsity"], r[name]), []).append(r[figure])
    return {key: fmean(values) for key, values in found.items()}


def _below(values: Mapping[Key, float], most: float) -> dict[Key, float]:
    """Those of sparsities above 0 and up to ``most``."""
    return {key: v for key, v in values.items() if 0 < key[0] <= most}


def _diameters(rows: Rows, sparsity: float) -> list[float]:
    """Four standard deviations of NNSTD of each weight rule's networks, both parents, different ones."""
    found = []
    for rule in KEEPING:
        chosen = [r for r in pairs(rows, rule, "average", sparsity) if r["a"] != r["b"]]
        if len(chosen) > 1:
            found.append(4 * pstdev([v for r in chosen for v in (r["nnstd_a"], r["nnstd_b"])]))
    return found


def _share(values: Sequence[float], holds: Callable[[float], bool]) -> list[float]:
    return [100 * fmean(map(holds, values))] if values else []


def _loss_ratio(rows: Rows) -> list[float]:
    """How much larger addition's loss is than magnitude's, in percent, at each sparsity."""
    loss = {r: means(samples(rows, r, figure="loss", scale=1)) for r in ("magnitude", "addition")}
    if not loss["magnitude"]:
        return []
    return [100 * (fmean(loss["addition"]) / fmean(loss["magnitude"]) - 1)]


def _switch(rows: Rows, part: str, name: str) -> tuple[float, float]:
    """Table 5: maximum difference and standard deviation of figure 13's accuracies over the other rule."""
    found = grid(rows, "accuracy")
    values = [v for (w, b), v in found.items() if w != "nothing" and (w if part == "weights" else b) == name]
    return max(values) - min(values), pstdev(values)


def _impact(rows: Rows, part: str, at: Sequence[float]) -> dict[Any, float]:
    """How far apart the rules of one kind are, for each rule of the other kind, at each sparsity; of weight
    rules, without average, as in figure 15, and of bias rules without nothing."""
    weights, biases = ("magnitude", "addition", "random"), ("magnitude", "average", "addition", "random")
    found: dict[Any, float] = {}
    for sparsity in at if set(at) <= set(sparsities(rows)) else ():
        table = {(w, b): list(samples(rows, w, b, (sparsity,)).values()) for w in weights for b in biases}
        for i, seed in enumerate(samples(rows, weights[0], biases[0], (sparsity,))):
            spans = [
                _span([table[w, b][i] for b in biases]) for w in weights
            ] if part == "biases" else [_span([table[w, b][i] for w in weights]) for b in biases]  # fmt: skip
            found[seed] = fmean(spans)
    return found


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _ranges(rows: Rows, rule: str) -> dict[int, float]:
    """Between the best and the worst sparsity, for the i-th network of each sparsity."""
    by_seed: dict[int, list[float]] = {}
    for (_, seed), value in samples(rows, rule).items():
        by_seed.setdefault(seed, []).append(value)
    return {seed: _span(v) for seed, v in by_seed.items() if len(v) == len(sparsities(rows))}


CLAIMS: list[Claim] = [*distances(), *training(), *rankings(), *switched(), *by_sparsity()]
