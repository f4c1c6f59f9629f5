"""``regraft merge`` with alignment, repair, fine-tuning, neuron selection and gates, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.test_merge import failure, run

from regraft import Topology, checkpoint, load, merge, save, sparsify
from regraft.files import sha256
from regraft.models import build

DATA = {"name": "digits", "classes": None, "per_class": 20, "test_per_class": 10, "seed": 0}
QUICK = ("--merge-epochs", 2, "--batch-size", 50)


def network(
    path: Path, seed: int, model: str = "mlp:64-12-10", density: float | None = 0.3, data_seed: int = 0
) -> Path:
    """A network that says that it was trained on some of the digits."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 8, 8) if "resnet" in model else None
    made = build(model, input_shape=shape, classes=10, generator=generator)
    if density is not None:
        sparsify(made, density, generator=generator)
    save(made, path, provenance={"data": DATA | {"seed": data_seed}})
    return path


@pytest.fixture
def parents(tmp_path: Path) -> list[Path]:
    return [network(tmp_path / f"n{seed}", seed) for seed in range(2)]


def merged(tmp_path: Path, *arguments: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures and the provenance of a merge that must go well."""
    assert run("merge", *arguments, "--out", tmp_path / "m", "--json", tmp_path / "j") == 0
    figures: dict[str, Any] = json.loads((tmp_path / "j").read_text())
    return figures, dict(checkpoint.read_header(tmp_path / "m").provenance)


def names(figures: dict[str, Any]) -> list[str]:
    return [row["network"] for row in figures["evaluation"]]


def test_align_repair_and_fine_tune(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--align", "weights", "--weights", "average", "--repair", "repair", "--finetune", 3)
    figures, provenance = merged(tmp_path, *parents, *options, "--lr", 0.1, "--batch-size", 20)
    assert names(figures) == [*map(str, parents), "merged", "repaired", "fine-tuned"]
    rows = {row["network"]: row["accuracy"] for row in figures["evaluation"]}
    assert rows["fine-tuned"] > rows["merged"] + 0.1
    assert all(row["n"] == 100 for row in figures["evaluation"])  # the samples of the parents' training
    made = provenance["merge"]
    assert (made["align"], made["repair"], made["finetune"], made["lr"]) == ("weights", "repair", 3, 0.1)
    assert "gate_lr" not in made
    assert [p["sha256"] for p in provenance["parents"]] == [sha256(p) for p in parents]
    assert provenance["data"]["per_class"] == 20
    printed = capsys.readouterr().out
    assert "on the test samples of digits" in printed
    assert "merged 2 networks by average x average, aligned by weights; wrote" in printed
    assert Topology.of(load(tmp_path / "m")).nnz == Topology.of(load(parents[0])).nnz
    layer = figures["layers"][0]
    assert layer["parents"] == [Topology.of(load(p))["fc1.weight"].nnz for p in parents]
    assert layer["kept"] <= layer["union"] <= sum(layer["parents"])


def test_aligning_a_network_with_a_copy_of_itself_gives_it_back(tmp_path: Path) -> None:
    one = network(tmp_path / "one", 0)
    for align in ("weights", "activations"):
        merged(tmp_path, one, one, "--align", align, "--align-to", "mean", "--weights", "average")
        x = torch.randn(5, 64)
        torch.testing.assert_close(load(tmp_path / "m")(x), load(one)(x), rtol=1e-4, atol=1e-4)


def test_the_same_command_gives_the_same_file(parents: list[Path], tmp_path: Path) -> None:
    options = ("--align", "activations", "--repair", "repair", "--finetune", 1, "--finetune-evolve", "set")
    for name in "ab":
        torch.manual_seed(ord(name))
        assert run("merge", *parents, *options, "--out", tmp_path / name) == 0
    assert run("merge", *parents, *options, "--seed", 1, "--out", tmp_path / "c") == 0
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_teachers_change_the_fine_tuning(parents: list[Path], tmp_path: Path) -> None:
    alone, _ = merged(tmp_path, *parents, "--finetune", 1)
    taught, provenance = merged(
        tmp_path, *parents, "--finetune", 1, "--teacher-weight", 0.9, "--temperature", 3
    )
    assert alone["evaluation"][-2] == taught["evaluation"][-2]
    assert alone["evaluation"][-1] != taught["evaluation"][-1]
    assert (provenance["merge"]["teacher_weight"], provenance["merge"]["temperature"]) == (0.9, 3.0)


def test_the_topology_may_evolve_while_fine_tuning(parents: list[Path], tmp_path: Path) -> None:
    merged(tmp_path, *parents)
    before = Topology.of(load(tmp_path / "m"))
    merged(tmp_path, *parents, "--finetune", 2)
    assert Topology.of(load(tmp_path / "m")) == before
    merged(tmp_path, *parents, "--finetune", 3, "--finetune-evolve", "set", "--rate", "exd")
    after = Topology.of(load(tmp_path / "m"))
    assert after != before
    assert after.nnz == before.nnz


def test_scores_by_name(parents: list[Path], tmp_path: Path) -> None:
    figures, _ = merged(tmp_path, *parents, "--score", "connectivity", "--weights", "average")
    assert "evaluation" not in figures  # it looks at no samples
    wanted = merge(parents, "average", score="connectivity")
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(load(tmp_path / "m").state_dict()[name], tensor), name
    assert run("merge", *parents, "--score", "synflow", "--out", tmp_path / "m") == 0
    figures, provenance = merged(tmp_path, *parents, "--score", "stacked(magnitude, snip)", "--samples", 50)
    assert provenance["merge"]["score"] == "stacked(magnitude, snip)"
    assert names(figures)[-1] == "merged"


def test_sparse_biases_without_a_network_in_memory(
    parents: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = merge(parents, bias_density=0.5, generator=torch.Generator().manual_seed(0))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "load", lambda path: pytest.fail("the plain merge reads files in blocks"))
        figures, provenance = merged(tmp_path, *parents, "--bias-density", 0.5)
    assert provenance["merge"]["bias_density"] == figures["bias_density"] == 0.5
    assert torch.equal(load(tmp_path / "m").state_dict()["fc1.bias"], wanted.state_dict()["fc1.bias"])


def test_select_neurons(parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, provenance = merged(tmp_path, *parents, "--select", "neurons", "--finetune", 1)
    assert names(figures) == [*map(str, parents), "merged", "fine-tuned"]
    assert provenance["merge"]["select"] == "neurons"
    assert provenance["merge"]["scope"] == "global"
    assert "weights" not in provenance["merge"]
    assert "merged 2 networks by neuron selection" in capsys.readouterr().out
    assert figures["layers"][0]["union"] == sum(figures["layers"][0]["parents"])
    bare, _ = merged(tmp_path, *parents, "--select", "neurons", "--unit-score", "outgoing")
    assert "evaluation" not in bare


def test_gates(parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, provenance = merged(tmp_path, *parents, "--gates", *QUICK, "--finetune", 1)
    assert names(figures) == [*map(str, parents), "concatenated", "gated", "compressed", "student"]
    assert provenance["merge"]["gates"] is True
    assert provenance["merge"]["merge_epochs"] == 2
    assert load(tmp_path / "m").fc1.out_features == 12  # type: ignore[union-attr]
    err = capsys.readouterr().err
    assert figures["warnings"]
    assert err == f"warning: {figures['warnings'][0]}\n"
    assert "so cutting the others changes the network" in err


def test_batch_normalisation_is_repaired(tmp_path: Path) -> None:
    paths = [network(tmp_path / f"r{seed}", seed, "resnet-8", None) for seed in range(2)]
    figures, _ = merged(tmp_path, *paths, "--weights", "average", "--repair", "bn", "--samples", 50)
    assert names(figures)[-2:] == ["merged", "repaired"]
    assert figures["layers"] == []
    before, after = load(paths[0]).state_dict(), load(tmp_path / "m").state_dict()
    statistics = [name for name in before if name.endswith("running_var")]
    assert statistics
    assert not any(torch.equal(before[name], after[name]) for name in statistics)


def test_a_dense_network_has_no_topology_to_evolve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [network(tmp_path / f"d{seed}", seed, density=None) for seed in range(2)]
    tuning = ("--finetune", 1, "--finetune-evolve", "set")
    text = failure(capsys, "merge", *paths, *tuning, "--out", tmp_path / "m")
    assert "the merged network is dense: no topology can evolve" in text
    merged(tmp_path, *paths, *tuning, "--density", 0.2)
    assert Topology.of(load(tmp_path / "m"))["fc1.weight"].nnz == round(0.2 * 768)


def test_networks_of_different_data_need_the_name_of_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [network(tmp_path / f"n{seed}", seed, data_seed=seed) for seed in range(2)]
    text = failure(capsys, "merge", *paths, "--finetune", 1, "--out", tmp_path / "m")
    assert "the networks were trained on different data, and this merge needs samples" in text
    figures, _ = merged(tmp_path, *paths, "--finetune", 1, "--data", "digits", "--per-class", 10)
    assert figures["data"]["per_class"] == 10


def test_a_parent_may_be_replaced_but_not_by_a_merge_that_fails(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = parents[0].read_bytes()
    failing = ("--finetune", 2, "--lr", 1e18)
    text = failure(capsys, "merge", *parents, *failing, "--out", parents[0])
    assert "training diverged" in text
    assert parents[0].read_bytes() == before
    assert run("merge", *parents, "--align", "weights", "--out", parents[0]) == 0
    provenance = checkpoint.read_header(parents[0]).provenance
    assert provenance["merge"]["align"] == "weights"
    assert provenance["parents"][0]["sha256"] != sha256(parents[0])


WRONG = {
    ("--align", "weight"): "unknown alignment 'weight': did you mean 'weights'?",
    ("--repair", "reapir"): "unknown repair 'reapir': did you mean 'repair'?",
    ("--select", "neuron"): "unknown selection 'neuron'",
    ("--select", "neurons", "--unit-score", "activty"): "unknown unit score 'activty'",
    ("--finetune", 1, "--finetune-evolve", "sett"): "unknown evolution method 'sett'",
    ("--gates", "--select", "neurons"): "two ways of choosing units",
    ("--gates", "--weights", "average"): "--weights goes with merging position by position",
    ("--gates", "--align", "weights"): "--align goes with merging position by position",
    ("--gates", "--repair", "bn"): "--repair goes with merging position by position or --select neurons",
    ("--gates", "--teacher-weight", 0.5): "--teacher-weight goes with --finetune after a merge",
    ("--gates", "--finetune", 1, "--finetune-evolve", "rigl"): "with --gates the topology evolves by set",
    ("--gates", "--merge-epochs", 0): "--merge-epochs",
    ("--gates", "--gate-lr", 0): "gate_lr is 0.0",
    ("--select", "neurons", "--score", "snip"): "--score goes with merging position by position",
    ("--select", "neurons", "--repair", "repair"): "--repair repair compares each unit with the same unit",
    ("--merge-epochs", 3): "--merge-epochs goes with --gates, which this merge has not",
    ("--share", "overall"): "--share goes with --select neurons",
    ("--align-to", "mean"): "--align-to goes with --align weights or activations",
    ("--lr", 0.1): "--lr goes with --finetune or --gates",
    ("--temperature", 2): "--temperature goes with --teacher-weight",
    ("--samples", 10): "--samples goes with options that look at data",
    ("--repair", "bn"): "has no batch normalisation with running statistics",
    ("--bias-density", 2): "bias_density is 2.0, but must be in (0, 1]",
    ("--finetune", 1, "--lr", -1): "the learning rate is -1.0",
    ("--finetune", 1, "--teacher-weight", 2): "the teachers' weight is 2.0",
    ("--finetune", 1, "--teacher-weight", 0.5, "--temperature", 0): "the temperature is 0.0",
    ("--finetune", 1, "--teacher-weight", 0.5, "--loss", "mse"): "compared through a softmax",
    ("--finetune", 1, "--data", "iris"): "does not take samples of shape",
    ("--finetune", 1, "--device", "abacus"): "--device 'abacus' cannot be used here",
}  # fmt: skip


@pytest.mark.parametrize("options", sorted(WRONG, key=str))
def test_refuses(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...]
) -> None:
    text = failure(capsys, "merge", *parents, *options, "--out", tmp_path / "m")
    assert WRONG[options] in text
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("way", [("--gates", *QUICK), ("--select", "neurons"), ("--align", "weights")])
def test_one_network_is_not_enough(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], way: tuple[object, ...]
) -> None:
    text = failure(capsys, "merge", parents[0], *way, "--out", tmp_path / "m")
    assert "two" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("way", [("--gates", *QUICK), ("--select", "neurons"), ("--align", "weights")])
def test_widths_must_be_equal(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], way: tuple[object, ...]
) -> None:
    other = network(tmp_path / "other", 3, "mlp:64-13-10")
    text = failure(capsys, "merge", parents[0], other, *way, "--out", tmp_path / "m")
    assert "has shape (13, 64)" in text
    assert text.count("\n") == 1
