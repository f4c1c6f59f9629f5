"""Heads: which units make them, how they may move, and what of attention cannot be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.graph.zoo import ATTENTION, ZOO, network, permutations, samples
from torch import Tensor, nn

from regraft import models, sparsify
from regraft.errors import InputError
from regraft.graph import Graph, Heads, Slot, activations, take, trace
from regraft.models.transformer import Attention


def gpt(activation: str = "gelu") -> nn.Module:
    g = torch.Generator().manual_seed(0)
    model = models.build("gpt:2-8-2", input_shape=(6,), classes=7, activation=activation, generator=g)
    return sparsify(model, 0.5, generator=g).double().eval()


def test_a_gpt_has_a_stream_heads_and_hidden_units() -> None:
    graph = trace(gpt())
    assert [(group.name, group.units) for group in graph.free] == [
        ("token", 8),
        *((f"blocks.block{i}.{part}", n) for i in (1, 2)
          for part, n in (("attention.query", 8), ("attention.value", 8), ("fc1", 32))),
    ]  # fmt: skip
    assert graph["head"].fixed == "they are the network's output"
    query, value = graph["blocks.block1.attention.query"], graph["blocks.block1.attention.value"]
    assert query.heads == value.heads == Heads("blocks.block1.attention.query", 2)
    made = "blocks.block1.attention"
    assert query.slots == (
        Slot(f"{made}.query.weight", 0, "make"), Slot(f"{made}.query.bias", 0, "bias"),
        Slot(f"{made}.key.weight", 0, "make"), Slot(f"{made}.key.bias", 0, "bias"),
    )  # fmt: skip
    assert value.of_kind("read") == (Slot(f"{made}.out.weight", 1, "read"),)
    stream = graph["token"]
    assert {slot.tensor for slot in stream.of_kind("make")} >= {"token.weight", "position.weight"}
    assert stream.of_kind("read")[-1].tensor == "head.weight"
    assert "norm" in stream.mixed_by


def test_bundles_hold_what_moves_together() -> None:
    graph = trace(gpt())
    bundles = [[group.name for group in bundle] for bundle in graph.bundles]
    attentions = [
        [f"blocks.block{i}.attention.query", f"blocks.block{i}.attention.value"] for i in (1, 2)
    ]  # fmt: skip
    assert [b for b in bundles if len(b) > 1] == attentions
    assert sorted(name for b in bundles for name in b) == sorted(group.name for group in graph.free)


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_gpt_computes_the_same_function(seed: int) -> None:
    model = gpt()
    graph = trace(model)
    x = torch.randint(0, 7, (5, 6), generator=torch.Generator().manual_seed(seed))
    turned = take(model, graph, permutations(graph, seed))
    torch.testing.assert_close(turned(x), model(x), rtol=1e-9, atol=1e-9)
    assert not torch.equal(turned.token.weight, model.token.weight)


def test_whole_heads_can_be_cut() -> None:
    attention = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), Attention(8, 4, causal=False), nn.Linear(8, 3))
    attention = attention.double().eval()
    graph = trace(attention, (6, 5))
    kept = torch.tensor([4, 5, 0, 1])  # heads 2 and 0 of two units each
    with torch.no_grad():
        attention[2].out.weight[:, [2, 3, 6, 7]] = 0.0  # the others say nothing
    small = take(attention, graph, {"2.query": kept, "2.value": kept})
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    assert small[2].query.out_features == 4
    torch.testing.assert_close(small(x), attention(x))


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"blocks.block1.attention.query": torch.arange(8).flip(0)}, "heads of one attention stay together"),
        ({"blocks.block1.attention.query": torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])}, "cannot be taken apart"),
        ({"blocks.block1.attention.value": torch.arange(3)}, "cannot be taken apart"),
        ({"blocks.block1.attention.value": torch.arange(4)}, "heads of one attention stay together"),
    ],
)  # fmt: skip
def test_heads_stay_whole_and_together(units: dict[str, Tensor], words: str) -> None:
    model = gpt()
    with pytest.raises(InputError, match=words):
        take(model, trace(model), units)


def test_units_may_move_within_their_heads_alone() -> None:
    model, x = gpt(), torch.zeros(1, 6)
    order = torch.tensor([3, 1, 0, 2, 4, 7, 6, 5])
    turned = take(model, trace(model), {"blocks.block2.attention.query": order})
    torch.testing.assert_close(turned(x), model(x))


def test_torchs_own_heads_cannot_be_cut() -> None:
    model = network("encoder")
    graph = trace(model, ZOO["encoder"][1])
    half = {name: torch.arange(4) for name in ("attention", "attention#2")}
    with pytest.raises(InputError, match="leave those groups whole"):
        take(model, graph, half)


@pytest.mark.parametrize("name", ATTENTION)
def test_swapped_heads_that_do_not_belong_together_change_the_function(name: str) -> None:
    """The constraint is needed: the same order without heads in mind computes something else."""
    model, x = network(name), samples(name)
    graph = trace(model, ZOO[name][1])
    query = next(group for group in graph.free if group.heads is not None)
    loose = Graph(tuple(replace(g, heads=None) for g in graph), graph.input_shape)
    turned = take(model, loose, {query.name: torch.arange(query.units).roll(query.units // 2)})
    assert not torch.allclose(turned(x), model(x), atol=1e-6)


def test_queries_and_keys_say_what_they_are() -> None:
    model = gpt()
    graph, x = trace(model), torch.randint(0, 7, (3, 6))
    seen = activations(model, graph, x)
    assert set(seen) == {group.name for group in graph.free}
    stream = model.token(x) + model.position(torch.arange(6))
    read = model.blocks.block1.norm1(stream)
    attention = model.blocks.block1.attention
    expected = torch.cat([attention.query(read).flatten(0, 1), attention.key(read).flatten(0, 1)])
    torch.testing.assert_close(seen["blocks.block1.attention.query"], expected)


def test_the_units_of_torchs_encoder_are_seen_where_its_modules_are_called() -> None:
    model, x = network("encoder"), samples("encoder")
    fast = torch.backends.mha.get_fastpath_enabled()
    seen = activations(model, trace(model, ZOO["encoder"][1]), x)
    assert {"embed", "before.linear1", "after.layers.1.linear1"} <= set(seen)
    assert torch.backends.mha.get_fastpath_enabled() == fast


class _Attending(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], keys: int = 8) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, keys), nn.Linear(6, keys)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(2, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.function(q, k, v).transpose(1, 2).flatten(2)


def _by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(2, 3)).softmax(-1) @ v


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (_Attending(_by_hand), (5, 6), "only scaled_dot_product_attention reads"),
        (_Attending(lambda q, k, v: F.scaled_dot_product_attention(q * 2, k, v)), (5, 6), "into heads"),
        (_Attending(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), keys=4),
         (5, 6), "share one of keys"),
        (_Attending(lambda q, k, v: F.scaled_dot_product_attention(*(p.transpose(1, 2) for p in (q, k, v)))),
         (5, 6), r"expects \[batch, heads"),
    ],
)  # fmt: skip
def test_attention_that_cannot_be_followed_ends_in_a_sentence(
    model: nn.Module, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        trace(model, shape)


def test_a_shuffle_of_channels_is_no_attention() -> None:
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).view(-1, 2, 3).transpose(1, 2).reshape(-1, 6))

    with pytest.raises(InputError, match="reshape"):
        trace(Shuffle())


def test_parts_of_a_parameter_are_not_taken_for_numbers() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.place = nn.Linear(4, 6), nn.Parameter(torch.zeros(9, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.place[: x.shape[1]]

    with pytest.raises(InputError, match="part of a parameter"):
        trace(Sliced(), (5, 4))


def test_heads_that_are_the_networks_output_cannot_move() -> None:
    graph = trace(_Attending(F.scaled_dot_product_attention), (5, 6))
    assert graph.free == ()
    assert "heads" in str(graph["q"].fixed)


def test_heads_that_are_added_to_the_stream_tie_all_attentions_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.layers = nn.ModuleList(nn.ModuleList(nn.Linear(8, 8) for _ in range(3)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.embed(x)
            for layers in self.layers:
                q, k, v = (layer(y).unflatten(2, (2, 4)).transpose(1, 2) for layer in layers)
                y = y + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head(y)

    model = Tied().double().eval()
    graph, x = trace(model, (5, 6)), torch.randn(3, 5, 6, dtype=torch.float64)
    assert [len(bundle) for bundle in graph.bundles] == [
        3
    ]  # the stream, and what the heads of two layers ask
    turned = take(model, graph, permutations(graph, 4))
    torch.testing.assert_close(turned(x), model(x))
