"""The app that ``flwr run`` takes: its settings suffice, and it learns; Flower finds its apps."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed (extra federated)")

from tests.federated.flower.loopback import Loopback, context

FOLDER = Path(__file__).parents[3] / "examples" / "flower"
APP = tomllib.loads((FOLDER / "pyproject.toml").read_text())["tool"]["flwr"]["app"]


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location("federated_digits", FOLDER / "federated_digits.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_flower_accepts_the_project():
    from flwr.cli.config_utils import load_and_validate

    load_and_validate(FOLDER / "pyproject.toml", check_module=False)


def test_it_learns_and_goes_on_from_its_folder(module, tmp_path):
    told = APP["config"] | {"rounds": 2, "folder": str(tmp_path), "epochs": 1}
    grid = Loopback(getattr(module, APP["components"]["clientapp"].split(":")[1]), told["nodes"])
    for node in grid.nodes.values():
        node.run_config.update(told)
    server = context(None, 0)
    server.run_config.update(told)
    getattr(module, APP["components"]["serverapp"].split(":")[1])(grid, server)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"round-00000{i}.safetensors" for i in (1, 2)]
    again = module.strategy(server)
    assert again.state.round == 2
    assert again.state.history[-1]["test_accuracy"] > 0.4
    assert again.state.history[-1]["density"] == pytest.approx(0.1, abs=0.01)
