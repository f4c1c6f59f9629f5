"""The options that choose data, shared by the commands that need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from regraft import data
from regraft.cli.common import data_dir_option
from regraft.cli.declare import offering
from regraft.data import Data
from regraft.data.catalogue import canonical
from regraft.errors import InputError
from regraft.files import Header

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Dataset:
    """Which samples: a set and what is taken from it. None leaves a choice to the set."""

    name: str
    classes: tuple[str, ...] | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    seed: int = 0

    def load(self, data_dir: Path | None, download: bool) -> Data:
        """The samples, standardised by the training samples' statistics."""
        classes = None if self.classes is None else [int(c) if c.isdecimal() else c for c in self.classes]
        return data.load(
            self.name, data_dir=data_dir, classes=classes, per_class=self.per_class,
            test_per_class=self.test_per_class, seed=self.seed, download=download,
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """The choices as JSON values, for provenance."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, choices: Mapping[str, Any]) -> Dataset | None:
        """The choices that ``plain`` gave; None where they are not such."""
        try:
            made = cls(**choices)
            classes = None if made.classes is None else tuple(str(c) for c in made.classes)
            if not all(n is None or type(n) is int for n in (made.per_class, made.test_per_class)):
                return None
            return cls(str(made.name), classes, made.per_class, made.test_per_class, int(made.seed))
        except (TypeError, ValueError):
            return None


def sample_options(
    classes: str | None, per_class: int | None, test_per_class: int | None, data_seed: int | None
) -> dict[str, Any]:
    """What the options say of the samples, as ``Dataset`` calls it; None where they say nothing.

    >>> sample_options("0,1", None, 5, None)
    {'classes': ('0', '1'), 'per_class': None, 'test_per_class': 5, 'seed': None}
    """
    return {
        "classes": parse_classes(classes), "per_class": per_class, "test_per_class": test_per_class,
        "seed": data_seed,
    }  # fmt: skip


def parse_classes(text: str | None) -> tuple[str, ...] | None:
    """``0,1,Dress`` as a tuple; None for none.

    >>> parse_classes("0, 1,Dress")
    ('0', '1', 'Dress')
    """
    return None if text is None else tuple(c.strip() for c in text.split(",") if c.strip())


def data_options(
    default: str | None, seed: int | None = 0, without: str = "the one that the network was trained on"
) -> Callable[[F], F]:
    """``--data`` and the options that go with it; ``default`` is the set taken without ``--data``, and where
    there is none ``without`` says what happens."""
    named = f"  [default: {default or without}]"

    of_training = "" if seed is not None else "  [default: that of the training, else 0]"

    def decorate(function: F) -> F:
        for option in reversed((
            click.option("--data", "name", metavar="NAME", default=default, show_default=False,
                         shell_complete=offering(data.names(), or_file=True),
                         help="Data set: a name, a folder with one folder of images per class, or a file of "
                              "text; of a text also its context, characters and part, as in "
                              "text:context=32,part=1/2." + named),
            data_dir_option,
            click.option("--download/--no-download", default=False, help="Fetch the set if it is missing."),
            click.option("--classes", metavar="LIST", default=None,
                         help="Only these classes, by label or name, as in 0,1,2.  [default: all]"),
            click.option("--per-class", type=int, metavar="N", default=None,
                         help="Training samples of each class.  [default: all]"),
            click.option("--test-per-class", type=int, metavar="N", default=None,
                         help="Test samples of each class.  [default: all]"),
            click.option("--data-seed", type=int, metavar="N", default=seed, show_default=seed is not None,
                         help="Seed of the choice of samples and of the split into training and test samples "
                              "where the set has none. Networks to be merged should share it." + of_training),
        )):  # fmt: skip
            function = option(function)
        return function

    return decorate


def choose_data(name: str | None, options: dict[str, Any], header: Header, network: Path) -> Dataset:
    """The samples to use a network on: those that the options say, else those of the network's training.

    Raises:
        InputError: neither says which set.
    """
    given = {k: v for k, v in options.items() if v is not None}
    trained_on = _trained_on(header)
    if trained_on is not None and (name is None or _same_set(name, trained_on.name)):
        return replace(trained_on, **given)
    if name is None:
        raise InputError(f"'{network}' does not say what it was trained on: pass --data NAME, such as digits")
    return Dataset(name, **given)


def _same_set(a: str, b: str) -> bool:
    return a == b or (canonical(a) is not None and canonical(a) == canonical(b))


def _trained_on(header: Header) -> Dataset | None:
    """The samples of the training; of a merged network those of its parents, where they agree."""
    found = header.provenance.get("data")
    if isinstance(found, dict):
        return Dataset.of({k: v for k, v in found.items() if k not in ("class_names", "input_shape")})
    return None
