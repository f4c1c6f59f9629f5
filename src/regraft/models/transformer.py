"""Small transformers: GPT reads a text and says what comes next, ViT reads an image in patches.

Their Linear layers, those of attention and of the MLPs, are what ``sparsify`` makes sparse; embeddings, norms
and the last layer stay dense.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.models.parts import activation
from regraft.models.spec import Request, check_fields, check_probability, check_sizes, number_of

DEEPEST = 250
"""Most layers: a spec of a few bytes must not build for ever."""

WIDER = 4
"""Hidden units of a block's MLP for each unit of its stream (Vaswani et al. 2017, section 3.3)."""

_SIZES = ("layers", "width", "heads", "hidden")
_FIELDS = ("input", "classes", *_SIZES, "activation", "dropout")


def parse_gpt(argument: str, request: Request) -> dict[str, Any]:
    """``2-64-4``: layers, width of the stream, heads; rows of 64 characters of 96 kinds without data."""
    layers, width, heads = _numbers("gpt", argument or "2-64-4", "layers, width and heads, as in gpt:2-64-4")
    shape = request.input_shape or (64,)
    if len(shape) != 1:
        raise MismatchError(
            f"gpt reads rows of characters, but a sample of the data has shape {'x'.join(map(str, shape))}: "
            "take vit or mlp, or the data set text"
        )
    return _spec("gpt", layers, width, heads, shape, request.classes or 96, request)


def parse_vit(argument: str, request: Request) -> dict[str, Any]:
    """``2-64-4-4``: layers, width of the stream, heads, height and width of a patch in pixels; 1x28x28 and
    10 classes without data."""
    layers, width, heads, patch = _numbers(
        "vit", argument or "2-64-4-4", "layers, width, heads and the side of a patch, as in vit:2-64-4-4"
    )
    shape = request.input_shape or (1, 28, 28)
    shape = (1, *shape) if len(shape) == 2 else shape
    _check_patches(shape, patch)
    return {**_spec("vit", layers, width, heads, shape, request.classes or 10, request), "patch": patch}


def make_gpt(spec: Mapping[str, Any]) -> GPT:
    """The decoder of a spec; see ``GPT``."""
    check_fields(spec, _FIELDS)
    shape, classes, sizes = _checked(spec, 1)
    return GPT(shape[0], classes, **sizes, act=spec["activation"], dropout=check_probability(spec["dropout"]))


def make_vit(spec: Mapping[str, Any]) -> ViT:
    """The encoder of a spec; see ``ViT``."""
    check_fields(spec, (*_FIELDS, "patch"))
    shape, classes, sizes = _checked(spec, 3)
    patch = check_sizes({"name": "vit", "patch": [spec["patch"]]}, "patch", at_least=1)[0]
    _check_patches(tuple(shape), patch)
    dropout = check_probability(spec["dropout"])
    return ViT(tuple(shape), classes, **sizes, patch=patch, act=spec["activation"], dropout=dropout)


class DenseLinear(nn.Linear):
    """A Linear layer that ``sparsify`` leaves alone."""


class Patches(nn.Conv2d):
    """An image cut into squares, each made a vector: a convolution that ``sparsify`` leaves alone."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2).

    Head h has the rows h w up to (h + 1) w of ``query``, ``key`` and ``value``, and these columns of ``out``,
    where w is the width of a head.

    Args:
        width: of the stream, a multiple of ``heads``.
        causal: whether a position sees only itself and those before it.

    >>> Attention(8, 2, causal=True)(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.head_width, self.causal = width // heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, t, width]`` to the same shape."""
        query, key, value = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """``[n, t, width]`` to ``[n, heads, t, width of a head]``."""
        return x.view(x.shape[0], x.shape[1], -1, self.head_width).transpose(1, 2)

    def extra_repr(self) -> str:
        """For ``repr``."""
        return f"head_width={self.head_width}, causal={self.causal}"


class Block(nn.Module):
    """Attention, then an MLP, each on the normalised stream and added to it (pre-norm: Radford et al. 2019,
    "Language models are unsupervised multitask learners", section 2.3)."""

    def __init__(
        self, width: int, heads: int, hidden: int, act: str, dropout: float, *, causal: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation(act)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, t, width]`` to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.fc2(self.activation(self.fc1(self.norm2(x)))))  # type: ignore[no-any-return]


class GPT(nn.Module):
    """A decoder-only transformer: for each position of a text, scores of the character that comes next, from
    the characters up to there.

    Args:
        context: the most positions it reads.
        classes: kinds of characters.
        hidden: units of each block's MLP.

    >>> model = GPT(16, 30, layers=1, width=8, heads=2, hidden=32, act="gelu", dropout=0.0)
    >>> model(torch.zeros(4, 16)).shape  # scores along axis 1, as torch's cross-entropy wants them
    torch.Size([4, 30, 16])
    """

    def __init__(
        self, context: int, classes: int, layers: int, width: int, heads: int, hidden: int, act: str,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(classes, width)
        self.position = nn.Embedding(context, width)
        self.blocks = _blocks(layers, width, heads, hidden, act, dropout, causal=True)
        self.norm = nn.LayerNorm(width)
        self.head = DenseLinear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of characters ``[n, t]``, of any type, to scores ``[n, classes, t]``."""
        tokens, places = x.long(), torch.arange(x.shape[1], device=x.device)
        stream = self.blocks(self.token(tokens) + self.position(places))
        return self.head(self.norm(stream)).transpose(1, 2)  # type: ignore[no-any-return]


class ViT(nn.Module):
    """A transformer that classifies images: patches become vectors, all attend to all, and the mean over
    patches goes to a Linear layer (Dosovitskiy et al. 2021, arXiv:2010.11929, without a class token, as
    Beyer et al. 2022, arXiv:2205.01580).

    Args:
        shape: channels, height and width of an image; height and width are multiples of ``patch``.

    >>> ViT((1, 8, 8), 10, 1, 8, 2, 32, patch=2, act="gelu", dropout=0.0)(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 10])
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, layers: int, width: int, heads: int, hidden: int,
        patch: int, act: str, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = Patches(shape[0], width, patch, stride=patch)
        self.position = nn.Embedding((shape[1] // patch) * (shape[2] // patch), width)
        self.blocks = _blocks(layers, width, heads, hidden, act, dropout, causal=False)
        self.norm = nn.LayerNorm(width)
        self.head = DenseLinear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, channels, height, width]`` to scores ``[n, classes]``."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        places = self.position(torch.arange(patches.shape[1], device=x.device))
        return self.head(self.norm(self.blocks(patches + places)).mean(1))  # type: ignore[no-any-return]


def _blocks(
    layers: int, width: int, heads: int, hidden: int, act: str, dropout: float, *, causal: bool
) -> nn.Sequential:
    made = (
        (f"block{i + 1}", Block(width, heads, hidden, act, dropout, causal=causal)) for i in range(layers)
    )
    return nn.Sequential(OrderedDict(made))


def _numbers(name: str, argument: str, needs: str) -> list[int]:
    found = [number_of(word) for word in argument.split("-")]
    sizes = [size for size in found if size is not None]
    if not len(found) == len(sizes) == {"gpt": 3, "vit": 4}[name]:
        raise InputError(f"the model '{name}:{argument}' needs {needs}")
    return sizes


def _spec(
    name: str, layers: int, width: int, heads: int, shape: tuple[int, ...], classes: int, request: Request
) -> dict[str, Any]:
    _check_heads(name, width, heads)
    return {
        "name": name, "input": list(shape), "classes": classes, "layers": layers, "width": width,
        "heads": heads, "hidden": WIDER * width, "activation": request.activation, "dropout": request.dropout,
    }  # fmt: skip


def _checked(spec: Mapping[str, Any], axes: int) -> tuple[list[int], int, dict[str, int]]:
    """Shape of a sample, classes, and the sizes by name, of a spec that may come from a file."""
    name = str(spec["name"])
    shape = check_sizes(spec, "input", at_least=axes)
    if len(shape) != axes:
        raise InputError(
            f"the spec of the model '{name}' has the input {shape}, but it must have {axes} sizes"
        )
    classes = check_sizes({"name": name, "classes": [spec["classes"]]}, "classes", at_least=1)[0]
    sizes = {f: check_sizes({"name": name, f: [spec[f]]}, f, at_least=1)[0] for f in _SIZES}
    if sizes["layers"] > DEEPEST:
        raise InputError(f"{name} is to have {sizes['layers']} layers, more than {DEEPEST}: take fewer")
    _check_heads(name, sizes["width"], sizes["heads"])
    activation(spec["activation"])
    return shape, classes, sizes


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise InputError(
            f"{name} has a width of {width} for {heads} heads, but each head has as many units: take a "
            f"multiple of {heads}, such as {heads * math.ceil(width / heads)}"
        )


def _check_patches(shape: tuple[int, ...], patch: int) -> None:
    if len(shape) != 3:
        raise MismatchError(
            f"vit takes images with channels, height and width, but a sample has shape "
            f"{'x'.join(map(str, shape))}: take an mlp instead"
        )
    if shape[1] % patch or shape[2] % patch:
        sides = [n for n in range(1, min(shape[1:]) + 1) if shape[1] % n == 0 and shape[2] % n == 0]
        raise MismatchError(
            f"images of {shape[1]}x{shape[2]} pixels cannot be cut into patches of {patch}x{patch}: take "
            f"{', '.join(map(str, sides))}"
        )
