"""Files of every format that was ever released are read, and compute what they computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.frozen.write import NETWORKS, sample

import regraft
from regraft import files
from regraft.cli import main
from regraft.export import numpy_runtime
from regraft.scores import learned
from regraft.scores.learned import Learned

FOLDERS = sorted((Path(__file__).parent / "frozen").glob("format-*"))


def test_there_is_a_folder_for_each_format() -> None:
    newest = max(files.FORMAT, learned.FORMAT, numpy_runtime.FORMAT)
    assert [folder.name for folder in FOLDERS] == [f"format-{i}" for i in range(1, newest + 1)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_read_and_computes_what_it_computed(name: str, folder: Path) -> None:
    model = regraft.load(folder / f"{name}.safetensors")
    expected = torch.tensor(json.loads((folder / "expected.json").read_text())[name])
    with torch.no_grad():
        found = model(sample(NETWORKS[name][1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_networks_merge_with_those_of_today(folder: Path, tmp_path: Path) -> None:
    old = folder / "mlp.safetensors"
    today = tmp_path / "today.safetensors"
    regraft.save(regraft.load(old), today)
    regraft.merge_files([old, today], tmp_path / "merged.safetensors", weights="average")
    merged = regraft.load(tmp_path / "merged.safetensors")
    assert regraft.Topology.of(merged) == regraft.Topology.of(regraft.load(old))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_command_line_tells_what_wrote_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(folder / "mlp.safetensors"), "--json", "-"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == int(folder.name.removeprefix("format-"))
    assert told["versions"]["regraft"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_learned_score_predicts_what_it_predicted(folder: Path) -> None:
    score = Learned.load(folder / "learned.safetensors")
    assert score.regressor.predict(torch.eye(4)).tolist() == [1.5, 2.5, 3.5, 4.5]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_exported_network_computes_what_it_computed(folder: Path) -> None:
    network = numpy_runtime.Network(folder / "mlp.npz")
    expected = json.loads((folder / "expected.json").read_text())["mlp"]
    np.testing.assert_allclose(network(sample((6,)).numpy()), expected, rtol=1e-4, atol=1e-5)
