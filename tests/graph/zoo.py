"""Networks of many kinds, with random values in every tensor, in float64 and evaluation mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft import models, sparsify
from regraft.graph import Graph


class Block(nn.Module):
    """A residual block with a convolution on the shortcut, as in ResNet-18."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        inside = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        inside += x if self.downsample is None else self.downsample(x)
        return F.relu(inside)


class Mixed(nn.Module):
    """Concatenation, slices, grouped and depthwise convolution, group normalisation, a parameter per map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=6)
        self.groupnorm = nn.GroupNorm(6, 24)
        self.deep = nn.Conv2d(24, 24, 3, groups=24)
        self.prelu = nn.PReLU(24)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.out = nn.Linear(24 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.sigmoid(self.first(x)) * self.scale
        y = self.norm(torch.cat([a, self.second(a)], 1))
        y = self.prelu(self.deep(self.groupnorm(self.grouped(y))))
        left, right = y.chunk(2, dim=1)
        y = torch.cat([torch.tanh(left), right * 2 + 1], dim=1)
        return self.out(F.max_pool2d(y, 2).reshape(x.size(0), -1))


class Tokens(nn.Module):
    """Linear layers on the last axis, layer normalisation, a transposition, a mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.down(F.gelu(self.up(self.norm(y))))
        return self.out(y.transpose(1, 2).mean(-1))


class Packed(nn.Module):
    """Attention with one layer for queries, keys and values, as many write it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(6, 8), nn.Parameter(torch.zeros(4, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.size()
        y = self.embed(x) + self.place
        q, k, v = self.qkv(self.norm(y)).split(8, dim=2)
        q, k, v = (part.view(n, t, 2, 4).transpose(1, 2) for part in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y + self.out(seen.transpose(1, 2).contiguous().view(n, t, 8))
        return self.head(y.mean(1))


class OneHead(nn.Module):
    """Attention without an axis for heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.q, self.k = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 5)
        self.v, self.head = nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.embed(x))
        return self.head(F.scaled_dot_product_attention(self.q(y), self.k(y), value=self.v(y))).mean(1)


class Encoder(nn.Module):
    """Torch's own layers, norms behind and norms in front."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        first = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True)
        self.after = nn.TransformerEncoder(first, 2, enable_nested_tensor=False)
        self.before = nn.TransformerEncoderLayer(8, 4, 12, norm_first=True, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(self.after(self.embed(x)))
        y = y + self.attention(y, y, y, need_weights=False)[0]
        return self.head(y).mean(1)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * 4, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 5),
    )  # fmt: skip


def resnet_18() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Block(4, 4, 1), Block(4, 8, 2),
        Block(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: models.build("mlp:7-6-5-4"), (7,)),
    "lenet": (
        lambda: models.build("lenet-5", input_shape=(1, 28, 28), classes=10, activation="tanh"),
        (1, 28, 28),
    ),
    "vgg": (vgg, (3, 8, 8)),
    "resnet-18": (resnet_18, (3, 8, 8)),
    "resnet-20": (lambda: models.build("resnet:20", input_shape=(3, 8, 8), classes=5), (3, 8, 8)),
    "wrn": (lambda: models.build("wrn-10-1", input_shape=(3, 8, 8), classes=5), (3, 8, 8)),
    "mixed": (Mixed, (3, 6, 6)),
    "tokens": (Tokens, (4, 6)),
    "vit": (lambda: models.build("vit:2-8-2-2", input_shape=(1, 4, 4), classes=5), (1, 4, 4)),
    "packed": (Packed, (4, 6)),
    "one head": (OneHead, (4, 6)),
    "encoder": (Encoder, (4, 6)),
}


ATTENTION = ("vit", "packed", "encoder")
"""Those whose units come in heads."""


def permutations(graph: Graph, seed: int) -> dict[str, Tensor]:
    """A random order of each group's units; heads stay whole, and those of one attention together."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for bundle in graph.bundles:
        count = 1 if bundle[0].heads is None else bundle[0].heads.count
        heads = torch.randperm(count, generator=generator).tolist()
        for group in bundle:
            width = group.units // count
            within = [head * width + torch.randperm(width, generator=generator) for head in heads]
            found[group.name] = torch.cat(within)
    return found


@torch.no_grad()
def network(name: str, *, seed: int = 0, density: float | None = None) -> nn.Module:
    """A network of the zoo, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    model = ZOO[name][0]()
    if density is not None:
        sparsify(model, density=density, generator=generator)
    for entry, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator) * 0.4
            tensor.copy_(drawn.abs() + 0.2 if entry.endswith("running_var") else drawn)
    return model.double().eval()


def samples(name: str, n: int = 3) -> Tensor:
    """Random samples for a network of the zoo."""
    return torch.randn(n, *ZOO[name][1], generator=torch.Generator().manual_seed(9), dtype=torch.float64)
