"""Tensors handed to the compiled kernels: positions out of order or range, other types, shapes and strides.

The result must be torch's own, or a refusal; death by a signal is what is looked for.
"""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft import SparseWeight, positions
from regraft.errors import RegraftError
from regraft.kernels import dispatch, fused, plan, rewiring
from regraft.layers.modules import SparseConv1d, SparseConv2d, SparseLinear
from regraft.search import exact

from . import mutate
from .target import Target, require

REFUSED = (RegraftError, TypeError, ValueError, RuntimeError, IndexError, OverflowError)
TYPES = (
    torch.float32,
    torch.float32,
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
)
WHOLE = (
    torch.int64,
    torch.int64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.uint8,
    torch.float32,
    torch.bool,
)


def _seeded(rng: random.Random) -> int:
    return rng.getrandbits(48)


def _strided(rng: random.Random, tensor: Tensor) -> Tensor:
    """The same numbers, or a part of them, in another place in memory."""
    kind = rng.randrange(6)
    if kind == 0 and tensor.ndim >= 1:
        return torch.stack([tensor, tensor], -1)[..., 0]
    if kind == 1 and tensor.ndim >= 2:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if kind == 2 and tensor.ndim >= 1 and tensor.shape[0]:
        return tensor[:1].expand(tensor.shape)
    if kind == 3 and tensor.ndim >= 1:
        return torch.cat([tensor, tensor])[tensor.shape[0] :]
    return tensor


def _normal(rng: random.Random, *shape: int) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(rng.getrandbits(30)))
    if rng.random() < 0.1 and made.numel():
        made.view(-1)[rng.randrange(made.numel())] = rng.choice((math.nan, math.inf, -math.inf, 1e30, -0.0))
    return _strided(rng, made.to(rng.choice(TYPES) if rng.random() < 0.4 else torch.float32))


def _index(rng: random.Random, size: int, most: int = 12) -> Tensor:
    """Positions in [0, size), increasing; or not."""
    count = rng.randrange(min(size, most) + 1)
    found = sorted(rng.sample(range(size), count))
    kind = rng.randrange(8)
    if kind == 0:
        rng.shuffle(found)
    elif kind == 1 and found:
        found[rng.randrange(count)] = max(
            min(rng.choice((size, size + 1, *mutate.NUMBERS)), 2**63 - 1), -(2**63)
        )
    elif kind == 2 and found:
        found.append(found[-1])
    made = torch.tensor(found, dtype=torch.int64)
    if rng.random() < 0.15:
        made = made.to(rng.choice(WHOLE))
    if rng.random() < 0.05:
        made = made.view(1, -1) if rng.random() < 0.5 else made.view(-1, 1)
    return _strided(rng, made) if rng.random() < 0.3 else made


def _close(a: Tensor, b: Tensor, what: str) -> None:
    require(
        a.shape == b.shape and a.dtype == b.dtype,
        f"{what}: {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}",
    )
    finite = a.isfinite() & b.isfinite()
    require(
        torch.allclose(a[finite].double(), b[finite].double(), rtol=1e-2, atol=1e-3), f"{what}: other numbers"
    )


def _linear(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    rows, cols = rng.choice(((1, 1), (3, 4), (5, 7), (0, 3), (3, 0), (17, 33)))
    index = _index(rng, rows * cols)
    weight = SparseWeight((rows, cols), index, _normal(rng, *index.shape))
    bias = None if rng.random() < 0.4 else _normal(rng, rows)
    layer = SparseLinear(weight, bias)
    shape = rng.choice(
        ((2, cols), (cols,), (1, cols), (20, cols), (2, 3, cols), (0, cols), (2, cols + 1), (), (cols, 2))
    )
    x = _normal(rng, *shape)
    if x.is_floating_point() and rng.random() < 0.5:
        x = x.detach().requires_grad_()
    with dispatch.use(rng.choice(("auto", "compressed", "compressed"))):
        y = layer(x)
        dense = weight.dense().detach()
        _close(y.detach(), F.linear(x.detach(), dense, None if bias is None else bias), "forward")
        if x.requires_grad:
            gradient = _strided(rng, torch.ones_like(y.detach()))
            y.backward(gradient)
            assert x.grad is not None
            _close(x.grad, F.linear(gradient, dense.t()), "gradient of the input")


def _convolution(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    flat = rng.random() < 0.3
    groups = rng.choice((1, 1, 1, 2, 3))
    out, per_group = rng.choice((1, 2, 4, 6)), rng.choice((1, 2, 3))
    kernel = tuple(rng.choice((1, 2, 3, 5)) for _ in range(1 if flat else 2))
    shape = (out, per_group, *kernel)
    index = _index(rng, math.prod(shape))
    weight = SparseWeight(shape, index, _normal(rng, *index.shape))
    bias = None if rng.random() < 0.4 else _normal(rng, out)

    def some(*choices: int) -> tuple[int, ...]:
        return tuple(rng.choice(choices) for _ in kernel)

    settings: dict[str, Any] = {
        "stride": some(1, 1, 2, 3, 7), "dilation": some(1, 1, 2, 4), "groups": groups,
        "padding": rng.choice(("same", "valid", some(0, 1, 2, 9), some(0, 1), some(0, 1))),
    }  # fmt: skip
    if rng.random() < 0.05:
        name = rng.choice(("stride", "dilation", "padding"))
        settings[name] = some(0, -1, 100) if name == "padding" else some(0, -1, 100, 2**31)
    layer = (SparseConv1d if flat else SparseConv2d)(weight, bias, **settings)
    channels = per_group * groups + rng.choice((0, 0, 0, 0, 1))
    image = tuple(rng.choice((1, 3, 4, 8, 9)) for _ in kernel)
    x = _normal(
        rng, *rng.choice(((2, channels, *image), (channels, *image), (0, channels, *image), (1, *image)))
    )
    if x.is_floating_point() and rng.random() < 0.5:
        x = x.detach().requires_grad_()
    with dispatch.use(rng.choice(("auto", "compressed", "compressed"))):
        y = layer(x)
        apply: Any = F.conv1d if flat else F.conv2d
        _close(y.detach(), apply(x.detach(), weight.dense().detach(), bias, **settings), "forward")
        if x.requires_grad and y.numel():
            y.backward(_strided(rng, torch.ones_like(y.detach())))


def _changes(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    size = rng.choice((1, 5, 30, 1000, 2**33))
    index = _index(rng, size)
    kind = rng.randrange(6)
    if kind == 0:
        values, k = _normal(rng, rng.randrange(9)), rng.choice((0, 1, 3, 9, 100, -1))
        found = rewiring.smallest(values, k, rng.choice((0, 0, 1, -1)), torch.Generator().manual_seed(1))
        positions.check(found, values.numel())
    elif kind == 1:
        k = rng.choice((0, 1, 2, size - index.numel(), -1, 50))
        found = rewiring.random_inactive(
            index, size, k if k < 10_000 else 5, torch.Generator().manual_seed(1)
        )
        positions.check(found, size)
        require(
            not bool(positions.contains(positions.check(index, size), found).any()),
            "an active position was drawn",
        )
    elif kind == 2:
        places = _index(rng, max(index.numel(), 1))
        kept, gone = rewiring.parted(index, places)
        require(kept.numel() + gone.numel() == index.numel(), "positions were lost")
        require(torch.equal(gone.long(), index.reshape(-1)[places.long()].long()), "other positions are gone")
    elif kind == 3:
        dropped, grown = _index(rng, max(index.numel(), 1)), _index(rng, size)
        checked = positions.check(index, size)
        new, moved = rewiring.exchange(index, dropped, grown, size=size)
        positions.check(new, size)
        require(torch.equal(new[moved.kept_new], checked[moved.kept_old]), "survivors moved elsewhere")
    elif kind == 4:
        vector, n = _normal(rng, rng.randrange(9)), rng.randrange(9)
        old, new_places = _index(rng, max(vector.numel(), 1)), _index(rng, max(n, 1))
        moved_to = rewiring.move(vector, old, new_places, n, fresh=0.0)
        once = len(set(new_places.tolist())) == new_places.numel()
        found, wanted = moved_to[new_places.long()].double(), vector[old.long()].double()
        require(not once or torch.equal(found.nan_to_num(7.0), wanted.nan_to_num(7.0)), "values were lost")
    else:
        rows, cols = rng.choice(((1, size), (5, 6), (1000, 1)))
        made = plan.build(index, rows, cols)
        where = made.source.reshape(-1)
        require(torch.equal(made.col.long(), where % cols), "other columns")
        require(torch.equal(made.row.long().sort().values, (where // cols).sort().values), "other rows")


def _search(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    m, n, samples = rng.choice((0, 1, 3, 9, 40)), rng.choice((1, 4, 20)), rng.choice((0, 1, 2, 17))
    rows, columns = _normal(rng, m, samples), _normal(rng, n, samples + rng.choice((0, 0, 0, 0, 1)))
    exclude = None if rng.random() < 0.3 else _index(rng, max(m * n, 1))
    k = rng.choice((0, 1, 2, 5, m * n, m * n + 1, -1))
    metric: Any = rng.choice(("abs", "ip", "l2", "x"))
    found = exact(rows, columns, k, exclude, metric=metric)
    positions.check(found.index, m * n)
    require(found.index.numel() == k == found.products.numel(), f"{found.index.numel()} of {k}")
    taken = exclude is not None and bool(positions.contains(exclude.long(), found.index).any())
    require(not taken, "an excluded position was found")
    _close(found.products, (rows.float() @ columns.float().t()).reshape(-1)[found.index], "products")


def _step(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    sizes = rng.choice(((4, 3), (4, 5, 3), (6, 1, 2)))
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        index = _index(rng, n_in * n_out)
        weight = SparseWeight((n_out, n_in), index, _normal(rng, *index.shape))
        layers += [SparseLinear(weight, None if rng.random() < 0.3 else _normal(rng, n_out)), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=rng.choice((0.0, 0.9)))
    loss = rng.choice((nn.CrossEntropyLoss(), nn.MSELoss()))
    trained = fused.FusedMLP(model, loss, optimizer)
    batch = rng.choice((1, 2, 9, 0))
    x = _normal(rng, batch, sizes[0] + rng.choice((0, 0, 0, 1)))
    target = (
        _index(rng, sizes[-1] + rng.choice((0, 0, 1)))
        if rng.random() < 0.4
        else _normal(rng, batch, sizes[-1])
    )
    if target.ndim == 1 and rng.random() < 0.8:
        target = torch.tensor([rng.randrange(sizes[-1]) for _ in range(batch)], dtype=torch.int64)
    trained.step(x, target)
    for module in model.modules():
        if isinstance(module, SparseWeight):
            positions.check(module.index, module.size)


GROUP = "arguments"
TARGETS = (
    Target("linear", GROUP, 20_000, _seeded, _linear, REFUSED),
    Target("convolution", GROUP, 15_000, _seeded, _convolution, REFUSED),
    Target("rewiring", GROUP, 30_000, _seeded, _changes, REFUSED),
    Target("search", GROUP, 15_000, _seeded, _search, REFUSED),
    Target("fused-step", GROUP, 10_000, _seeded, _step, REFUSED),
)
