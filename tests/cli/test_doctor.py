import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from regraft import doctor, kernels
from regraft.cli.doctor import command
from regraft.kernels import backends, convolution


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


@pytest.mark.parametrize(
    ("missing", "backend", "sentences"),
    [
        ((), "native", []),
        (("native",), "numba", ["numba's loops", "C compiler"]),
        (("native", "numba"), "csr", ["torch's CSR", "C compiler", "pip install 'regraft[numba]'"]),
        (("native", "numba", "csr"), None, ["through dense ones", "C compiler", "regraft[numba]"]),
    ],
)
def test_each_installation_gets_its_line_and_its_advice(
    missing: tuple[str, ...], backend: str | None, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in backends.BACKENDS:
        monkeypatch.setattr(backends.BACKENDS[name], "available", lambda name=name: name not in missing)
    monkeypatch.setattr(doctor, "_agrees", lambda backend: True)
    monkeypatch.setattr(convolution, "available", lambda: "native" not in missing)
    monkeypatch.setattr(kernels, "isa", lambda: "avx2")
    report = doctor.examine()
    assert report["kernels"]["linear"]["backend"] == backend
    assert report["kernels"]["linear"]["isa"] == ("avx2" if backend == "native" else None)
    told = " ".join(report["advice"])
    assert all(sentence in told for sentence in sentences)
    assert ("C compiler" in told) == ("native" in missing)
    shown = CliRunner().invoke(command, [])
    named = {"native": "compiled, avx2", "numba": "numba's loops", "csr": "torch's CSR", None: "not compiled"}
    assert named[backend] in shown.output


def test_a_forced_backend_and_mode_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with kernels.use("materialised", backend="csr"):
        report = doctor.examine()
    assert report["kernels"]["linear"]["backend"] == "csr"
    told = " ".join(report["advice"])
    assert "REGRAFT_KERNEL" in told
    assert "REGRAFT_BACKEND" in told or "native" not in backends.installed()


def test_missing_extras_come_with_a_command() -> None:
    assert "regraft[onnx]" in doctor._advice({"report": True, "onnx": False})[-1]


def test_a_forced_instruction_set_is_reported() -> None:
    if kernels.isa() is None:
        pytest.skip("no compiled kernels here")
    code = "from regraft import doctor; print(doctor.examine()['kernels']['linear'])"
    environment = {**os.environ, "REGRAFT_ISA": "baseline"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "baseline" in run.stdout
