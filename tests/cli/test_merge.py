"""``regraft merge``: what it writes, what it prints, and how bad input ends."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from regraft import Topology, load, merge, save, sparsify
from regraft.cli import main
from regraft.files import Header, read_network, sha256, write_network
from regraft.models import build


def network(
    path: Path, seed: int, model: str = "mlp:64-12-10", density: float | None = 0.3, **spec: Any
) -> Path:
    generator = torch.Generator().manual_seed(seed)
    made = build(model, generator=generator, **spec)
    save(made if density is None else sparsify(made, density, generator=generator), path)
    return path


@pytest.fixture
def parents(tmp_path: Path) -> list[Path]:
    return [network(tmp_path / f"n{seed}.safetensors", seed) for seed in range(3)]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_merges_and_says_what_it_did(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "m.safetensors", tmp_path / "f.json"
    assert (
        run("merge", *parents, "--weights", "average", "--over", "present", "--out", out, "--json", figures)
        == 0
    )
    printed = capsys.readouterr().out
    assert "merged 3 networks by average x average; wrote" in printed
    merged = load(out)
    expected = merge(parents, "average", over="present", generator=torch.Generator().manual_seed(0))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(merged.state_dict()[name], tensor), name
    read = json.loads(figures.read_text())
    assert [p["sha256"] for p in read["parents"]] == [sha256(p) for p in parents]
    assert {x["name"]: x["kept"] for x in read["layers"]} == {
        n: c.nnz for n, c in Topology.of(merged).items()
    }
    assert read["layers"][0]["parents"] == [Topology.of(load(p))["fc1.weight"].nnz for p in parents]
    assert read["layers"][0]["union_density"] == pytest.approx(read["layers"][0]["union"] / 768)
    assert read["bytes_on_disk"] == out.stat().st_size
    assert read["versions"]["regraft"]


@pytest.mark.parametrize(
    ("density", "kept"), [("keep", "parents"), ("none", "union"), ("0.1", 77), ("1", "union")]
)
def test_densities(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], density: str, kept: object
) -> None:
    assert run("merge", *parents, "--density", density, "--out", tmp_path / "m", "--json", "-") == 0
    first = json.loads(capsys.readouterr().out)["layers"][0]
    wanted = {"parents": first["parents"][0], "union": first["union"]}.get(str(kept), kept)
    assert first["kept"] == wanted


def test_parents_and_merged_are_evaluated(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge", *parents, "--out", parents[0], "--data", "digits", "--json", tmp_path / "j") == 0
    rows = json.loads((tmp_path / "j").read_text())["evaluation"]
    assert [r["network"] for r in rows] == [*map(str, parents), "merged"]
    assert all(0 <= r["accuracy"] <= 1 and math.isfinite(r["loss"]) and r["n"] > 100 for r in rows)
    assert rows[0] != rows[-1] | {"network": rows[0]["network"]}  # the parent's own, though replaced
    assert "on the test samples of digits" in capsys.readouterr().out
    assert read_network(parents[0])[1].provenance["merge"]["networks"] == 3


def test_dense_parents_can_be_merged_into_a_sparse_network(tmp_path: Path) -> None:
    paths = [network(tmp_path / f"d{s}", s, density=None) for s in range(2)]
    assert run("merge", *paths, "--density", "0.05", "--out", tmp_path / "m") == 0
    assert Topology.of(load(tmp_path / "m"))["fc1.weight"].nnz == round(0.05 * 768)


def test_help_names_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("merge", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for default in ("magnitude", "average", "keep", "layer", "networks", "0"):
        assert f"[default: {default}]" in text


def broken_copy(source: Path, to: Path, **change: Any) -> Path:
    tensors, header = read_network(source)
    name, value = next(iter(change.items()))
    tensors[name.replace("__", ".")].view(-1)[-1] = value
    write_network(to, tensors, header, finite=False)
    return to


def bad_file(kind: str, good: Path, folder: Path) -> Path:
    """A file that cannot be merged with ``good``."""
    path = folder / f"{kind}.safetensors"
    raw = good.read_bytes()
    if kind == "missing":
        return path
    if kind == "wrong-shape":
        return network(path, 9, "mlp:64-13-10")
    if kind == "more-layers":
        return network(path, 9, "mlp:64-12-12-10")
    if kind == "other-activation":
        return network(path, 9, activation="tanh")
    if kind == "nan":
        return broken_copy(good, path, fc1__weight__values=float("nan"))
    if kind == "infinite":
        return broken_copy(good, path, fc1__bias=float("inf"))
    if kind == "newer":
        tensors, header = read_network(good)
        write_network(path, tensors, Header(header.shapes, header.model, format=2))
        return path
    if kind == "foreign":
        safetensors.torch.save_file({"fc1.weight": torch.zeros(12, 64)}, path)
        return path
    content = {
        "truncated": raw[: len(raw) // 2], "truncated-header": raw[:60], "empty": b"",
        "text": b"not a network", "pickle": b"\x80\x04\x95" + bytes(90), "longer": raw + b"x",
    }  # fmt: skip
    path.write_bytes(content[kind])
    return path


BAD_FILES = {
    "missing": "No such file",
    "wrong-shape": r"has shape \(13, 64\)",
    "more-layers": "must share one architecture",
    "other-activation": "was built with activation 'tanh'",
    "nan": "holds NaN or infinite values in 'fc1.weight.values'",
    "infinite": "holds NaN or infinite values in 'fc1.bias'",
    "newer": "upgrade regraft",
    "foreign": "not a network of regraft",
    "truncated": "truncated",
    "truncated-header": "truncated",
    "empty": "is not a network file",
    "text": "is not a network file",
    "pickle": "is not a network file",
    "longer": "1 bytes follow its last tensor",
}


@pytest.mark.parametrize(("kind", "message"), BAD_FILES.items())
@pytest.mark.parametrize("first", [True, False])
def test_bad_files_end_in_one_sentence_and_no_output(
    parents: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    message: str,
    first: bool,
) -> None:
    bad = bad_file(kind, parents[0], tmp_path)
    before = sorted(os.listdir(tmp_path))
    order = [bad, parents[1]] if first else [parents[1], bad]
    text = failure(capsys, "merge", *order, "--out", tmp_path / "m.safetensors")
    assert text.startswith("regraft: ")
    assert text.count("\n") == 1
    assert f"'{bad}'" in text or kind in ("wrong-shape", "more-layers", "other-activation")
    assert str(bad) in text
    if not (first and kind in ("wrong-shape", "more-layers", "other-activation")):
        assert re.search(message, text), text
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "magnitud"], "unknown weight rule 'magnitud': did you mean 'magnitude'?"),
        (["--biases", "averag"], "unknown bias rule 'averag': did you mean 'average'?"),
        (["--density", "0"], "density is '0', but must be 'keep', 'none' or a number in (0, 1]"),
        (["--density", "1.5"], "density is '1.5', but must be"),
        (["--density", "nan"], "density is 'nan', but must be"),
        (["--density", "lots"], "density is 'lots', but must be"),
        (["--density", "0.0001"], "would keep no connection at density 0.0001"),
        (["--scope", "all"], "scope is 'all', but must be 'layer'"),
        (["--score", "snipp"], "unknown score 'snipp'"),
        (["--over", "all"], "over is 'all', but must be 'networks'"),
        (["--data", "digitz"], "digits"),
        (["--data", "breast-cancer"], "64"),
        (["--json", "no/such/folder/f"], "does not exist"),
    ],
)
def test_bad_options(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    text = failure(capsys, "merge", *parents, "--out", tmp_path / "m", *options)
    assert message in text
    assert not (tmp_path / "m").exists()


def test_bad_places_for_the_output(
    parents: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in failure(capsys, "merge", *parents, "--out", tmp_path / "no" / "m")
    assert "it is a folder" in failure(capsys, "merge", *parents, "--out", tmp_path)
    assert "Missing option '--out'" in failure(capsys, "merge", *parents)
    assert "Missing argument" in failure(capsys, "merge", "--out", tmp_path / "m")
