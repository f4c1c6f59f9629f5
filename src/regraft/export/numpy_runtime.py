"""Runs a network that ``regraft export --to npz`` wrote. It needs NumPy and nothing else, regraft neither:
copy this file to the device, beside the network::

    from numpy_runtime import Network
    network = Network("m.npz")
    scores = network(x)            # x [batch, *input_shape], float32

As a command it prints the class of each sample of an array: ``python numpy_runtime.py m.npz x.npy``.
"""

from __future__ import annotations

import io
import json
import math
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray; the copy runs with any numpy
FORMAT = 1
MOST = 2**22  # numbers between two layers, for one sample
WINDOWS = 2**26  # numbers in all windows of a convolution, for one sample
BLOCK = 64  # samples that are computed together; bounds the memory


class Network:
    """A network in evaluation mode.

    Attributes:
        input_shape, output_shape: shapes for one sample.
    """

    def __init__(self, path: Any) -> None:
        """Read the file ``path``, which need not be trusted.

        OSError where there is none, ValueError where it is damaged or not a network of a known format.
        """
        with open(path, "rb") as file:
            try:
                self._read(_Arrays(file))
            except Exception as error:  # the readers of zip and JSON raise almost anything on corrupt bytes
                told = "".join(c if c.isprintable() else " " for c in str(error))  # the file may say anything
                reason = " ".join(told.split())[:300] or type(error).__name__
                raise ValueError(f"'{path}' is not a network that this runtime can read: {reason}") from error
        last = {i: n for n, step in enumerate(self.steps) for i in step.inputs}
        self._free = [[i for i, n in last.items() if n == at] for at in range(len(self.steps))]

    def _read(self, arrays: _Arrays) -> None:
        program = json.loads(bytes(arrays["program"]).decode())
        if program["format"] != FORMAT:
            raise ValueError(
                f"it has format {program['format']!r}, but this runtime reads {FORMAT}: take the runtime of "
                "the regraft that wrote it"
            )
        self.input_shape = _shape(program["input_shape"])
        self.steps = [_Step(step, arrays) for step in program["steps"]]
        self.output_shape = self.steps[-1].shape
        known = {0: self.input_shape}
        for step in self.steps:
            step.check([known[i] for i in step.inputs])
            known[step.output] = step.shape

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


class _Arrays:
    """The arrays of a file: each as large as it says twice, in the file's table and in its own header, all
    together not much larger than the file."""

    def __init__(self, file: Any) -> None:
        size = file.seek(0, 2)
        self._zip = zipfile.ZipFile(file)
        members = self._zip.infolist()
        packed, whole = sum(m.compress_size for m in members), sum(m.file_size for m in members)
        if packed > size or whole > 2**26 + 100 * size:
            raise ValueError("it unpacks to more than a hundred times its length")

    def __getitem__(self, name: str) -> Array:
        member = self._zip.getinfo(f"{name}.npy")
        with self._zip.open(member) as packed:
            data = packed.read(member.file_size)
        stream = io.BytesIO(data)
        read = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if read else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(stream)
        shape = _shape(shape, 2**40)
        if dtype.kind not in "iuf" or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
            raise ValueError(f"the array {name!r} is not what its header says")
        flat = np.frombuffer(data, dtype, offset=stream.tell()) if math.prod(shape) else np.zeros(0, dtype)
        return flat.reshape(shape, order="F" if by_columns else "C")


def _shape(value: Any, most: int = MOST) -> tuple[int, ...]:
    """A shape that can be: whole numbers, 0 or more, not too many places."""
    shape = tuple(value)
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(max(n, 1) for n in shape) > most:
        raise ValueError(f"the shape {str(shape)[:100]}")
    return shape


class _Step:
    def __init__(self, description: dict[str, Any], file: _Arrays) -> None:
        self.op = description["op"]
        if self.op not in OPS:
            raise ValueError(f"the network has the unknown operation '{self.op}': take a newer runtime")
        self.settings = description["settings"]
        self.inputs, self.output = description["inputs"], description["output"]
        self.shape = _shape(description["shape"])
        parts = {name: file[key] for name, key in description["arrays"].items()}
        self.bias, self.factor = parts.get("bias"), parts.get("factor")
        if "values" in parts:
            self._unpack(
                parts, tuple(description["weight_shape"]), description["layout"], description["coding"]
            )

    def check(self, shapes: list[tuple[int, ...]]) -> None:
        """ValueError, or whatever else is raised, unless the step can take inputs of these shapes."""
        size = math.prod(self.shape)
        if len(shapes) != (2 if self.op == "add" else 1):
            raise ValueError(f"the operation '{self.op}' has {len(shapes)} inputs")
        if self.op in ("conv", "max_pool", "avg_pool"):
            spatial = shapes[0][1:]
            kernel, stride, dilation = (_shape(self.settings[k]) for k in ("kernel", "stride", "dilation"))
            pads = [_shape(pair) for pair in self.settings["pads"]]
            span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
            fits = min(*kernel, *stride, *dilation) > 0 and len(spatial) == len(kernel) in (1, 2)
            if not fits or any(max(pair) > n + 64 for pair, n in zip(pads, span, strict=True)):
                raise ValueError(f"windows of {kernel} every {stride}, {dilation} apart, padded by {pads}")
            sizes = zip(spatial, pads, span, stride, strict=True)
            out = tuple((n + sum(pad) - s) // step + 1 for n, pad, s, step in sizes)
            windows = math.prod(out) * math.prod(kernel) * shapes[0][0]
            if min(out) < 1 or self.shape[1:] != out or windows > WINDOWS:
                raise ValueError(f"windows of {kernel} over {spatial} that give {self.shape[1:]}")
            if self.op == "conv":
                groups = self.settings["groups"]
                if type(groups) is not int or groups < 1 or shapes[0][0] % groups or self.shape[0] % groups:
                    raise ValueError(f"{groups} groups")
                if self.weight_shape != (self.shape[0], shapes[0][0] // groups, *kernel):
                    raise ValueError(f"a kernel of shape {self.weight_shape}")
        elif self.op == "linear":
            if shapes[0][-1] != self.weight_shape[1] or self.shape != (*shapes[0][:-1], self.weight_shape[0]):
                raise ValueError(f"a weight of shape {self.weight_shape} that takes {shapes[0]}")
        elif any(math.prod(shape) != size for shape in shapes):
            raise ValueError(f"the operation '{self.op}' from {shapes} to {self.shape}")

    def run(self, *inputs: Array) -> Array:
        return OPS[self.op](self, *inputs)

    def _unpack(self, parts: dict[str, Array], shape: tuple[int, ...], layout: str, coding: str) -> None:
        """Columns and values in row order, and where each row that is not empty starts."""
        self.weight_shape = _shape(shape, 2**40)
        if shape[0] > MOST:
            raise ValueError(f"a weight of {shape[0]} units")
        values, counts = parts["values"].astype(np.float32), parts.get("counts", np.zeros(0, np.int64))
        rows, fan_in = shape[0], int(np.prod(shape[1:]))
        self.dense = None
        if layout == "dense":
            self.dense = values.reshape(rows, fan_in)
            if "scales" in parts:
                self.dense *= parts["scales"][:, None]
            return
        place = parts["at"].astype(np.intp)
        if counts.ndim != 1 or place.shape != values.shape or counts.astype(np.float64).sum() != place.size:
            raise ValueError("the connections do not fit their counts")
        line = np.repeat(np.arange(len(counts)), counts)
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
