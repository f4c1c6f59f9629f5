"""Real processes on 127.0.0.1, encrypted: nodes with known keys train a round, all others are turned away."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed (extra federated)")

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
MISSING = [program for program in ("openssl", "ssh-keygen") if shutil.which(program) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"keys are made by {MISSING}, which are not there")
def test_a_round_with_certificates_and_registered_keys(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("flower_deployment")
    with module.deployment(tmp_path / "flower", tls=True, nodes=2) as here:
        here.superlink()
        for node in range(2):
            here.register(node)
        said = module.strangers(here)
        assert "Failed to activate" in said["a key that is not registered"]
        assert "must be registered" in said["no key"]
        for node in range(2):
            here.supernode(node)
        here.run(rounds=1, timeout=120)
        here.wait_for_round(1, 300)
        row = here.history()[0]
    assert (row["clients"], row["accepted"], row["lost"]) == (2, 2, 0)
