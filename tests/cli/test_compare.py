"""``regraft compare``: figures against sets and the API, the page, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import regraft
from regraft import diagnose, models
from regraft.cli import main
from regraft.cli.ticket import Compared
from regraft.train import seeds

SMALL = ("--model", "mlp:in-24-classes", "--per-class", "20", "--test-per-class", "10")


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert call("compare", *args) == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    return printed.err


@pytest.fixture
def tickets(tmp_path: Path) -> list[Path]:
    """One before and after training, and one of another score."""
    paths = [tmp_path / name for name in ("a.safetensors", "trained.safetensors", "b.safetensors")]
    a, trained, b = paths
    assert call("prune", *SMALL, "--score", "synflow", "--shots", 9, "--density", 0.1, "--out", a) == 0
    assert call("train", "--start", a, "--evolve", "none", "--epochs", 2, "--lr", 0.1, "--out", trained) == 0
    snip = ("--score", "snip", "--init", "scores:snip")
    assert call("prune", *SMALL, *snip, "--density", 0.2, "--out", b) == 0
    return paths


def compared(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    capsys.readouterr()
    assert call("compare", *args, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_figures(tickets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, *tickets)
    loaded = [regraft.load(path) for path in tickets]
    topologies = [regraft.Topology.of(model) for model in loaded]
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [
        (str(tickets[i]), str(tickets[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    for pair, (i, j) in zip(found["pairs"], ((0, 1), (0, 2), (1, 2)), strict=True):
        for layer in pair["layers"]:
            x, y = (set(topologies[k][layer["name"]].index.tolist()) for k in (i, j))
            assert (layer["shared"], layer["union"]) == (len(x & y), len(x | y))
            assert layer["jaccard"] == len(x & y) / len(x | y)
        assert pair["jaccard"] == topologies[i].jaccard(topologies[j])
        assert pair["expected_jaccard"] == pytest.approx(1 - topologies[i].expected_nnstd(topologies[j]))
    for one, model, topology in zip(found["networks"], loaded, topologies, strict=True):
        assert one["density"] == topology.density
        assert one["connectivity"] == diagnose.connectivity(model).plain()


def test_initial_and_final_weights(tickets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    networks = compared(capsys, *tickets, "--bins", 7)["networks"]
    assert [list(n["weights"]) for n in networks] == [["initial"], ["initial", "final"], ["stored"]]
    ticket, trained = (regraft.load(path) for path in tickets[:2])
    before, after = networks[0]["weights"], networks[1]["weights"]
    assert after["initial"] == before["initial"]
    drawn = models.build("mlp:64-24-10", generator=seeds.stream(0, "init"))
    kept = diagnose.kept_values(drawn, regraft.Topology.of(ticket))
    for name, values in kept.items():
        assert after["initial"][name] == diagnose.distribution(values, bins=7).plain()
    final = diagnose.distribution(trained.fc1.weight.values, bins=7).plain()
    assert after["final"]["fc1.weight"] == final
    assert after["final"]["whole"]["n"] == regraft.Topology.of(trained).nnz
    assert sum(after["final"]["whole"]["counts"]) == after["final"]["whole"]["n"]


def test_tables_of_two_and_of_more(tickets: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("compare", tickets[0], tickets[2]) == 0
    text = capsys.readouterr().out
    assert text.count("fc1.weight") == 2  # overlap and densities
    assert "by chance" in text
    assert "1 initial" in text
    assert "2 stored" in text
    assert "outputs" in text
    assert call("compare", *tickets) == 0
    text = capsys.readouterr().out
    pair = next(line for line in text.splitlines() if line.startswith("1 and 2"))
    assert "1.0000" in pair


def test_what_died_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    topology = {"fc1.weight": ((5, 4), nothing), "fc2.weight": ((3, 5), torch.tensor([1, 7]))}
    for name in "ab":
        model = regraft.sparsify(models.build("mlp:4-5-3"), topology=regraft.Topology(topology))
        regraft.save(model, tmp_path / name)
    found = compared(capsys, tmp_path / "a", tmp_path / "b", "--html", tmp_path / "p.html")
    assert found["networks"][0]["connectivity"]["empty_layers"] == ["fc1.weight"]
    assert found["pairs"][0]["layers"][0]["jaccard"] == 1.0
    assert call("compare", tmp_path / "a", tmp_path / "b") == 0
    assert f"warning: {tmp_path / 'a'}: no connection is left in 'fc1.weight'" in capsys.readouterr().err


def test_the_page(tickets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        assert call("compare", *tickets, "--html", page) == 0
    html = pages[0].read_text()
    assert html == pages[1].read_text()
    for text in ("Weights that were kept", "Layer densities", "trained.safetensors, final", "By chance"):
        assert text in html
    assert str(pages[0]) in capsys.readouterr().out


def test_networks_that_are_not_tickets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, shape in enumerate((3, [3])):  # files may say nonsense about their samples
        g = torch.Generator().manual_seed(seed)
        model = regraft.sparsify(models.build("resnet-8", generator=g), density=0.2, generator=g)
        provenance = {"parents": [3], "data": {"input_shape": shape}}
        regraft.save(model, tmp_path / f"r{seed}", provenance=provenance)
    one, other = (Compared.read(tmp_path / name) for name in ("r0", "r1"))
    assert one.initial is None
    assert list(one.sets()) == ["stored"]
    assert one.paths is not None
    assert other.paths is None
    found = compared(capsys, tmp_path / "r0", tmp_path / "r1", "--html", tmp_path / "p.html")
    assert found["networks"][1]["connectivity"] is None


def test_bad_input(tickets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs two networks or more" in refused(capsys, tickets[0])
    assert "No such file" in refused(capsys, tickets[0], tmp_path / "gone")
    regraft.save(models.build("mlp:64-24-10"), tmp_path / "dense")
    assert "has no sparse weight" in refused(capsys, tickets[0], tmp_path / "dense")
    regraft.save(regraft.sparsify(models.build("mlp:64-25-10"), density=0.1), tmp_path / "other")
    text = refused(capsys, tickets[0], tmp_path / "other")
    assert f"'{tickets[0]}' and '{tmp_path / 'other'}' differ: weight 'fc1.weight' has shape" in text
    own = regraft.sparsify(nn.Sequential(nn.Linear(4, 3)), density=0.5)
    regraft.save(own, tmp_path / "own")
    assert "which regraft cannot build" in refused(capsys, tickets[0], tmp_path / "own")
    assert "does not exist" in refused(capsys, *tickets, "--html", tmp_path / "gone" / "x.html")
