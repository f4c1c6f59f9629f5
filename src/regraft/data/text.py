"""Texts: one that a grammar of regraft's own writes, or any file; samples are rows of characters."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from regraft.data import grammar
from regraft.data.partition import check_fraction
from regraft.data.prepare import Options
from regraft.data.split import Data, Split
from regraft.errors import FileError, InputError, unknown

NAME = "text"
CONTEXT = 64
CHARACTERS = 400_000
MOST = 2**31
"""Bytes of the largest file: a character takes 12 bytes in memory."""


@dataclass(frozen=True)
class TextOptions:
    """What may stand behind the name of a text, as in ``text:context=32,part=1/2``.

    Attributes:
        context: characters in a sample.
        characters: of the text that is written, or of the file at most, from its beginning; 0: all of a file.
        part: ``"k/n"`` takes the k-th of n equal parts of the training text; the test text is always the
            same.
    """

    context: int = CONTEXT
    characters: int = 0
    part: str = "1/1"

    def __post_init__(self) -> None:
        if self.context < 1:
            raise InputError(f"context is {self.context}, but a sample has 1 character or more; 64 is usual")
        if self.characters < 0:
            raise InputError(f"characters is {self.characters}, but must be 1 or more, or 0 for all")
        self.numbers()

    def numbers(self) -> tuple[int, int]:
        """k and n of the part."""
        k, slash, n = self.part.partition("/")
        if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
            raise InputError(
                f"part is {self.part!r}, but must be k/n with k from 1 to n: part=1/2 is the first half"
            )
        return int(k), int(n)


def is_text(name: str | os.PathLike[str]) -> bool:
    """Whether a name means a text: ``text``, ``text:OPTIONS``, a file, or a file with ``:OPTIONS``.

    >>> is_text("text"), is_text("text:context=32"), is_text("digits")
    (True, True, False)
    """
    base = _split(name)[0]
    return base.lower() == NAME or Path(base).expanduser().is_file()


def load_text(name: str | os.PathLike[str], options: Options) -> Data:
    """The text by its name, as ``load`` describes it.

    Raises:
        InputError: an option that texts do not have, or one out of range.
        FileError: a file that is empty, too short, too large, or no UTF-8.
    """
    _refuse(options)
    base, words = _split(name)
    own = _parse(str(name), words)
    written = base.lower() == NAME and not Path(base).expanduser().is_file()
    if written:
        text, _ = grammar.write(own.characters or CHARACTERS, options.seed)
        alphabet, title = grammar.ALPHABET, NAME
    else:
        path = Path(base).expanduser()
        text, title = _read(path), path.name
        text = text[: own.characters] if own.characters else text
        alphabet = "".join(sorted(set(text)))
    fraction = 0.1 if options.test_fraction is None else options.test_fraction
    try:
        data = from_text(text, alphabet, own, fraction, options.validation, title)
    except InputError as error:
        raise error if written else FileError(f"cannot use '{base}': {error}") from None
    return data if options.device is None else data.to(options.device)


def from_text(
    text: str, alphabet: str, own: TextOptions, test_fraction: float, validation: float, name: str
) -> Data:
    """Samples of a text: the last ``test_fraction`` of it to test on, ``validation`` of the rest before it.

    Sample i holds characters i c to i c + c - 1 as numbers in the alphabet, and for labels those one further
    on, where c is the context. What is left at the end of a part is left out.

    Raises:
        InputError: a part is too short for one sample.
    """
    check_fraction(test_fraction, "test_fraction")
    place = {c: i for i, c in enumerate(alphabet)}
    numbers = np.fromiter((place[c] for c in text), dtype=np.int64, count=len(text))
    edge = len(numbers) - max(int(test_fraction * len(numbers)), own.context + 1)
    k, n = own.numbers()
    if edge < n * (own.context + 1):
        raise InputError(
            f"a text of {len(numbers)} characters is too short for samples of {own.context} to train on "
            f"and to test on{'' if n == 1 else f' in {n} parts'}: take a longer text or a smaller context"
        )
    train, test = numbers[: max(edge, 0)], numbers[max(edge, 0) :]
    train = train[(k - 1) * len(train) // n : k * len(train) // n]
    held = None
    if validation:
        check_fraction(validation, "validation")
        cut = len(train) - max(int(validation * len(train)), own.context + 1)
        if cut <= own.context:
            raise InputError(
                f"{len(train)} characters of training text are too short to take validation={validation} "
                "off: take a longer text or a smaller context"
            )
        train, held = train[:cut], _samples(train[cut:], own.context)
    return Data(name, _samples(train, own.context), _samples(test, own.context), tuple(alphabet), held)


def _samples(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], context: int) -> Split:
    rows = (len(numbers) - 1) // context
    ids = torch.from_numpy(numbers[: rows * context + 1])
    return Split(ids[:-1].reshape(rows, context).float(), ids[1:].reshape(rows, context).clone())


def _split(name: str | os.PathLike[str]) -> tuple[str, str]:
    """What is named, and the options behind the last colon; a file whose own name has a colon is taken
    whole."""
    whole = str(name)
    base, colon, words = whole.rpartition(":")
    if not colon or Path(whole).expanduser().is_file():
        return whole, ""
    return base, words


def _parse(name: str, words: str) -> TextOptions:
    known = [f.name for f in fields(TextOptions)]
    found = TextOptions()
    for word in words.split(",") if words else ():
        key, _, value = (part.strip() for part in word.partition("="))
        if key not in known:
            raise unknown(f"option of the text '{name}'", key, known)
        if key != "part" and not value.isdecimal():
            raise InputError(f"the text '{name}' has {key}={value!r}, but it must be a whole number")
        found = replace(found, **{key: value if key == "part" else int(value)})  # type: ignore[arg-type]
    return found


def _read(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST:
            raise FileError(
                f"'{path}' has {size:,} bytes, but a text has {MOST:,} at most: take a part of it"
            )
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read '{path}' ({error.strerror}): expected a text in UTF-8") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            f"'{path}' is no text in UTF-8: byte {error.start} is 0x{content[error.start]:02x}; save it as "
            "UTF-8 (a folder of images is named by its folder)"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse(options: Options) -> None:
    """Raise InputError for choices of classes: a text has none."""
    for option in ("classes", "per_class", "test_per_class"):
        if getattr(options, option) is not None:
            raise InputError(
                f"{option} chooses samples by their class, but the samples of a text are rows of characters: "
                "take a part of it instead, as in text:characters=50000"
            )
    if isinstance(options.standardise, str):
        raise InputError(
            f"standardise is {options.standardise!r}, but the characters of a text are numbers of an "
            "alphabet, which have no scale: leave it out"
        )
