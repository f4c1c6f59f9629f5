"""Mutations of JSON: of the values while they are a tree, of the text when it is written."""

from __future__ import annotations

import json
import random
from typing import Any

from .mutate import NUMBERS

RAW = {
    "@nan": "NaN", "@inf": "-Infinity", "@over": "1e999", "@digits": "9" * 5000,
    "@deep": "[" * 900 + "]" * 900,
    "@deeper": "[" * 30_000 + "]" * 30_000, "@objects": '{"a":' * 30_000 + "1" + "}" * 30_000,
    "@open": "[" * 100,
    "@zero": "-0", "@tiny": "1e-400", "@long": '"' + "x" * 20_000 + '"',
}  # fmt: skip
"""Texts that no tree gives when it is written, by the string that stands for each."""

TWICE = "@twice:"

VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", " ", "\ud800", "\x1b[2J\x07", "[/x]", "[bold]", "\0", "../x", "F32", "I64",
    "BF16", "nan", [],
    {},
    [[]], [0], [-1], [1, 2, 3], ["a"], {"a": 1}, {"$": "tensor"}, 0.5, -0.5, 1e308, 2.0, 1e17, *RAW,
)  # fmt: skip


def value(rng: random.Random) -> Any:
    """A value that is wrong in most places."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.randrange(-3, 40)
    found = rng.choice(VALUES)
    return json.loads(json.dumps(found)) if isinstance(found, list | dict) else found


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every part of a tree."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            pairs: list[tuple[Any, Any]] = list(part.items())
        elif isinstance(part, list):
            pairs = list(enumerate(part))
        else:
            continue
        found += [(part, key) for key, _ in pairs]
        todo += [child for _, child in pairs]
    return found


def change(rng: random.Random, tree: Any) -> None:
    """One change somewhere in a tree, in place."""
    known = places(tree)
    if not known:
        return
    within, key = rng.choice(known)
    kind = rng.randrange(9)
    if kind <= 2:
        within[key] = value(rng)
    elif kind == 3:
        del within[key]
    elif kind == 4 and isinstance(within[key], int | float):
        within[key] = within[key] + rng.choice((-1, 1, -1, 1, 7, -within[key], within[key]))
    elif kind == 5:
        other, place = rng.choice(known)
        if place in other if isinstance(other, dict) else place < len(other):
            copies = json.dumps([within[key], other[place]])
            other[place], within[key] = json.loads(copies)
    elif kind == 6 and isinstance(within, dict):
        name = rng.choice((TWICE + str(key), str(key) + "x", "", "\ud800", "__metadata__", "x" * 200))
        within[name] = within[key] if rng.random() < 0.5 else value(rng)
    elif kind == 7 and isinstance(within[key], list) and within[key]:
        within[key] = within[key] * rng.choice((2, 3, 50))
    else:
        within[key] = [within[key]] if rng.random() < 0.5 else {"a": within[key]}


def text(tree: Any) -> str:
    """JSON, and what only looks like it."""
    made = json.dumps(tree)
    if "@" in made:
        for name, raw in RAW.items():
            made = made.replace(f'"{name}"', raw)
        made = made.replace(f'"{TWICE}', '"')
    return made


def changed(rng: random.Random, made: str, most: int = 3) -> str:
    """JSON text after some changes of its tree; a text that is hostile already stays as it is."""
    try:
        tree = json.loads(made)
    except (ValueError, RecursionError):
        return made
    for _ in range(rng.randint(1, most)):
        change(rng, tree)
    return text(tree)
