"""``regraft prune``: from options to a ticket, what it trains into, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import regraft
from regraft import checkpoint, data, diagnose, models, prune
from regraft.cli import main
from regraft.cli.prune import command
from regraft.probe import Probe
from regraft.train import seeds

SMALL = ("--model", "mlp:in-24-classes", "--per-class", "20", "--test-per-class", "10", "--batch-size", "20")
SHORT = ("--epochs", "2", "--lr", "0.1", "--rounds", "2")


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


def figures_of(capsys: pytest.CaptureFixture[str], out: Path, *args: object) -> dict[str, Any]:
    capsys.readouterr()
    assert call("prune", *SMALL, "--out", out, "--json", "-", *args) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one sentence of a refusal, after checking that it is one."""
    capsys.readouterr()
    assert call(*args) == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    return printed.err


def initial(seed: int = 0, init: str = "he") -> torch.nn.Module:
    return models.build("mlp:64-24-10", init=init, generator=seeds.stream(seed, "init"))


def test_the_ticket_is_that_of_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.safetensors"
    found = figures_of(
        capsys, out, "--score", "snip", "--density", 0.1, "--shots", 4, "--revive", "--samples", 30,
        "--balanced", "--seed", 5,
    )  # fmt: skip
    digits = data.load("digits", per_class=20, test_per_class=10)
    batch = data.balanced_batch(digits.train, 3, seeds.stream(5, "samples"))
    probe = Probe(torch.nn.functional.cross_entropy, [batch])
    model = initial(5)
    expected = prune.upfront(
        model, probe, score="snip", density=0.1, shots=4, revive=True, generator=seeds.stream(5, "prune")
    )
    ticket = regraft.load(out)
    assert regraft.Topology.of(ticket) == expected
    kept = diagnose.kept_values(model, expected)
    assert all(torch.equal(kept[n], v) for n, v in diagnose.kept_values(ticket, expected).items())
    assert found["connectivity"] == diagnose.connectivity(ticket).plain()
    assert found["gradient_norm"]["ticket"] == pytest.approx(diagnose.gradient_flow(ticket, probe).norm)
    assert found["gradient_norm"]["before"] == pytest.approx(diagnose.gradient_flow(model, probe).norm)
    header = checkpoint.read_header(out)
    assert header.provenance["options"]["score"] == "snip"
    assert header.provenance["data"]["name"] == "digits"


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        args = ("--score", "stacked(magnitude, synflow)", "--density", 0.2, "--init", "scores:snip")
        assert call("prune", *SMALL, "--out", path, "--seed", seed, *args) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


@pytest.mark.parametrize(
    "score", ["random", "grasp:temperature=1", "synflow", "variance-flow", "inverted(snip)"]
)
def test_any_score_and_the_table(score: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t"
    assert call("prune", *SMALL, "--out", out, "--score", score, "--density", 0.3, "--scope", "layer") == 0
    printed = capsys.readouterr().out
    assert "fc1.weight" in printed
    assert "whole" in printed
    assert f"wrote {out}" in printed
    assert [c.nnz for c in regraft.Topology.of(regraft.load(out)).values()] == [461, 72]


def test_receptive_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t"
    found = figures_of(capsys, out, "--score", "receptive-fields", "--density", 0.1, "--samples", 150)
    digits = data.load("digits", per_class=20, test_per_class=10)
    order = torch.randperm(200, generator=seeds.stream(0, "samples"))[:150]
    expected = prune.receptive_fields(
        initial(), Probe(batches=[digits.train[order]]), density=0.1, generator=seeds.stream(0, "prune")
    )
    assert regraft.Topology.of(regraft.load(out)) == expected
    assert found["connectivity"]["unreachable_outputs"] == []


def test_initial_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t"
    figures_of(capsys, out, "--density", 0.5, "--init", "torch")
    ticket = regraft.load(out)
    kept = diagnose.kept_values(initial(init="torch"), regraft.Topology.of(ticket))
    assert torch.equal(ticket.fc1.weight.values, kept["fc1.weight"])
    figures_of(capsys, out, "--density", 0.5, "--init", "torch", "--init", "scores:snip")
    scored = regraft.load(out)
    largest = max(float(w.values.detach().abs().max()) for w in (scored.fc1.weight, scored.fc2.weight))
    assert largest == 1.0


def test_lottery_tickets_train_and_rewind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, trained = tmp_path / "t", tmp_path / "trained"
    found = figures_of(
        capsys, out, *SHORT, "--density", 0.2, "--schedule", "iterative", "--trained", trained,
        "--checkpoint", tmp_path / "state",
    )  # fmt: skip
    assert [r["trained_density"] for r in found["rounds"]] == pytest.approx([1.0, 0.2**0.5], abs=1e-3)
    assert found["rounds"][1]["metric"] > 0.3
    ticket, after = regraft.load(out), regraft.load(trained)
    topology = regraft.Topology.of(ticket)
    assert topology == regraft.Topology.of(after)
    assert topology.nnz == round(0.2 * (64 * 24 + 240))
    assert torch.equal(ticket.fc1.weight.values, diagnose.kept_values(initial(), topology)["fc1.weight"])
    assert found["trained"]["test_accuracy"] > 0.5
    # the same command goes on from the state, here to the same end without training again
    again = figures_of(
        capsys, tmp_path / "u", *SHORT, "--density", 0.2, "--schedule", "iterative", "--checkpoint",
        tmp_path / "state",
    )  # fmt: skip
    assert again["rounds"] == found["rounds"]
    other = ("--density", 0.2, "--schedule", "iterative", "--checkpoint", tmp_path / "state", "--seed", 1)
    text = refused(capsys, "prune", *SMALL, *SHORT, *other, "--out", tmp_path / "u")
    assert "keeps the rounds of a pruning with other options (seed)" in text
    (tmp_path / "state" / "options.json").write_text("{")
    text = refused(capsys, "prune", *SMALL, *SHORT, *other, "--out", tmp_path / "u")
    assert "cannot use the folder" in text
    assert out.read_bytes() == (tmp_path / "u").read_bytes()
    assert call("prune", *SMALL, "--out", out, *SHORT, "--density", 0.2, "--schedule", "iterative") == 0
    assert "trained at" in capsys.readouterr().out


def test_rewinding_to_an_epoch_and_keeping_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*SHORT, "--density", 0.2)
    early = figures_of(capsys, tmp_path / "e", *args, "--schedule", "iterative", "--rewind", 1)
    gradual = figures_of(
        capsys, tmp_path / "g", *args, "--schedule", "gradual", "--epochs", 4, "--trained", tmp_path / "h"
    )
    assert (early["epoch"], gradual["epoch"]) == (1, 2)
    assert gradual["options"]["round_epochs"] == 1
    assert gradual["trained"]["epoch"] == 2
    ticket = regraft.load(tmp_path / "g")
    start = diagnose.kept_values(initial(), regraft.Topology.of(ticket))["fc1.weight"]
    assert not torch.equal(ticket.fc1.weight.values, start)
    longer = figures_of(capsys, tmp_path / "l", *args, "--schedule", "gradual", "--rounds", 3)
    assert longer["options"]["epochs"] == longer["epoch"] == 3  # more than --epochs 2, so training is longer


def test_a_ticket_goes_through_the_other_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"t{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        figures_of(capsys, path, "--density", 0.2, "--score", "synflow", "--seed", seed)
    assert call("train", "--start", paths[0], "--epochs", 3, "--lr", 0.1, "--out", tmp_path / "n") == 0
    printed = capsys.readouterr().out
    assert "200 training and 100 test samples" in printed  # those that the ticket was made for
    evolved, ticket = regraft.load(tmp_path / "n"), regraft.load(paths[0])
    assert regraft.Topology.of(evolved) != regraft.Topology.of(ticket)
    assert regraft.Topology.of(evolved).nnz == regraft.Topology.of(ticket).nnz
    provenance = checkpoint.read_header(tmp_path / "n").provenance
    assert provenance["parents"][0]["provenance"]["made_by"] == "regraft prune"
    assert "model" not in provenance["options"]
    assert call("train", "--start", paths[0], "--evolve", "none", "--epochs", 1, "--out", tmp_path / "s") == 0
    assert regraft.Topology.of(regraft.load(tmp_path / "s")) == regraft.Topology.of(ticket)
    assert call("evaluate", tmp_path / "n") == 0
    assert "100 test samples" in capsys.readouterr().out
    assert call("inspect", paths[0]) == 0
    assert call("distance", *paths) == 0
    assert call("merge", *paths, "--out", tmp_path / "m") == 0
    assert call("prune", "--from", tmp_path / "n", "--density", 0.1, "--out", tmp_path / "smaller") == 0
    assert regraft.Topology.of(regraft.load(tmp_path / "smaller")).density == pytest.approx(0.1, abs=1e-3)
    text = refused(capsys, "train", "--start", paths[0], "--density", 0.1, "--out", tmp_path / "x")
    assert "--density is of a new network, but --start names one that exists" in text


def test_a_dense_network_trains_on_and_is_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = (*SMALL, "--epochs", 2)
    assert call("train", *args, "--dense", "--out", tmp_path / "d") == 0
    assert call("train", "--start", tmp_path / "d", "--epochs", 1, "--out", tmp_path / "e") == 0
    assert call("prune", "--from", tmp_path / "e", "--density", 0.1, "--out", tmp_path / "t") == 0
    ticket, dense = regraft.load(tmp_path / "t"), regraft.load(tmp_path / "e")
    kept = diagnose.kept_values(dense, regraft.Topology.of(ticket))
    assert torch.equal(kept["fc2.weight"], ticket.fc2.weight.values)
    assert "20 training" not in capsys.readouterr().err


def test_controls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {}
    for control in (None, *prune.CONTROLS):
        out = tmp_path / str(control)
        extra = () if control is None else ("--control", control)
        figures_of(capsys, out, "--density", 0.2, "--score", "synflow", *extra)
        counts[control] = {n: c.nnz for n, c in regraft.Topology.of(regraft.load(out)).items()}
    assert len({sum(c.values()) for c in counts.values()}) == 1
    assert counts["shuffled"] == counts["shuffled-units"] == counts["reinitialised"] == counts[None]
    base, shuffled, drawn = (regraft.load(tmp_path / n) for n in ("None", "shuffled", "reinitialised"))
    assert regraft.Topology.of(base) != regraft.Topology.of(shuffled)
    assert regraft.Topology.of(base) == regraft.Topology.of(drawn)
    assert not torch.equal(base.fc1.weight.values, drawn.fc1.weight.values)


def test_what_died_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = ("--model", "mlp:in-30-30-30-30-classes", "--density", 0.005, "--score", "snip")
    capsys.readouterr()
    assert call("prune", *deep, "--per-class", 20, "--out", tmp_path / "t") == 0
    warned = capsys.readouterr().err
    assert "warning: no connection is left in 'fc" in warned
    assert "keep some connections in each layer with a floor" in warned
    assert call("prune", *deep, "--per-class", 20, "--out", tmp_path / "t", "--floor", 3) == 0
    assert "no connection is left" not in capsys.readouterr().err


def test_convolutions_and_residuals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r"
    args = ("--model", "resnet-8", "--per-class", 5, "--out", out, "--json", "-", "--density", 0.05)
    for score in ("snip", "grasp", "synflow"):
        capsys.readouterr()
        assert call("prune", *args, "--score", score, "--floor", 8, "--samples", 20) == 0
        found = json.loads(capsys.readouterr().out)["connectivity"]
        assert not found["empty_layers"]
        assert found["density"] == pytest.approx(0.05, abs=1e-4)


BAD = [
    (("--density", 0), "density is 0.0, but must be in (0, 1]"),
    (("--density", 0.0005), "too few for 2 layers: take a density of at least"),
    (("--density", 0.0005, "--scope", "layer"), "would keep no connection at density 0.0005"),
    (("--density", 0.01, "--floor", 50), "lower the floor or raise the density"),
    (("--density", 0.1, "--score", "snap"), "unknown score 'snap': did you mean 'snip'?"),
    (("--density", 0.1, "--score", "stacked(snip"), "a closing bracket or a comma is missing"),
    (
        ("--density", 0.1, "--score", "grasp:temperature=0"),
        "temperature is 0.0, but must be a positive number",
    ),
    (("--density", 0.1, "--score", "learned:gone"), "gone"),
    (("--density", 0.1, "--schedule", "itrative"), "did you mean 'iterative'?"),
    (("--density", 0.1, "--scope", "local"), "unknown scope 'local'"),
    (("--density", 0.1, "--path", "cubik"), "did you mean 'cubic'?"),
    (("--density", 0.1, "--ties", "first"), "unknown tie rule 'first'"),
    (("--density", 0.1, "--control", "shufled"), "did you mean 'shuffled'"),
    (("--density", 0.1, "--init", "scores:snop"), "did you mean 'snip'?"),
    (("--density", 0.1, "--init", "hee"), "unknown initial values 'hee'"),
    (("--density", 0.1, "--init", "scores:snip", "--init", "he"), "it must come before the others"),
    (("--density", 0.1, "--score", "receptive-fields", "--shots", 2), "--shots 2 goes with a score"),
    (("--density", 0.1, "--score", "receptive-fields", "--revive"), "--revive goes with a score"),
    (("--density", 0.1, "--score", "receptive-fields", "--model", "resnet-8"), "chain"),
    (("--density", 0.1, "--rounds", 3), "--rounds goes with --schedule iterative or gradual"),
    (("--density", 0.1, "--rewind", 3), "--rewind 3 goes with --schedule iterative"),
    (("--density", 0.1, "--checkpoint", "x"), "--checkpoint keeps rounds"),
    (("--density", 0.1, "--schedule", "iterative", "--rewind", "x"), "--rewind is 'x', but must be an epoch"),
    (("--density", 0.1, "--schedule", "iterative", "--rewind", 20), "--rewind 20 goes back to the end"),
    (("--density", 0.1, "--schedule", "iterative", "--rewind", "none"), "give --round-epochs too"),
    (("--density", 0.1, "--schedule", "gradual", "--control", "random"), "--control random needs the values"),
    (("--density", 0.1, "--samples", 900, "--balanced"), "too few for 90 of each"),
    (("--density", 0.1, "--include", "conv*"), "matches no module"),
    (("--density", 0.1, "--device", "gpu7"), "--device 'gpu7' cannot be used here"),
    (("--density", 0.1, "--model", "resnet-9"), "resnet has 6n + 2 layers, but the depth is 9"),
    (("--density", 0.1, "--from", "gone.safetensors"), "gone.safetensors"),
]


@pytest.mark.parametrize(
    ("args", "says"), BAD, ids=lambda v: " ".join(map(str, v)) if type(v) is tuple else ""
)
def test_refusals(
    args: tuple[object, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = () if {"--model", "--from"} & set(args) else SMALL[:2]
    assert says in refused(capsys, "prune", *model, *SMALL[2:], "--out", tmp_path / "t", *args)
    assert not (tmp_path / "t").exists()


def test_refusals_of_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "t", "--density", 0.1)
    regraft.save(models.build("mlp:64-5-3"), tmp_path / "three")
    assert "does not say what it was trained on" in refused(
        capsys, "prune", "--from", tmp_path / "three", *out
    )
    digits = ("prune", "--from", tmp_path / "three", *out, "--data", "digits")
    assert "has 3 outputs, but the data has the label 9" in refused(capsys, *digits)
    assert "--model is of a new network" in refused(capsys, *digits, "--model", "lenet-5")
    assert "draws the values of a new network" in refused(capsys, *digits, "--init", "torch")
    iris = ("prune", "--from", tmp_path / "three", *out, "--data", "iris")
    assert "does not take samples of shape (4,)" in refused(capsys, *iris)
    sparse = models.build("mlp:4-5-3", generator=torch.Generator().manual_seed(0))
    regraft.save(regraft.sparsify(sparse, density=0.5), tmp_path / "sparse")
    more = ("prune", "--from", tmp_path / "sparse", "--data", "iris", "--out", tmp_path / "t")
    assert "only 18 connections are there" in refused(capsys, *more, "--density", 0.9)
    gradual = ("--schedule", "gradual", "--rounds", 3, "--epochs", 3, "--trained", tmp_path / "u")
    assert "leave none of --epochs 3 for --trained" in refused(capsys, *more, "--density", 0.1, *gradual)
    with torch.no_grad():
        for p in sparse.parameters():
            p.zero_()
    regraft.save(sparse, tmp_path / "zero")
    zero = ("prune", "--from", tmp_path / "zero", "--data", "iris", "--out", tmp_path / "t", "--density", 0.4)
    assert "is 0 for every connection, so none can be ranked" in refused(capsys, *zero)


def test_help_explains_every_option() -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            shown = parameter.default is not None and parameter.show_default is not False
            flag = parameter.is_flag or parameter.required or parameter.multiple
            optional = parameter.name in {"json_path", "trained", "folder"}
            assert shown or flag or optional or "[default:" in parameter.help, parameter.name
