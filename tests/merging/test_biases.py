"""Sparse biases: the largest entries stay, and normalisations are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft import Topology, load, merge, merge_files, models, resparsify, save, sparsify
from regraft.errors import InputError

MakeNet = Callable[..., nn.Module]
Equal = Callable[[nn.Module, nn.Module], bool]


def largest(bias: torch.Tensor, count: int) -> torch.Tensor:
    """By hand: all but the ``count`` largest entries set to 0."""
    order = sorted(range(len(bias)), key=lambda i: -abs(float(bias[i])))
    return torch.tensor([float(b) if i in order[:count] else 0.0 for i, b in enumerate(bias)])


@pytest.mark.parametrize("density", [0.5, None])
def test_the_largest_entries_of_the_merged_biases_stay(net: MakeNet, density: float | None) -> None:
    parents = [net(s, density) for s in range(3)]
    whole, cut = merge(parents, "average"), merge(parents, "average", bias_density=0.5)
    for name, count in (("0.bias", 3), ("2.bias", 2)):
        assert torch.equal(cut.state_dict()[name], largest(whole.state_dict()[name], count))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(cut.state_dict()[name], tensor) != name.endswith("bias")


def test_all_of_them_is_the_plain_merge(net: MakeNet, equal: Equal) -> None:
    parents = [net(s, norm=True) for s in range(3)]
    assert equal(merge(parents, bias_density=1.0), merge(parents))


def test_scales_and_shifts_of_normalisations_are_no_biases(net: MakeNet) -> None:
    parents = [net(s, norm=True) for s in range(2)]
    for model in (p[1] for p in parents):  # type: ignore[index]
        nn.init.normal_(model.weight)
        nn.init.normal_(model.bias)
    cut, whole = merge(parents, bias_density=0.1), merge(parents)
    for part in ("weight", "bias"):
        assert torch.equal(getattr(cut[1], part), getattr(whole[1], part))  # type: ignore[index]
    assert cut[0].bias.count_nonzero() == 1  # type: ignore[index]
    assert cut[3].bias.count_nonzero() == 0  # type: ignore[index]


@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_files_in_blocks_give_what_models_give(
    tmp_path: Path, saved: Callable[[list[nn.Module]], list[Path]], equal: Equal, score: str
) -> None:
    made = [models.build("mlp:7-6-4", generator=torch.Generator().manual_seed(s)) for s in range(3)]
    for seed, model in enumerate(made):
        sparsify(model, 0.4, generator=torch.Generator().manual_seed(seed))
        nn.init.constant_(model.fc1.bias, 0.5)  # so that some are equal

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(4)

    out = tmp_path / "merged"
    merge_files(saved(made), out, score=score, bias_density=0.4, generator=seeded(), block=3)
    merged = merge(made, score=score, bias_density=0.4, generator=seeded())
    assert equal(load(out), merged)
    assert merged.fc1.bias.count_nonzero() == 2  # type: ignore[union-attr, operator]


def test_resparsify_cuts_biases_with_or_without_weights(net: MakeNet) -> None:
    model, before = net(0, 0.5), net(0, 0.5)
    assert resparsify(model, bias_density=0.5) is model
    assert Topology.of(model) == Topology.of(before)
    assert torch.equal(model[0].bias.detach(), largest(before[0].bias.detach(), 3))  # type: ignore[index]
    resparsify(model, 0.25, bias_density=0.2)
    assert Topology.of(model)["0.weight"].nnz == 10
    assert model[0].bias.count_nonzero() == 1  # type: ignore[index]


def test_resparsify_cuts_biases_of_a_dense_model_too(net: MakeNet) -> None:
    model = net(0, None)
    resparsify(model, bias_density=0.5)
    assert model[0].bias.count_nonzero() == 3  # type: ignore[index]


def test_refuses(net: MakeNet, equal: Equal) -> None:
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"bias_density is .*, but must be in \(0, 1\]"):
            merge([net(0), net(1)], bias_density=wrong)
        model = net(0, 0.5)
        with pytest.raises(InputError, match="bias_density is"):
            resparsify(model, 0.25, bias_density=wrong)
        assert equal(model, net(0, 0.5))
    model = net(0, 0.5)
    with pytest.raises(InputError, match="would keep no connection"):
        resparsify(model, 0.001, bias_density=0.5)
    assert equal(model, net(0, 0.5))


def test_a_file_says_so(tmp_path: Path, saved: Callable[[list[nn.Module]], list[Path]]) -> None:
    from regraft.checkpoint import read_header

    made = [models.build("mlp:7-6-4", generator=torch.Generator().manual_seed(s)) for s in range(2)]
    save(merge(made, bias_density=0.5, out=tmp_path / "m"), tmp_path / "n")
    assert read_header(tmp_path / "m").provenance["merge"]["bias_density"] == 0.5
