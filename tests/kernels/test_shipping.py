"""The ways that the package reaches a machine: without a compiler, and with smaller instruction sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.kernels import backends, native

ROOT = Path(__file__).parents[2]
TESTS = [
    ROOT / "tests" / name
    for name in (
        "kernels/test_linear.py",
        "kernels/test_fused.py",
        "kernels/test_plan.py",
        "train/test_step.py",
    )
]
TRAIN = """
import sys, torch, regraft
from regraft import data, kernels, models, sparsify
from regraft.train import fit
g = torch.Generator().manual_seed(0)
digits = data.load("digits", per_class=20, flatten=True)
model = sparsify(models.build("mlp:64-48-32-10", generator=g), density=0.1, generator=g)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
history = fit(model, digits, epochs=3, optimizer=optimizer, batch_size=20)
print(kernels.backend(), kernels.isa(), regraft.__file__, *history.column("train_loss"))
"""


def run(*command: str | Path, **environment: str | Path) -> str:
    """What a command prints; it must not fail."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGRAFT_") or k == "REGRAFT_DATA"}
    env |= {k: str(v) for k, v in environment.items()}
    done = subprocess.run(
        [str(c) for c in command], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train(**environment: str | Path) -> tuple[list[str], list[float]]:
    """Backend, instruction set and place of the package; the losses of three epochs."""
    printed = run(sys.executable, "-W", "error", "-c", TRAIN, **environment).split()
    return printed[:3], [float(loss) for loss in printed[3:]]


@pytest.fixture(scope="module")
def here() -> list[float]:
    """The losses with what is installed here."""
    losses = train()[1]
    assert losses[-1] < losses[0]
    return losses


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation made where there is no compiler."""
    place = tmp_path_factory.mktemp("bare")
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", place / "tree" / "src", ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "tree")
    missing = "/nonexistent/cc"
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--target", place / "site", place / "tree",
        CC=missing, CXX=missing, LDSHARED=missing, PIP_CONSTRAINT="",
    )  # fmt: skip
    assert not list((place / "site").rglob("*.so"))
    return place / "site"


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in backends.BACKENDS if name != "native"])
def test_without_a_compiler_it_installs_and_trains_alike(backend: str, bare: Path, here: list[float]) -> None:
    if backend not in backends.installed():
        pytest.skip(f"no {backend} here")
    (used, isa, file), losses = train(PYTHONPATH=bare, REGRAFT_BACKEND=backend)
    assert (used, isa) == (backend, "None")
    assert Path(file).is_relative_to(bare)
    assert losses == pytest.approx(here, rel=1e-4)


@pytest.mark.slow
def test_without_a_compiler_the_fallback_is_taken_unasked(bare: Path, here: list[float]) -> None:
    (used, _, file), losses = train(PYTHONPATH=bare)
    assert used == next((name for name in backends.installed() if name != "native"), "None")
    assert Path(file).is_relative_to(bare)
    assert losses == pytest.approx(here, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_a_forced_instruction_set_passes_the_kernel_tests(isa: str, here: list[float]) -> None:
    if not native.available():
        pytest.skip("no compiled kernels here")
    (used, found, _), losses = train(REGRAFT_ISA=isa)
    if found != isa:
        pytest.skip(f"this processor has no {isa}")
    assert used == "native"
    assert losses == pytest.approx(here, rel=1e-4)
    told = run(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *TESTS, REGRAFT_ISA=isa
    )
    assert "passed" in told or "[100%]" in told
