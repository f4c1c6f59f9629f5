"""Scores from text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regraft import scores
from regraft.errors import FileError, InputError
from regraft.scores import (
    SCORES,
    Connectivity,
    Inverted,
    Learned,
    Regressor,
    Saliency,
    Score,
    Stacked,
    parse,
    text_of,
)
from regraft.signals import HessianGradient

READ: dict[str, Score] = {
    **SCORES,
    "stacked(magnitude, synflow)": Stacked(scores.magnitude, scores.synflow),
    "stacked(snip, snip):scale=none:signed=yes": Stacked(scores.snip, scores.snip, scale="none", signed=True),
    "inverted(snip)": Inverted(scores.snip),
    "grasp:temperature=1.0": Saliency(HessianGradient(1.0)),
    "grasp:temperature=1.0:magnitude=yes": Saliency(HessianGradient(1.0), magnitude_of=True),
    "connectivity:importance=strength:power=0.5": Connectivity("strength", 0.5),
    "snip:normalise=yes": replace(scores.snip, normalise=True),
    "stacked(inverted(grasp:temperature=2.0), stacked(magnitude, snip, random))": Stacked(
        Inverted(Saliency(HessianGradient(2.0))), Stacked(scores.magnitude, scores.snip, scores.random)
    ),
}


@pytest.mark.parametrize("text", sorted(READ))
def test_text_to_score_and_back(text: str) -> None:
    assert parse(text) == READ[text]
    assert parse(text_of(READ[text])) == READ[text]


def test_blanks_and_other_spellings() -> None:
    assert parse("  stacked( magnitude ,synflow ) : signed = TRUE ") == Stacked(
        scores.magnitude, scores.synflow, signed=True
    )
    assert parse("grasp:temperature=200") == scores.grasp
    assert parse("grasp:magnitude=1") == scores.grasp_magnitude


def test_learned_files(tmp_path: Path) -> None:
    path = tmp_path / "a score.safetensors"
    line = Regressor("linear", {"coef": torch.ones(1), "intercept": torch.zeros(1)}, 1)
    Learned(line, ("magnitude",)).save(path)
    assert isinstance(parse(f"learned:{path}"), Learned)
    stacked = parse(f"stacked(learned:{path}, synflow)")
    assert isinstance(stacked, Stacked)
    assert isinstance(stacked.scores[0], Learned)
    assert text_of(stacked) == "stacked(learned, synflow)"
    with pytest.raises(FileError, match="cannot read"):
        parse(f"learned:{tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("snipp", "unknown score 'snipp': did you mean 'snip'"),
        ("stacked(magnitud, snip)", "did you mean 'magnitude'"),
        ("stacked(snip, synflow", "a closing bracket or a comma is missing"),
        ("stacked snip", "'stacked' needs scores in brackets"),
        ("stacked(snip)", "Stacked got 1 scores"),
        ("stacked()", "a name is missing"),
        ("", "a name is missing"),
        ("inverted(snip, grasp)", "'inverted' takes one score, not 2"),
        ("snip)", "there is '\\)' after its end"),
        (
            "grasp:temprature=1",
            "unknown option of the score 'grasp' 'temprature': did you mean 'temperature'",
        ),
        ("grasp:temperature=hot", "temperature is 'hot', but must be a number"),
        ("grasp:temperature", "temperature is '', but must be a number"),
        ("grasp:temperature=0", "temperature is 0.0, but must be a positive number"),
        ("stacked(snip, snip):scale=two", "unknown scale of Stacked 'two'"),
        ("stacked(snip, snip):scale", "unknown scale of Stacked ''"),
        ("snip:normalise=perhaps", "normalise is 'perhaps', but must be yes or no"),
        ("magnitude:temperature=1", "'magnitude' has no options"),
        ("learned", "'learned' needs a file"),
        ("learned:", "'learned' needs a file"),
        ("inverted(" * 60 + "snip" + ")" * 60, "nested more than 50 deep"),
    ],
)
def test_errors(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        parse(text)


def test_text_of_the_users_own() -> None:
    def mine(model: object, probe: object = None, *, values: object = None, active: object = None) -> object:
        return {}

    assert text_of(mine) == "mine"  # type: ignore[arg-type]
    assert text_of(Saliency(mine)) == "Saliency"  # type: ignore[arg-type]
