"""One sample at a time: bytes and latency of a sparse network in each runtime.

    python benchmarks/inference.py                 # A at epsilon 20, and thesis 1's net at density 0.05
    python benchmarks/inference.py --accuracy      # also trains thesis 1's net on Fashion-MNIST, and says
                                                   # what float16 and int8 cost in accuracy
    python benchmarks/inference.py --json figures.json

The weights are random (latency does not depend on them), except with --accuracy. Inputs are standard normal.
Latency: medians of interleaved rounds of processor time, one thread. "bytes" is what has to be shipped for
the weights: the file for Python runtimes, the constants for C. onnxruntime is left out where it is not
installed, C where no compiler is.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import regraft
from _common import options, ratio, set_threads, write_figures
from interleaved import timings
from regraft import checkpoint, models
from regraft.export import to_c, to_npz, to_onnx
from regraft.export.c_writer import Writer
from regraft.export.numpy_runtime import Network
from regraft.export.trace import trace

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "A: 784-1000-1000-1000-10, epsilon 20": ("mlp:784-1000-1000-1000-10", {"epsilon": 20}),
    "thesis 1: 784-392-196-5, density 0.05": (
        "mlp:784-392-196-5", {"density": 0.05, "allocate": "uniform"},
    ),
}  # fmt: skip
COMPILER = shutil.which("gcc") or shutil.which("cc")


def sparse_net(spec: str, options: dict[str, Any]) -> nn.Module:
    """A fresh network; the output layer stays dense at epsilon, as Erdos-Renyi makes it."""
    generator = torch.Generator().manual_seed(0)
    model = models.build(spec, generator=generator)
    return regraft.sparsify(model, generator=generator, **options).eval()


def c_job(model: nn.Module, folder: Path, values: str, x: Any, flags: list[str]) -> Callable[[], object]:
    """The compiled network behind ctypes, as a call without arguments."""
    name = f"net_{values}_{len(flags)}"
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    to_c(model, source, values=values)
    assert COMPILER is not None
    command = [
        COMPILER,
        "-O3",
        "-std=c99",
        *flags,
        "-shared",
        "-fPIC",
        str(source),
        "-o",
        str(library),
        "-lm",
    ]
    subprocess.run(command, check=True)
    predict = getattr(ctypes.CDLL(str(library)), f"{name}_predict")
    y = np.zeros(trace(model).output_shape, np.float32)
    places = x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)
    with torch.inference_mode():
        predict(*places)
        want = model(torch.from_numpy(x))[0].numpy()
    error = float(np.abs(y - want).max() / np.abs(want).max())
    if error > {"float32": 1e-5, "float16": 1e-2, "int8": 0.1}[values]:
        raise SystemExit(f"the C network with {values} values is off by {error:g}")
    return lambda: (predict(*places), y)


def onnx_job(model: nn.Module, path: Path, sparse: str, x: Any) -> Callable[[], object] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    to_onnx(model, path, sparse=sparse)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {"x": x}
    return lambda: session.run(None, inputs)


def inferring(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model(x)

    return call


def measure(spec: str, options: dict[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """Bytes, and latency in seconds, of each runtime."""
    model = sparse_net(spec, options)
    dense = regraft.densify(sparse_net(spec, options)).eval()
    x = torch.randn(1, 784, generator=torch.Generator().manual_seed(1))
    jobs: dict[str, Callable[[], object]] = {}
    size: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_file({k: v.contiguous() for k, v in dense.state_dict().items()}, folder / "dense.safetensors")
        jobs["dense torch"] = inferring(dense, x)
        size["dense torch"] = (folder / "dense.safetensors").stat().st_size
        checkpoint.save(model, folder / "m.safetensors")
        jobs["regraft torch"] = inferring(model, x)
        size["regraft torch"] = (folder / "m.safetensors").stat().st_size
        for label, form in (("dense", "no"), ("sparse tensors", "tensor"), ("packed", "packed")):
            job = onnx_job(model, folder / f"{form}.onnx", form, x.numpy())
            if job is not None:
                jobs[f"onnxruntime, {label}"] = job
                size[f"onnxruntime, {label}"] = (folder / f"{form}.onnx").stat().st_size
        for values in ("float32", "float16", "int8"):
            to_npz(model, folder / f"{values}.npz", values=values)
            network = Network(folder / f"{values}.npz")
            jobs[f"NumPy, {values}"] = partial(network, x.numpy())
            size[f"NumPy, {values}"] = (folder / f"{values}.npz").stat().st_size
        for values in ("float32", "float16", "int8") if COMPILER else ():
            writer = Writer(trace(model), "n", values)
            writer.text()
            for label, flags in (("", []), (", -march=native", ["-march=native"])):
                jobs[f"C, {values}{label}"] = c_job(model, folder, values, x.numpy(), flags)
                size[f"C, {values}{label}"] = writer.bytes
        times = timings(jobs, "dense torch", rounds=rounds)
    return {
        name: {"bytes": size[name], **times[name]._asdict(), "smaller": size["dense torch"] / size[name]}
        for name in jobs
    }


def accuracy(epochs: int, data_dir: str | None) -> dict[str, float]:
    """Test accuracy of thesis 1's net, five classes of 1000 samples each, with each kind of values."""
    from regraft import data as data_sets

    data = data_sets.load("fashion-mnist", data_dir=data_dir, classes=range(5), per_class=1000, flatten=True)
    spec, options = NETS["thesis 1: 784-392-196-5, density 0.05"]
    model = sparse_net(spec, options).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(data.train.y), generator=generator)
        for batch in torch.split(order, 100):
            loss = nn.functional.cross_entropy(model(data.train.x[batch]), data.train.y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        by_torch = model(data.test.x).argmax(1)
    found = {"torch": float((by_torch == data.test.y).double().mean()), "samples": len(by_torch)}
    with tempfile.TemporaryDirectory() as folder:
        for values in ("float32", "float16", "int8"):
            to_npz(model, f"{folder}/m.npz", values=values)
            scores = Network(f"{folder}/m.npz")(data.test.x.numpy())
            found[values] = float((scores.argmax(1) == data.test.y.numpy()).mean())
            found[f"{values}, predictions changed"] = int((scores.argmax(1) != by_torch.numpy()).sum())
    return found


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    print(f"{'runtime':<28}{'bytes':>12}{'smaller':>9}{'us':>9}{'faster than dense torch':>28}")
    for name, row in rows.items():
        latency = f"{row['median'] * 1e6:>9.1f}{ratio(row):>28}"
        print(f"{name:<28}{row['bytes']:>12,}{row['smaller']:>8.1f}x{latency}")


def main() -> None:
    parser = options(__doc__, rounds=50, threads=False)
    parser.add_argument(
        "--accuracy", action="store_true", help="train on Fashion-MNIST, compare kinds of values"
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs for --accuracy (default 20)")
    parser.add_argument("--data-dir", default=None, help="folder with data sets for --accuracy")
    arguments = parser.parse_args()
    set_threads(1)
    figures: dict[str, Any] = {"nets": {}, "torch": torch.__version__}
    for title, (spec, how) in NETS.items():
        figures["nets"][title] = measure(spec, how, arguments.rounds)
        if arguments.json != "-":
            show(title, figures["nets"][title])
    if arguments.accuracy:
        figures["accuracy"] = accuracy(arguments.epochs, arguments.data_dir)
        if arguments.json != "-":
            print("\ntest accuracy of thesis 1's net:", figures["accuracy"])
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
