"""What leaves the device: exported networks, estimators, the command line, the doctor."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.devices.features import CPU, on, same, seeded

import regraft
from regraft import models, sparsify
from regraft.cli import main
from regraft.export import to_c, to_npz

SMALL = ("--model", "mlp:in-16-classes", "--per-class", "10", "--test-per-class", "5", "--batch-size", "20")


def network(device: torch.device) -> torch.nn.Module:
    model = sparsify(models.build("mlp:64-16-10", generator=seeded()), density=0.4, generator=seeded())
    return model.to(device).eval()


def test_export_copies_to_the_cpu(device: torch.device, tmp_path: Path) -> None:
    for where in (CPU, device):
        to_npz(network(where), tmp_path / f"{where.type}.npz")
        to_c(network(where), tmp_path / f"{where.type}.c")
    a, b = (np.load(tmp_path / f"{where.type}.npz") for where in (CPU, device))
    assert a.files == b.files
    assert all(np.array_equal(a[name], b[name]) for name in a.files)
    texts = [(tmp_path / f"{where.type}.c").read_text() for where in (CPU, device)]
    assert texts[0] == texts[1].replace(device.type, "cpu")


def test_export_to_onnx(device: torch.device, tmp_path: Path) -> None:
    if importlib.util.find_spec("onnx") is None:
        pytest.skip("no onnx here")
    from regraft.export import to_onnx

    model = network(device)
    to_onnx(model, tmp_path / "a.onnx")
    assert on(model, device)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    x = torch.randn(3, 64, generator=seeded())
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), network(CPU)(x), rtol=1e-4, atol=1e-5)


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


def figures(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_command_says_which_engine_trains_on_the_cpu_alone(
    device: torch.device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    assert call("federate", "--engine", "flower", "--out", out, "--device", device.type) == 2
    assert "flower trains its clients on the CPU" in capsys.readouterr().err


def test_the_command_line(device: torch.device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command with --device: train, prune, merge in its ways, tournament, evaluate, federate."""

    def run(where: torch.device) -> Any:
        folder = tmp_path / where.type
        folder.mkdir()
        at = ("--device", where.type)
        files = [folder / f"{i}.safetensors" for i in range(2)]
        for seed, file in enumerate(files):
            assert call("train", *SMALL, "--epochs", 2, "--seed", seed, "--out", file, *at) == 0
        assert call("evaluate", files[0], *at, "--json", folder / "e.json") == 0
        digits = ("--data", "digits", "--per-class", 10, "--test-per-class", 5)
        made = {
            "aligned": ("--align", "activations", "--repair", "repair", *digits),
            "finetuned": ("--finetune", 1, *digits),
            "gates": ("--gates", "--merge-epochs", 1, "--finetune", 1, *digits),
            "neurons": ("--select", "neurons", *digits),
        }
        for name, options in made.items():
            out = folder / f"{name}.safetensors"
            assert call("merge", *files, *options, *at, "--out", out) == 0, capsys.readouterr()
        assert call(
            "prune", *SMALL[:2], "--data", "digits", *SMALL[2:6], "--score", "snip", "--density", 0.2,
            "--shots", 2, "--out", folder / "ticket.safetensors", *at,
        ) == 0  # fmt: skip
        assert call(
            "train", "--start", folder / "ticket.safetensors", *SMALL[2:], "--epochs", 1, "--out",
            folder / "trained.safetensors", *at,
        ) == 0  # fmt: skip
        assert call(
            "tournament", *files, *files, "--gates", "--merge-epochs", 1, "--finetune", 1, *digits, "--out",
            folder / "won.safetensors", *at,
        ) == 0  # fmt: skip
        for topology in ("star", "ring"):
            assert call(
                "federate", *SMALL[:6], "--clients", 3, "--rounds", 1, "--density", 0.3, "--topology",
                topology, "--out", folder / f"{topology}.safetensors", *at,
            ) == 0  # fmt: skip
        names = ["won", "star", "ring", *made, "0", "ticket", "trained"]
        return [regraft.load(folder / f"{name}.safetensors") for name in names], figures(folder / "e.json")[
            "accuracy"
        ]

    same(run, device)


@pytest.mark.parametrize("options", [{}, {"n_networks": 2}, {"evolve": "rigl", "early_stopping": True}])
def test_estimators_train_there_and_come_back(device: torch.device, options: dict[str, Any]) -> None:
    from regraft.estimators import SparseMLPClassifier, SparseMLPRegressor

    x = torch.randn(60, 6, generator=seeded()).numpy()
    y = x[:, 0] * 2 - x[:, 3]

    def run(where: torch.device) -> Any:
        given = {"density": 0.4, "max_iter": 3, "random_state": 0, "learning_rate": "cosine", **options}
        fitted = [
            SparseMLPClassifier(device=where.type, **given).fit(x, y > 0),
            SparseMLPRegressor(device=where, **given).fit(x, y),
        ]
        for one in fitted:
            assert on(one.module_, CPU)
            assert pickle.loads(pickle.dumps(one)).predict(x).shape == (60,)  # noqa: S301
        return [one.module_ for one in fitted], [torch.from_numpy(one.predict(x) * 1.0) for one in fitted]

    same(run, device)


def test_estimators_go_on_there_with_samples_as_they_come(device: torch.device) -> None:
    from regraft.estimators import SparseMLPClassifier

    x = torch.randn(60, 6, generator=seeded()).numpy()

    def run(where: torch.device) -> Any:
        one = SparseMLPClassifier(density=0.4, random_state=0, optimizer="adam", device=where.type)
        for part in (x[:30], x[30:]):
            one.partial_fit(part, part[:, 0] > 0, classes=[False, True])
            one = pickle.loads(pickle.dumps(one))  # noqa: S301
        return one.module_

    assert on(same(run, device), CPU)
