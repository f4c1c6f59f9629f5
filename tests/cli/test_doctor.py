import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from regraft import doctor, kernels
from regraft.cli.doctor import command


def test_the_table_names_the_instruction_set_and_the_threads() -> None:
    shown = CliRunner().invoke(command, [])
    assert shown.exit_code == 0
    assert "linear kernels" in shown.output
    assert str(kernels.get_threads()) in shown.output
    if kernels.isa() is not None:
        assert str(kernels.isa()) in shown.output


def test_json_holds_the_same_figures(tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    assert CliRunner().invoke(command, ["--json", str(path)]).exit_code == 0
    assert json.loads(path.read_text())["kernels"]["linear"]["agrees"] is True


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "linear", lambda x, weight, bias: 2 * x @ weight.dense().t())
    shown = CliRunner().invoke(command, [])
    assert shown.exit_code == 1
    assert "disagree" in shown.output


def test_missing_kernels_and_extras_come_with_advice() -> None:
    advice = doctor._advice({"linear": False, "conv": False}, {"report": True, "onnx": False})
    assert "C compiler" in advice[0]
    assert "regraft[onnx]" in advice[1]


def test_a_forced_instruction_set_is_reported() -> None:
    if kernels.isa() is None:
        pytest.skip("no compiled kernels here")
    code = "from regraft import doctor; print(doctor.examine()['kernels']['linear'])"
    environment = {**os.environ, "REGRAFT_ISA": "baseline"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "baseline" in run.stdout
