"""GPT and ViT: what they compute, what of them becomes sparse, specs that build them again, errors."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from regraft import checkpoint, models, sparsify
from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLayer
from regraft.models.transformer import Attention

SEEDED = {"generator": torch.Generator().manual_seed(0)}


def gpt(**options: object) -> nn.Module:
    return models.build("gpt:2-16-4", input_shape=(10,), classes=7, **options)  # type: ignore[arg-type]


def vit(**options: object) -> nn.Module:
    return models.build("vit:2-16-4-2", input_shape=(1, 8, 8), classes=5, **options)  # type: ignore[arg-type]


def test_shapes() -> None:
    assert gpt()(torch.zeros(3, 10)).shape == (3, 7, 10)
    assert gpt()(torch.zeros(3, 4)).shape == (3, 7, 4)  # a shorter text
    assert vit()(torch.zeros(3, 1, 8, 8)).shape == (3, 5)


def test_a_position_sees_itself_and_those_before_it_only() -> None:
    model = gpt().eval()
    x = torch.randint(0, 7, (1, 10), generator=torch.Generator().manual_seed(0)).float()
    changed = x.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 7
    before, after = model(x)[0], model(changed)[0]
    assert torch.equal(before[:, :6], after[:, :6])
    assert bool((before[:, 6:] != after[:, 6:]).any(0).all())


def test_vit_sees_all_patches() -> None:
    model, x = vit().eval(), torch.zeros(1, 1, 8, 8)
    outputs = []
    for row, column in ((0, 0), (0, 7), (7, 0), (7, 7)):
        one = x.clone()
        one[0, 0, row, column] = 1.0
        outputs.append(model(one)[0])
    assert all(not torch.allclose(o, model(x)[0]) for o in outputs)


def test_attention_is_softmax_of_scaled_products() -> None:
    attention, x = Attention(8, 2, causal=True), torch.randn(3, 5, 8)
    q, k, v = (layer(x) for layer in (attention.query, attention.key, attention.value))
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        scores = q[..., h] @ k[..., h].transpose(1, 2) / 2.0
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., h])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))


def test_linear_layers_of_the_blocks_become_sparse_and_nothing_else() -> None:
    for model, ends in ((gpt(), ("token", "position")), (vit(), ("patches", "position"))):
        sparsify(model, 0.2, generator=torch.Generator().manual_seed(0))
        sparse = {name for name, m in model.named_modules() if isinstance(m, SparseLayer)}
        parts = ("attention.query", "attention.key", "attention.value", "attention.out", "fc1", "fc2")
        assert sparse == {f"blocks.block{i}.{part}" for i in (1, 2) for part in parts}
        for name in (*ends, "norm", "head"):
            assert not isinstance(model.get_submodule(name), SparseLayer)


@pytest.mark.parametrize("make", [gpt, vit])
def test_values_come_from_the_generator_alone(make) -> None:  # type: ignore[no-untyped-def]
    state = torch.get_rng_state()
    a, b, c = (make(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    pairs = list(zip(a.parameters(), b.parameters(), c.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in pairs)
    assert not torch.equal(a.position.weight, c.position.weight)


@pytest.mark.parametrize("make", [gpt, vit])
def test_saved_and_loaded(make, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = sparsify(make(activation="gelu", dropout=0.1), 0.2).eval()
    checkpoint.save(model, tmp_path / "n.safetensors")
    back = checkpoint.load(tmp_path / "n.safetensors")
    x = torch.ones(2, *model.spec["input"])
    assert back.spec == model.spec
    assert torch.equal(back(x), model(x))


def test_short_names() -> None:
    assert models.resolve("gpt-3-32-2") == models.resolve("gpt:3-32-2")
    plain = models.resolve("gpt", input_shape=(20,), classes=9)
    assert (plain["layers"], plain["width"], plain["heads"], plain["hidden"]) == (2, 64, 4, 256)
    assert (plain["input"], plain["classes"]) == ([20], 9)
    assert models.resolve("vit", input_shape=(28, 28), classes=3)["input"] == [1, 28, 28]


@pytest.mark.parametrize(
    ("name", "shape", "error", "words"),
    [
        ("gpt:2-64", (8,), InputError, "layers, width and heads"),
        ("gpt:2-64-0", (8,), InputError, "layers, width and heads"),
        ("gpt:2-65-4", (8,), InputError, "such as 68"),
        ("gpt", (1, 8, 8), MismatchError, "take vit or mlp"),
        ("vit:2-64-4", (1, 8, 8), InputError, "side of a patch"),
        ("vit:2-64-4-3", (1, 8, 8), MismatchError, "take 1, 2, 4, 8"),
        ("vit", (13,), MismatchError, "take an mlp"),
    ],
)
def test_names_that_do_not_fit(name: str, shape: tuple[int, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        models.resolve(name, input_shape=shape, classes=5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "multiple of 3"),
        ({"layers": 0}, "positive integers"),
        ({"input": [4, 4]}, "must have 1 sizes"),
        ({"width": "wide"}, "positive integers"),
        ({"activation": "rely"}, "unknown activation"),
        ({"depth": 2}, "unknown option"),
    ],
)
def test_specs_from_files_are_checked(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=re.compile(words)):
        models.build({**models.resolve("gpt"), **change})
