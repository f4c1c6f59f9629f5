"""Connections in few bytes: small steps or 16-bit positions, and values of 4, 2 or 1 byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import InputError, unknown
from regraft.export.program import Program, Step, Weight

VALUES = ("float32", "float16", "int8")
"""How values can be stored."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Packed:
    """The connections of a layer, line after line, each line in increasing order of position.

    Attributes:
        layout: ``"rows"``: a line is an output unit and positions are those of its inputs; ``"columns"``: a
            line is an input unit and positions are output units; ``"dense"``: rows, every position present.
        coding: ``"step"``: uint8 distance to the entry before (to 0 at the start of a line), larger
            distances bridged by entries of value 0; ``"place"``: the position itself; ``"none"``: dense.
        counts: entries of each line ``[lines]``.
        at: steps or places ``[entries]``.
        values: ``[entries]``, float32, float16 or int8.
        scales: float32 ``[out]``, by which int8 values of an output unit are multiplied; else None.
    """

    layout: str
    coding: str
    counts: Array
    at: Array
    values: Array
    scales: NDArray[np.float32] | None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        scales = 0 if self.scales is None else self.scales.nbytes
        return self.counts.nbytes + self.at.nbytes + self.values.nbytes + scales


def pack(
    weight: Weight, layout: str = "rows", values: str = "float32", *, where: str = "", dense: bool = True
) -> Packed:
    """The smallest of the codings for a weight.

    Args:
        layout: ``"rows"`` or ``"columns"``.
        values: how values are stored, one of ``VALUES``.
        where: the layer's name, for messages.
        dense: whether a weight that is nearly full may be stored as dense rows.

    >>> weight = Weight((2, 600), np.array([3, 590, 601]), np.array([1, 2, 3], np.float32))
    >>> packed = pack(weight)
    >>> packed.coding, packed.counts.tolist(), packed.at.tolist()
    ('place', [2, 1], [3, 590, 1])

    Raises:
        InputError: an unknown kind of values; values too large for float16.
    """
    if values not in VALUES:
        raise unknown("kind of values", values, VALUES)
    lines, line_length, line, place, order = _lines(weight, layout)
    stored, scales = quantise(weight, values, where)
    stored = stored[order]
    candidates = [
        _places(lines, line_length, line, place, stored, layout, scales),
        _steps(lines, line, place, stored, layout, scales),
    ]
    if dense and weight.nnz:
        full = np.zeros(weight.size, stored.dtype)
        full[weight.index] = quantise(weight, values, where)[0]
        empty = np.empty(0, np.uint8)
        candidates.append(Packed("dense", "none", empty, empty, full, scales))
    return min(candidates, key=lambda packed: packed.nbytes)


def quantise(weight: Weight, values: str, where: str = "") -> tuple[Array, NDArray[np.float32] | None]:
    """The values as stored, and for int8 the scale of each output unit: its largest magnitude over 127.

    >>> q, scale = quantise(Weight((1, 3), np.array([0, 2]), np.array([1.27, -0.5], np.float32)), "int8")
    >>> q.tolist(), round(float(scale[0]), 4)
    ([127, -50], 0.01)
    """
    if values == "float32":
        return weight.values, None
    if values == "float16":
        largest = float(np.abs(weight.values).max(initial=0))
        if largest > 65504:
            raise InputError(
                f"layer '{where}' has a weight of {largest:g}, but float16 ends at 65504: "
                "export float32 values"
            )
        return weight.values.astype(np.float16), None
    rows = weight.rows()
    peak = np.zeros(weight.shape[0], np.float32)
    np.maximum.at(peak, rows, np.abs(weight.values))
    scales = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    whole = np.clip(np.rint(weight.values / scales[rows]), -127, 127)
    return whole.astype(np.int8), scales


def layout_of(step: Step, program: Program) -> str:
    """The faster traversal: columns where the input comes from a ReLU, so that the work of units that are
    off can be skipped; else rows.
    """
    if step.op != "linear" or len(step.shape) != 1:
        return "rows"
    maker = program.maker_of(step.inputs[0])
    while maker is not None and maker.op in ("reshape", "max_pool"):
        maker = program.maker_of(maker.inputs[0])
    return "columns" if maker is not None and maker.op in ("relu", "relu6") else "rows"


def _lines(weight: Weight, layout: str) -> tuple[int, int, Array, Array, Array]:
    """Number and length of lines; line and place of each entry in the layout's order; that order."""
    row, column = weight.rows(), weight.index % max(weight.fan_in_size, 1)
    if layout == "rows":
        return weight.shape[0], weight.fan_in_size, row, column, np.arange(weight.nnz)
    order = np.argsort(column, kind="stable")
    return weight.fan_in_size, weight.shape[0], column[order], row[order], order


def _smallest(largest: int) -> Any:
    return next(t for t in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(t).max)


def _counted(line: Array, lines: int) -> Array:
    counts = np.bincount(line, minlength=lines)
    return counts.astype(_smallest(int(counts.max(initial=0))))


def _places(
    lines: int, length: int, line: Array, place: Array, values: Array, layout: str, scales: Any
) -> Packed:
    kind = _smallest(max(length - 1, 256))  # 16 bits at least: 8 are the steps' business
    return Packed(layout, "place", _counted(line, lines), place.astype(kind), values, scales)


def _steps(lines: int, line: Array, place: Array, values: Array, layout: str, scales: Any) -> Packed:
    step = np.diff(place, prepend=0)
    first = np.diff(line, prepend=-1) > 0
    step[first] = place[first]
    bridges = np.maximum(step - 1, 0) // 255
    end = np.cumsum(bridges + 1) - 1  # where each real entry lands among the bridges before it
    total = int(end[-1]) + 1 if len(end) else 0
    at, stored = np.full(total, 255, np.uint8), np.zeros(total, values.dtype)
    at[end] = step - 255 * bridges
    stored[end] = values
    return Packed(layout, "step", _counted(np.repeat(line, bridges + 1), lines), at, stored, scales)
