"""How the compiled sparse convolution walks: geometry, packed rows, and where each connection reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regraft.weight import SparseWeight

LANES = 16  # elements of the widest vector; packed rows are multiples of it
GROUP_BYTES = 384 * 1024  # packed input of the samples that are computed together: fits the second cache
INT32_MAX = 2**31 - 1


class Options(NamedTuple):
    """Of a convolution with one or two spatial dimensions, as two: a line is an image of height 1.

    ``pads`` are zeros before and behind: (top, bottom), (left, right).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int


def options(
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Options:
    """Options in the form of this module, for a weight of ``shape`` with one or two spatial dimensions.

    >>> options((4, 2, 3), (1,), "same", (1,), 1).pads
    ((0, 0), (1, 1))
    """
    kernel = tuple(shape[2:])
    if padding == "valid":
        pads = [(0, 0)] * len(kernel)
    elif isinstance(padding, str):  # "same": torch puts the odd zero behind
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = [(p, p) for p in padding]
    if len(kernel) == 1:
        return Options((1, kernel[0]), (1, stride[0]), ((0, 0), pads[0]), (1, dilation[0]), groups)
    return Options(
        (kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1]), (dilation[0], dilation[1]), groups
    )


def out_size(size: tuple[int, int], o: Options) -> tuple[int, int]:
    """Height and width of the output for an input of ``size``; not positive where the kernel does not fit.

    >>> out_size((32, 32), Options((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1))
    (16, 16)
    """
    if min(o.stride) < 1:
        return 0, 0
    h, w = (
        (n + sum(pad) - d * (k - 1) - 1) // s + 1
        for n, pad, d, k, s in zip(size, o.pads, o.dilation, o.kernel, o.stride, strict=True)
    )
    return h, w


@dataclass(frozen=True)
class Walk:
    """One direction: lines (output channels, or packed rows) and where their entries read."""

    pointers: Tensor  # int64 [lines + 1]
    places: Tensor  # int32 [nnz]
    perm: Tensor | None  # int32 [nnz], place among the values; None where it is the same


@dataclass(frozen=True)
class ConvPlan:
    """What the compiled kernels need for one topology, size of image and number of samples in a group.

    Attributes:
        source: the positions that it was made from.
        options: what kind of convolution it is.
        shape: the weight's, with two spatial dimensions.
        out_height, out_width: size of the output.
        packed_x, packed_y: elements of scratch.
        covered: whether every input element is read by some window, so that its gradient is written.
        geometry: the numbers and addresses that the kernels read, int64.
    """

    source: Tensor
    options: Options
    shape: tuple[int, int, int, int]
    out_height: int
    out_width: int
    packed_x: int
    packed_y: int
    covered: bool
    geometry: Tensor
    keep: tuple[Tensor, ...]  # the tensors whose addresses are in `geometry`


class _Grid(NamedTuple):
    """How an image lies in packed rows.

    phases: offsets within a stride that some kernel position uses; each gets rows of its own.
    lines, columns: of a phase, as far as outputs read; their distance is grid_width and grid_height, which
    are smaller where the zeros behind one line can serve as the zeros in front of the next.
    """

    channels: int
    phases: list[tuple[int, int]]
    lines: int
    columns: int
    grid_height: int
    grid_width: int
    out: tuple[int, int]

    @classmethod
    def of(cls, channels: int, size: tuple[int, int], o: Options) -> _Grid:
        out = out_size(size, o)
        used, extent, shared = [], [], []
        for axis in (0, 1):
            s, d, k = o.stride[axis], o.dilation[axis], o.kernel[axis]
            places = [i * d for i in range(k)]
            offsets = sorted({p % s for p in places})
            n = out[axis] + max(p // s for p in places)
            low = o.pads[axis][0]
            lead = [-(-max(low - a, 0) // s) for a in offsets]
            tail = [n - min(n, -(-max(low + size[axis] - a, 0) // s)) for a in offsets]
            used.append(offsets)
            extent.append(n)
            shared.append(min(n - 1, *lead, *tail))
        return cls(
            channels, list(itertools.product(used[0], used[1])), extent[0], extent[1],
            extent[0] - shared[0], extent[1] - shared[1], out,
        )  # fmt: skip

    def samples_per_group(self) -> int:
        """As many as the second cache holds, but enough to fill the vectors of small images."""
        sample = self.grid_height * self.grid_width
        fit = GROUP_BYTES // (4 * max(1, sample * self.channels * len(self.phases)))
        return max(1, fit, -(-128 // max(sample, 1)))

    def extent(self, group: int) -> int:
        """Elements of a packed row with ``group`` samples."""
        before = (group - 1) * self.grid_height * self.grid_width
        return before + (self.lines - 1) * self.grid_width + self.columns


def build(weight: SparseWeight, size: tuple[int, int], batch: int, o: Options) -> ConvPlan | None:
    """The plan for ``batch`` images of ``size``; O(nnz log nnz).

    None where a packed group would be too large for 32-bit places.
    """
    out_channels, per_group = weight.shape[0], weight.shape[1]
    channels = per_group * o.groups
    grid = _Grid.of(channels, size, o)
    group = max(1, min(batch, grid.samples_per_group()))
    phases = {phase: i for i, phase in enumerate(grid.phases)}
    places = [
        ((ky * o.dilation[0]), (kx * o.dilation[1]))
        for ky, kx in itertools.product(range(o.kernel[0]), range(o.kernel[1]))
    ]
    shift = [y // o.stride[0] * grid.grid_width + x // o.stride[1] for y, x in places]
    lead = _round_up(max(shift))
    row = _round_up(grid.extent(group))
    planes = channels * len(phases)
    if max(planes * row, out_channels * (lead + row)) + LANES > INT32_MAX:
        return None
    index = weight.index
    unit, rest = weight.rows(), weight.columns()
    window = len(places)
    channel = torch.div(rest, window, rounding_mode="floor")
    channel += torch.div(unit, max(out_channels // o.groups, 1), rounding_mode="floor") * per_group
    place = rest % window
    shifts = torch.tensor(shift, device="cpu")[place]
    phase = torch.tensor([phases[y % o.stride[0], x % o.stride[1]] for y, x in places], device="cpu")[place]
    plane = channel * len(phases) + phase
    order = torch.argsort(plane, stable=True)
    forward = Walk(_pointers(unit, out_channels), (plane * row + shifts).int(), None)
    reads = (unit * (lead + row) + lead - shifts)[order].int()
    back = Walk(_pointers(plane, planes), reads, order.int())
    shape = (out_channels, per_group, *o.kernel)
    return _plan(index, size, group, o, grid, (forward, back), lead, row, shape)


def _plan(
    index: Tensor, size: tuple[int, int], group: int, o: Options, grid: _Grid, walks: tuple[Walk, Walk],
    lead: int, row: int, shape: tuple[int, int, int, int],
) -> ConvPlan:  # fmt: skip
    forward, back = walks
    assert back.perm is not None
    phase = torch.tensor(grid.phases, dtype=torch.int64, device="cpu")
    keep = (phase, forward.pointers, forward.places, back.pointers, back.places, back.perm)
    planes = grid.channels * len(grid.phases)
    numbers: list[Any] = [
        grid.channels, *size, shape[0], *grid.out, *o.stride, o.pads[0][0], o.pads[1][0],
        planes, len(grid.phases), grid.lines, grid.columns, grid.grid_width, grid.grid_height,
        group, lead, row, index.numel(), *(t.data_ptr() for t in keep),
    ]  # fmt: skip
    return ConvPlan(
        index, o, shape, *grid.out, planes * row + LANES, shape[0] * (lead + row) + LANES,
        o.stride == (1, 1), torch.tensor(numbers, dtype=torch.int64, device="cpu"), keep,
    )  # fmt: skip


def _round_up(n: int) -> int:
    return -(-n // LANES) * LANES


def _pointers(line: Tensor, lines: int) -> Tensor:
    pointers = torch.zeros(lines + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(torch.bincount(line, minlength=lines), 0, out=pointers[1:])
    return pointers
