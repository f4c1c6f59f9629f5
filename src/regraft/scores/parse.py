"""Scores from text: ``snip``, ``grasp:temperature=1``, ``stacked(magnitude, synflow)``, ``learned:FILE``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from regraft.errors import InputError, unknown
from regraft.scores.composed import Inverted, Stacked
from regraft.scores.connectivity import Connectivity
from regraft.scores.learned import Learned
from regraft.scores.named import SCORES
from regraft.scores.protocol import Score
from regraft.scores.saliency import Saliency
from regraft.signals import HessianGradient

_DEEPEST = 50
_KNOWN = (*SCORES, "stacked", "inverted", "learned")


def parse(text: str) -> Score:
    """The score that a text stands for.

    A name of ``SCORES``; ``stacked(a, b, ...)`` and ``inverted(a)`` of such; ``learned:FILE``. Options follow
    after colons: ``grasp:temperature=1:magnitude=yes``, ``snip:normalise=yes``,
    ``stacked(snip, snip):signed=yes:normalise=no``.

    >>> parse("stacked(magnitude, synflow)") == Stacked(SCORES["magnitude"], SCORES["synflow"])
    True
    >>> parse("grasp:temperature=1").signal
    HessianGradient(temperature=1.0)

    Raises:
        InputError: an unknown name or option, with the nearest known ones; a bracket missing.
        FileError: ``learned:FILE`` names no learned score.
    """
    reader = _Reader(text)
    score = reader.score(0)
    if reader.rest():
        raise reader.refusal(f"there is '{reader.rest()}' after its end")
    return score


class _Reader:
    """A text read from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def rest(self) -> str:
        return self.text[self.at :].strip()

    def refusal(self, fault: str) -> InputError:
        return InputError(
            f"cannot read the score {self.text!r}: {fault}; write it as in 'snip', 'grasp:temperature=1' or "
            "'stacked(magnitude, synflow)'"
        )

    def take(self, pattern: str) -> str:
        """The next word that looks like ``pattern``, blanks around it left out; empty if there is none."""
        match = re.compile(rf"\s*({pattern})\s*").match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[1]

    def score(self, depth: int) -> Score:
        if depth > _DEEPEST:
            raise self.refusal(f"it is nested more than {_DEEPEST} deep")
        name = self.take(r"[\w-]+")
        if not name:
            raise self.refusal("a name is missing")
        if name not in _KNOWN:
            raise unknown("score", name, _KNOWN)
        if name == "learned":
            return Learned.load(self._file())
        parts = self._parts(name, depth) if name in ("stacked", "inverted") else []
        return _made(name, parts, self._options(name))

    def _file(self) -> str:
        path = self.take(r":[^,)]+")[1:].strip()
        if not path:
            raise self.refusal("'learned' needs a file, as in learned:score.safetensors")
        return path

    def _parts(self, name: str, depth: int) -> list[Score]:
        if not self.take(r"\("):
            raise self.refusal(f"'{name}' needs scores in brackets")
        parts = [self.score(depth + 1)]
        while self.take(","):
            parts.append(self.score(depth + 1))
        if not self.take(r"\)"):
            raise self.refusal("a closing bracket or a comma is missing")
        if name == "inverted" and len(parts) != 1:
            raise self.refusal(f"'inverted' takes one score, not {len(parts)}")
        return parts

    def _options(self, name: str) -> dict[str, Any]:
        known, found = _OPTIONS.get(name, {}), {}
        while self.take(":"):
            key = self.take(r"[\w-]+")
            if key not in known:
                if not known:
                    raise self.refusal(f"'{name}' has no options")
                raise unknown(f"option of the score '{name}'", key, known)
            word = self.take("=") and self.take(r"[^\s:,()]+")
            try:
                found[key] = known[key](word)
            except (KeyError, ValueError):
                kind = "a number" if known[key] is float else "yes or no"
                raise self.refusal(f"{key} is {word!r}, but must be {kind}") from None
        return found


def _yes(word: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[word.lower()]


_SALIENCY: dict[str, Callable[[str], Any]] = {"magnitude": _yes, "normalise": _yes}
_OPTIONS: dict[str, dict[str, Callable[[str], Any]]] = {
    **{name: _SALIENCY for name, score in SCORES.items() if isinstance(score, Saliency)},
    "grasp": {"temperature": float, **_SALIENCY},
    "grasp-magnitude": {"temperature": float, **_SALIENCY},
    "connectivity": {"importance": str, "power": float},
    "stacked": {"scale": str, "signed": _yes},
}


def _made(name: str, parts: list[Score], options: dict[str, Any]) -> Score:
    if name == "stacked":
        return Stacked(*parts, **options)
    if name == "inverted":
        return Inverted(parts[0])
    if name == "connectivity":
        return Connectivity(**options)
    score = SCORES[name]
    if not isinstance(score, Saliency):
        return score
    if "temperature" in options:
        score = replace(score, signal=HessianGradient(options["temperature"]))
    return replace(
        score,
        magnitude_of=options.get("magnitude", score.magnitude_of),
        normalise=options.get("normalise", score.normalise),
    )


def text_of(score: Score) -> str:
    """A text for files and tables; ``parse`` reads it, unless the score is the user's own or learned.

    >>> text_of(parse("stacked( grasp:temperature=1,synflow ):signed=yes"))
    'stacked(grasp:temperature=1.0, synflow):signed=yes'
    """
    for name, known in SCORES.items():
        if score == known:
            return name
    if isinstance(score, Inverted):
        return f"inverted({text_of(score.score)})"
    if isinstance(score, Stacked):
        text = f"stacked({', '.join(text_of(s) for s in score.scores)})"
        return (
            text
            + ("" if score.scale == "one" else f":scale={score.scale}")
            + (":signed=yes" if score.signed else "")
        )
    if isinstance(score, Connectivity):
        return f"connectivity:importance={score.importance}:power={score.power}"
    if isinstance(score, Learned):
        return "learned"
    if isinstance(score, Saliency):
        for name, known in SCORES.items():
            hessian = isinstance(score.signal, HessianGradient) and name == "grasp"
            if isinstance(known, Saliency) and (known.signal == score.signal or hessian):
                text = name
                if known.signal != score.signal and isinstance(score.signal, HessianGradient):
                    text += f":temperature={score.signal.temperature}"
                if score.magnitude_of != known.magnitude_of:
                    text += f":magnitude={'yes' if score.magnitude_of else 'no'}"
                return text + (":normalise=yes" if score.normalise else "")
    return getattr(score, "__name__", type(score).__name__)
