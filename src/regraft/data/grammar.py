"""``write``: a text with structure at every distance, made by a small grammar of our own.

Names are invented anew in each paragraph and come back in it, so that a reader must copy them; verbs agree
with nouns across a relative clause; pronouns follow a name's last letter; quotes and brackets close; numbers
go on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

ALPHABET = '\n "(),.:ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
"""What any of these texts is made of, whatever the seed."""

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kl", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ei")
_THINGS = (
    "lamp", "kite", "boat", "drum", "letter", "basket", "ladder", "mirror", "button", "whistle", "blanket",
    "lantern", "bucket", "feather", "marble", "ribbon",
)  # fmt: skip
_BEASTS = ("goat", "heron", "badger", "donkey", "otter", "pigeon", "spider", "turtle", "lizard", "magpie")
_PLACES = ("mill", "bridge", "harbour", "orchard", "kitchen", "tower", "meadow", "quarry", "market", "cellar")
_QUALITIES = ("old", "red", "tiny", "broken", "heavy", "yellow", "silent", "golden", "crooked", "warm")
_PREPOSITIONS = ("behind", "under", "near", "inside", "above")
_DEEDS = ("found", "lost", "painted", "hid", "carried", "sold", "mended", "wanted", "borrowed", "forgot")
_HABITS = ("sleep", "wait", "sing", "hide", "dance", "grumble", "wander", "listen")
_FEELINGS = ("follow", "fear", "love", "watch", "avoid", "admire")
_SAID = ("said", "asked", "whispered", "answered", "shouted")
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip


def write(characters: int, seed: int = 0) -> tuple[str, float]:
    """A text of so many characters, and the bits of chance per character that its author used.

    No model can need fewer bits per character on average, but for the few choices that cannot be told from
    the text. The same seed gives the same text, with any version of Python.

    Args:
        characters: 1 or more.

    >>> text, bits = write(3000, seed=1)
    >>> len(text), set(text) <= set(ALPHABET), 0.3 < bits < 0.7
    (3000, True, True)
    """
    author, done, parts = _Author(seed), 0, []
    while done < characters:
        parts.append(author.paragraph())
        done += len(parts[-1])
    return "".join(parts)[:characters], author.bits / done


class _Author:
    """Draws from what a paragraph may say; ``bits`` counts the information in what was drawn."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.bits = 0.0
        self._people: list[str] = []

    def pick(self, options: Sequence[str]) -> str:
        """One of them, each equally likely."""
        return options[self.number(len(options))]

    def number(self, below: int) -> int:
        """A number from 0; ``random()`` is the one draw that Python promises never to change."""
        self.bits += math.log2(below)
        return int(self._random.random() * below)

    def paragraph(self) -> str:
        """Four to nine sentences about two people."""
        self._people = [self._name() for _ in range(2)]
        first, second = self._people
        lines = [f"{first} and {second} met {self._where()}."]
        lines += [self._sentence() for _ in range(3 + self.number(6))]
        return " ".join(lines) + "\n"

    def _name(self) -> str:
        """Two or three syllables; it ends in a for a woman, in o for a man."""
        middle = "".join(self.pick(_ONSETS) + self.pick(_VOWELS) for _ in range(1 + self.number(2)))
        return (middle + self.pick(_ONSETS) + self.pick(("a", "o"))).capitalize()

    def _sentence(self) -> str:
        kinds = (self._deed, self._deed, self._creatures, self._speech, self._counting, self._aside)
        return kinds[self.number(len(kinds))]()

    def _deed(self) -> str:
        who = self.pick(self._people)
        she, her = ("She", "her") if who.endswith("a") else ("He", "his")
        thing = self.pick(_THINGS)
        said = f"{who} {self.pick(_DEEDS)} the {self.pick(_QUALITIES)} {thing} {self._where()}."
        return said if self.number(2) else f"{said} {she} {self.pick(_DEEDS)} {her} {thing}."

    def _creatures(self) -> str:
        many, others = self.number(2), self.number(2)
        subject, object_ = self._beasts(many), self._beasts(others)
        kind = self.number(3)
        if kind == 0:
            clause = ""
        elif kind == 1:
            clause = f" that {_agree(self.pick(_FEELINGS), many)} the {object_}"
        else:
            clause = f" that the {object_} {_agree(self.pick(_FEELINGS), others)}"
        return f"The {subject}{clause} {_agree(self.pick(_HABITS), many)} {self._where()}."

    def _speech(self) -> str:
        speaker = self.number(2)
        heard = self._people[1 - speaker]
        words = f"{self.pick(_QUALITIES)} {self.pick(_THINGS)}".capitalize()
        return f'"{words}, {heard}," {self.pick(_SAID)} {self._people[speaker]}.'

    def _counting(self) -> str:
        start, length = self.number(7), 3 + self.number(3)
        return f"{self.pick(self._people)} counted: {', '.join(_NUMBERS[start : start + length])}."

    def _aside(self) -> str:
        depth = 1 + self.number(3)
        inside = [f"the {self.pick(_QUALITIES)} {self.pick(_BEASTS)}" for _ in range(depth)]
        return f"{self.pick(self._people)} slept ({' ('.join(inside)}{')' * depth}."

    def _where(self) -> str:
        return f"{self.pick(_PREPOSITIONS)} the {self.pick(_PLACES)}"

    def _beasts(self, many: int) -> str:
        return self.pick(_BEASTS) + "s" * many


def _agree(verb: str, many: int) -> str:
    """Third person: one watches, several watch."""
    if many:
        return verb
    return verb + ("es" if verb.endswith(("ch", "sh")) else "s")
