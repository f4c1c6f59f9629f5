"""Which values of a network can share memory: as few buffers as its longest-lived activations need."""

from __future__ import annotations

import math

from regraft.export.c_kernels import ELEMENTWISE
from regraft.export.program import Program, Step

_IN_PLACE = ("gelu", "add", "scale", "reshape", *ELEMENTWISE)
"""Operations that read each value before they write it, at the same place."""


class Buffers:
    """Where each value of a program lives: ``x``, ``y`` or one of the buffers.

    >>> from regraft.export.program import Program, Step
    >>> steps = (Step("relu", "a", (0,), 1, (5,)), Step("softmax", "b", (1,), 2, (5,)))
    >>> buffers = Buffers(Program((5,), steps))
    >>> [buffers.name(value) for value in (0, 1, 2)], buffers.sizes
    (['x', 'b0', 'y'], [5])
    """

    def __init__(self, program: Program) -> None:
        self.sizes: list[int] = []
        self._places: dict[int, str | int] = {0: "x"}
        last_use = {value: n for n, step in enumerate(program.steps) for value in step.inputs}
        free: list[int] = []
        for n, step in enumerate(program.steps):
            if n == len(program.steps) - 1:
                self._places[step.output] = "y"
                continue
            self._places[step.output] = self._place(step, n, last_use, free)
            for value in set(step.inputs):
                place = self._places[value]
                dead = last_use[value] == n and place != self._places[step.output]
                if isinstance(place, int) and dead:
                    free.append(place)
            if step.output not in last_use:  # nobody looks at it
                place = self._places[step.output]
                if isinstance(place, int):
                    free.append(place)

    def _place(self, step: Step, n: int, last_use: dict[int, int], free: list[int]) -> str | int:
        first = self._places[step.inputs[0]]
        if step.op == "reshape" and first == "x":
            return "x"
        if step.op in _IN_PLACE and isinstance(first, int) and last_use[step.inputs[0]] == n:
            return first
        size = math.prod(step.shape)
        if not free:
            self.sizes.append(size)
            return len(self.sizes) - 1
        best = min(free, key=lambda b: (self.sizes[b] < size, abs(self.sizes[b] - size)))
        free.remove(best)
        self.sizes[best] = max(self.sizes[best], size)
        return best

    def name(self, value: int) -> str:
        """The C name of where a value lives."""
        place = self._places[value]
        return place if isinstance(place, str) else f"b{place}"

    def declarations(self, qualifier: str) -> list[str]:
        """The buffers as C declarations."""
        return [f"    {qualifier} float b{i}[{size}];" for i, size in enumerate(self.sizes)]
