"""What works on this machine: which kernels run, on what, and what an extra would add."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import Any

import torch

from regraft import kernels
from regraft.files import versions
from regraft.kernels import backends, convolution, dispatch
from regraft.weight import SparseWeight

EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "images": ("PIL",),
    "tensorboard": ("tensorboard",),
    "onnx": ("onnx", "onnxruntime"),
    "numba": ("numba",),
}
"""Modules that each extra brings."""


def examine() -> dict[str, Any]:
    """Figures about this installation, as plain data.

    Returns:
        ``versions``; ``machine`` (system, processor, cores, threads of torch and of regraft, CUDA);
        ``kernels`` (``mode``; for ``linear`` the ``backend`` that runs, those ``installed``, its instruction
        set and threads, and whether a small product of each agrees with the dense one; for ``conv`` whether
        it is ``compiled``, and the instruction set; for ``gpu`` its ``name`` if there is one, what ``auto``
        takes there, what can be chosen instead, and whether that agrees); ``extras`` ({name: installed});
        ``advice``, sentences on what to do.

    >>> report = examine()
    >>> sorted(report), report["kernels"]["linear"]["agrees"]
    (['advice', 'extras', 'kernels', 'machine', 'versions'], True)
    """
    found = {name: all(map(_installed, modules)) for name, modules in EXTRAS.items()}
    return {
        "versions": versions(),
        "machine": {
            "system": platform.platform(terse=True),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "kernel_threads": kernels.get_threads(),
            "cuda": torch.cuda.is_available(),
        },
        "kernels": {"mode": kernels.current(), "linear": _linear(), "conv": _conv(), "gpu": _gpu()},
        "extras": found,
        "advice": _advice(found),
    }


def _linear() -> dict[str, Any]:
    backend, installed = kernels.backend(), backends.installed()
    threads = {"native": kernels.get_threads(), "numba": 1}
    return {
        "backend": backend,
        "installed": installed,
        "isa": kernels.isa() if backend == "native" else None,
        "threads": threads.get(backend or "", torch.get_num_threads()),
        "agrees": all(_agrees(name) for name in installed) and _agrees(None),
    }


def _gpu() -> dict[str, Any]:
    """What sparse linear layers would do on a GPU, whether there is one or not."""
    there, choices = torch.cuda.is_available(), backends.installed("cuda")
    measured = any(dispatch.GPU_CROSSOVER[name] > 0 for name in choices)
    return {
        "name": torch.cuda.get_device_name() if there else None,
        "auto": "materialised" + (" or compressed, by the measured crossover" if measured else ""),
        "choices": choices,
        "agrees": all(_agrees(name, "cuda") for name in choices) and _agrees(None, "cuda") if there else None,
    }


def _conv() -> dict[str, Any]:
    compiled = convolution.available()
    return {"compiled": compiled, "isa": kernels.isa() if compiled else None}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _agrees(backend: str | None, device: str = "cpu") -> bool:
    """A small product and its gradients by one backend (None: materialised) against float64 dense ones."""
    g = torch.Generator().manual_seed(0)
    index = torch.arange(0, 40 * 30, 11)
    weight = SparseWeight((40, 30), index, torch.randn(index.numel(), generator=g)).to(device)
    x = torch.randn(17, 30, generator=g).to(device).requires_grad_()
    with kernels.use("materialised" if backend is None else "compressed", backend=backend):
        y = kernels.linear(x, weight, None)
        dx, dvalues = torch.autograd.grad(y.square().sum(), [x, weight.values])
    w = weight.dense().detach().double()
    dense_x = x.detach().double()
    dense_y = dense_x @ w.t()
    dense_values = (2 * dense_y.t() @ dense_x).flatten()[weight.index]
    pairs = ((y, dense_y), (dx, 2 * dense_y @ w), (dvalues, dense_values))
    return all(torch.allclose(got.double(), wanted, rtol=1e-4, atol=1e-3) for got, wanted in pairs)


COMPILER = "install a C compiler (gcc or clang) and run `pip install --force-reinstall --no-deps regraft`"
INSTEAD = {
    "numba": "numba's loops compute sparse linear layers; a step takes 1.5 times as long as compiled ones",
    "csr": "torch's CSR products compute sparse linear layers; a step takes twice as long as compiled ones",
    None: "sparse layers compute through dense ones, many times slower than compiled kernels",
}


def _advice(extras: dict[str, bool]) -> list[str]:
    advice, backend, there = [], kernels.backend(), backends.installed()
    if "native" not in there:
        numba = ", or run `pip install 'regraft[numba]'`" if "numba" not in there else ""
        advice.append(f"{INSTEAD[backend]}: {COMPILER}{numba}")
    elif backend != "native":
        advice.append(f"{INSTEAD[backend]}: leave REGRAFT_BACKEND unset to use the compiled ones")
    elif kernels.isa() == "baseline":
        advice.append(
            "the kernels run on baseline instructions: right for this processor, unless REGRAFT_ISA is set"
        )
    if "native" in there and not convolution.available():
        advice.append(f"the compiled convolution is missing, so convolutions are dense ones: {COMPILER}")
    if kernels.current() == "materialised":
        advice.append("every sparse layer is materialised: leave REGRAFT_KERNEL unset for the faster way")
    missing = [name for name, found in extras.items() if not found and (name, backend) != ("numba", "native")]
    if missing:
        advice.append(f"for more, run `pip install 'regraft[{','.join(missing)}]'`")
    return advice
