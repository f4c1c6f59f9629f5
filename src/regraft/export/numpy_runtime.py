"""Runs a network that ``regraft export --to npz`` wrote. It needs NumPy and nothing else, regraft neither:
copy this file to the device, beside the network::

    from numpy_runtime import Network
    network = Network("m.npz")
    scores = network(x)            # x [batch, *input_shape], float32

As a command it prints the class of each sample of an array: ``python numpy_runtime.py m.npz x.npy``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray; the copy runs with any numpy
FORMAT = 1
BLOCK = 64  # samples that are computed together; bounds the memory


class Network:
    """A network in evaluation mode.

    Attributes:
        input_shape, output_shape: shapes for one sample.
    """

    def __init__(self, path: Any) -> None:
        """Read the file ``path``. ValueError where it is not a network of a known format."""
        with np.load(path, allow_pickle=False) as file:
            if "program" not in file:
                raise ValueError(f"'{path}' is not a network that regraft exported: it has no program")
            program = json.loads(bytes(file["program"]).decode())
            if program.get("format") != FORMAT:
                raise ValueError(
                    f"'{path}' has format {program.get('format')}, but this runtime reads {FORMAT}: "
                    "take the runtime of the regraft that wrote it"
                )
            self.input_shape = tuple(program["input_shape"])
            self.steps = [_Step(step, file) for step in program["steps"]]
        self.output_shape = self.steps[-1].shape
        last = {i: n for n, step in enumerate(self.steps) for i in step.inputs}
        self._free = [[i for i, n in last.items() if n == at] for at in range(len(self.steps))]

    def __call__(self, x: Any) -> Array:
        """Output ``[batch, *output_shape]``, float32; ``x`` is ``[batch, *input_shape]``, or one sample."""
        x = np.asarray(x, np.float32)
        if x.shape == self.input_shape:
            return self(x[None])[0]
        if x.shape[1:] != self.input_shape:
            raise ValueError(f"x has shape {x.shape}, but one sample has shape {self.input_shape}")
        if len(x) > BLOCK:
            return np.concatenate([self(x[i : i + BLOCK]) for i in range(0, len(x), BLOCK)])
        values = {0: x}
        for step, free in zip(self.steps, self._free, strict=True):
            values[step.output] = step.run(*(values[i] for i in step.inputs)).reshape(len(x), *step.shape)
            for i in free:
                del values[i]
        return values[self.steps[-1].output]


class _Step:
    def __init__(self, description: dict[str, Any], file: Any) -> None:
        self.op = description["op"]
        if self.op not in OPS:
            raise ValueError(f"the network has the unknown operation '{self.op}': take a newer runtime")
        self.settings = description["settings"]
        self.inputs, self.output = description["inputs"], description["output"]
        self.shape = tuple(description["shape"])
        parts = {name: file[key] for name, key in description["arrays"].items()}
        self.bias, self.factor = parts.get("bias"), parts.get("factor")
        if "values" in parts:
            self._unpack(
                parts, tuple(description["weight_shape"]), description["layout"], description["coding"]
            )

    def run(self, *inputs: Array) -> Array:
        return OPS[self.op](self, *inputs)

    def _unpack(self, parts: dict[str, Array], shape: tuple[int, ...], layout: str, coding: str) -> None:
        """Columns and values in row order, and where each row that is not empty starts."""
        self.weight_shape = shape
        values, counts = parts["values"].astype(np.float32), parts.get("counts", np.zeros(0, np.int64))
        rows, fan_in = shape[0], int(np.prod(shape[1:]))
        self.dense = None
        if layout == "dense":
            self.dense = values.reshape(rows, fan_in)
            if "scales" in parts:
                self.dense *= parts["scales"][:, None]
            return
        line = np.repeat(np.arange(len(counts)), counts)
        place = parts["at"].astype(np.intp)
        if coding == "step":  # running sums that start again with each line
            running = np.cumsum(place)
            starts = np.cumsum(counts, dtype=np.intp) - counts
            before = np.concatenate([[0], running])[starts]
            place = running - before[line]
        kept = values != 0
        line, place, values = line[kept], place[kept], values[kept]
        if layout == "columns":
            order = np.argsort(place, kind="stable")
            line, place, values = place[order], line[order], values[order]
        if place.size and (place.min() < 0 or place.max() >= fan_in or line.max() >= rows):
            raise ValueError("the network has connections outside of its layers: the file is corrupt")
        if "scales" in parts:
            values *= parts["scales"][line]
        self.columns, self.values = place.astype(np.intp), values
        count = np.bincount(line, minlength=rows)
        self.filled = np.flatnonzero(count)
        self.starts = (np.cumsum(count) - count)[self.filled]
        self.count = count

    def product(self, x: Array) -> Array:
        """W x for x [fan_in, n]: gather, multiply, add up each row's run."""
        if self.dense is not None:
            return self.dense @ x
        y = np.zeros((self.weight_shape[0], x.shape[1]), np.float32)
        if x.shape[1] == 1:
            picked = x[:, 0].take(self.columns)
            picked *= self.values
            if len(picked):
                y[self.filled, 0] = np.add.reduceat(picked, self.starts)
        elif len(self.values):
            picked = x.take(self.columns, axis=0)
            picked *= self.values[:, None]
            y[self.filled] = np.add.reduceat(picked, self.starts, axis=0)
        return y


def _linear(step: _Step, x: Array) -> Array:
    flat = x.reshape(-1, step.weight_shape[1])
    y = step.product(flat.T).T
    return y if step.bias is None else y + step.bias


def _windows(step: _Step, x: Array, fill: float = 0.0) -> Array:
    """Views [batch, channels, out_height, out_width, kernel_height, kernel_width] of the padded input."""
    settings = step.settings
    kernel, stride, pads, dilation = (settings[k] for k in ("kernel", "stride", "pads", "dilation"))
    if len(kernel) == 1:  # a line is an image of height 1
        x = x[:, :, None]
        kernel, stride, dilation = [1, *kernel], [1, *stride], [1, *dilation]
        pads = [[0, 0], *pads]
    if any(p for pair in pads for p in pair):
        x = np.pad(x, ((0, 0), (0, 0), *map(tuple, pads)), constant_values=fill)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _conv(step: _Step, x: Array) -> Array:
    windows = _windows(step, x)
    n, height, width = windows.shape[0], windows.shape[2], windows.shape[3]
    groups = step.settings["groups"]
    per_out = step.weight_shape[0] // groups
    y = np.empty((step.weight_shape[0], n * height * width), np.float32)
    by_place = windows.transpose(1, 4, 5, 0, 2, 3)  # channel, kernel, batch and output place
    for g, part in enumerate(np.split(by_place, groups)):
        unfolded = part.reshape(-1, n * height * width)
        rows = slice(g * per_out, (g + 1) * per_out)
        y[rows] = _rows(step, rows).product(unfolded) if groups > 1 else step.product(unfolded)
    if step.bias is not None:
        y += step.bias[:, None]
    return y.reshape(-1, n, height, width).swapaxes(0, 1)


def _rows(step: _Step, rows: slice) -> _Step:
    """The connections of some output units, as a step of its own."""
    part = object.__new__(_Step)
    part.weight_shape = (rows.stop - rows.start, *step.weight_shape[1:])
    part.dense = None if step.dense is None else step.dense[rows]
    if part.dense is None:
        ends = np.cumsum(step.count)
        first, last = ends[rows.start] - step.count[rows.start], ends[rows.stop - 1]
        count = step.count[rows]
        part.columns, part.values = step.columns[first:last], step.values[first:last]
        part.filled = np.flatnonzero(count)
        part.starts = (np.cumsum(count) - count)[part.filled]
    return part


def _avg_pool(step: _Step, x: Array) -> Array:
    windows = _windows(step, x)
    if step.settings["count_pad"]:
        return windows.mean((-2, -1))
    ones = _windows(step, np.ones((1, 1, *x.shape[2:]), np.float32))
    return windows.sum((-2, -1)) / ones.sum((-2, -1))


def _channels(array: Array, x: Array) -> Array:
    return array.reshape(-1, *(1,) * (x.ndim - 2))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x: Array) -> Array:
    low = x - x.max(-1, keepdims=True)
    return low - np.log(np.exp(low).sum(-1, keepdims=True))


def _gelu(x: Array) -> Array:
    """x Phi(x), with the error function of Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    z = np.abs(x).astype(np.float64) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-z * z)
    return (x * np.where(x > 0, 1 - tail, tail)).astype(np.float32)


OPS: dict[str, Callable[..., Array]] = {
    "linear": _linear,
    "conv": _conv,
    "scale": lambda s, x: x * _channels(s.factor, x) + _channels(s.bias, x),
    "max_pool": lambda s, x: _windows(s, x, -np.inf).max((-2, -1)),
    "avg_pool": _avg_pool,
    "reshape": lambda s, x: x,
    "add": lambda s, x, y: x + y,
    "relu": lambda s, x: np.maximum(x, 0),
    "relu6": lambda s, x: np.clip(x, 0, 6),
    "leaky_relu": lambda s, x: np.where(x > 0, x, np.float32(s.settings["negative_slope"]) * x),
    "elu": lambda s, x: np.where(x > 0, x, np.float32(s.settings["alpha"]) * np.expm1(np.minimum(x, 0))),
    "sigmoid": lambda s, x: _sigmoid(x),
    "tanh": lambda s, x: np.tanh(x),
    "silu": lambda s, x: x * _sigmoid(x),
    "gelu": lambda s, x: _gelu(x),
    "softmax": lambda s, x: _softmax(x),
    "log_softmax": lambda s, x: _log_softmax(x),
}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python numpy_runtime.py NETWORK.npz SAMPLES.npy")
    print(*Network(sys.argv[1])(np.load(sys.argv[2], allow_pickle=False)).argmax(-1), sep="\n")
