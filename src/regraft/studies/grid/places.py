"""A YAML file with the lines of what stands in it, so that every mistake can be found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from regraft.errors import FileError, InputError

LARGEST = 1_000_000


class Source:
    """A YAML file: its value, and where each part of it stands.

    Attributes:
        path: the file.
        value: what it holds, as plain values.
    """

    def __init__(self, path: Path) -> None:
        """Read the file; nothing in it is executed.

        Raises:
            FileError: it cannot be read.
            InputError: it is no YAML; the message says in which line.
        """
        self.path = path
        try:
            if path.stat().st_size > LARGEST:
                raise InputError(f"'{path}' is larger than {LARGEST:,} bytes, which no grid needs")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise FileError(f"cannot read '{path}': {reason}; check the path of the study") from error
        try:
            self._node = yaml.compose(text, Loader=yaml.SafeLoader)
            if _size(self._node, {}) > LARGEST:
                raise InputError(f"'{path}' grows without end by its aliases (`*name`): write the values out")
            self.value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(_told(path, error)) from error
        except (RecursionError, ValueError, AttributeError) as error:  # PyYAML's on half a date
            raise InputError(
                f"'{path}' is YAML that cannot be read ({error}); see `docs/studies/own`"
            ) from error

    def line(self, place: Sequence[str | int] = ()) -> int:
        """The line of a part, counted from 1; of the nearest part above where there is none.

        ``place`` is the way to it, such as ``("grid", "density", 0)``.
        """
        node: Any = self._node
        for step in place:
            found: Any = None
            if isinstance(node, yaml.MappingNode):
                found = next((v for k, v in node.value if _same(k.value, step)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = node.value[step]
            if found is None:
                break
            node = found
        return 1 if node is None else int(node.start_mark.line) + 1

    def error(self, place: Sequence[str | int], text: str) -> InputError:
        """A mistake at a place of the file."""
        name = "".join(f"[{s + 1}]" if isinstance(s, int) else f".{s}" for s in place).lstrip(".")
        return InputError(f"'{self.path}', line {self.line(place)}{f', {name}' if name else ''}: {text}")

    def check_names(self, place: Sequence[str | int]) -> None:
        """Raise InputError where a mapping has a name twice; YAML alone would take the last silently."""
        node: Any = self._node
        for step in place:
            if not isinstance(node, yaml.MappingNode):
                return
            node = next((v for k, v in node.value if k.value == str(step)), None)
        if not isinstance(node, yaml.MappingNode):
            return
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise InputError(
                    f"'{self.path}', line {key.start_mark.line + 1}: {key.value!r} stands there twice"
                )
            seen.add(key.value)


def _same(name: Any, step: str | int) -> bool:
    return str(name).replace("-", "_") == str(step).replace("-", "_")


def _size(node: Any, known: dict[int, float]) -> float:
    """Parts of a node when each alias is written out; infinite where it holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = [n for pair in node.value for n in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _told(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).split("\n")[0]
    at = "" if mark is None else f", line {mark.line + 1}"
    return f"'{path}'{at}: this is no YAML ({problem}); correct it there"
