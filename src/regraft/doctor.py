"""What works on this machine: which kernels run, on what, and what an extra would add."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import Any

import torch

from regraft import kernels
from regraft.files import versions
from regraft.kernels import convolution, native
from regraft.weight import SparseWeight

EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "images": ("PIL",),
    "tensorboard": ("tensorboard",),
    "onnx": ("onnx", "onnxruntime"),
}
"""Modules that each extra brings."""


def examine() -> dict[str, Any]:
    """Figures about this installation, as plain data.

    Returns:
        ``versions``; ``machine`` (system, processor, cores, threads of torch and of regraft, CUDA);
        ``kernels`` (for ``linear`` and ``conv``: ``compiled``, the instruction set, whether a small product
        agrees with the dense one); ``extras`` ({name: installed}); ``advice``, sentences on what to do.

    >>> report = examine()
    >>> sorted(report), report["kernels"]["linear"]["agrees"]
    (['advice', 'extras', 'kernels', 'machine', 'versions'], True)
    """
    found = {name: all(map(_installed, modules)) for name, modules in EXTRAS.items()}
    compiled = {"linear": native.available(), "conv": convolution.available()}
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
        "kernels": {
            "mode": kernels.current(),
            "linear": {"compiled": compiled["linear"], "isa": kernels.isa(), "agrees": _linear_agrees()},
            "conv": {"compiled": compiled["conv"], "isa": kernels.isa() if compiled["conv"] else None},
        },
        "extras": found,
        "advice": _advice(compiled, found),
    }


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _linear_agrees() -> bool:
    """A small product and its gradient by the kernels in use, against the dense ones in float64."""
    g = torch.Generator().manual_seed(0)
    index = torch.arange(0, 40 * 30, 11)
    weight = SparseWeight((40, 30), index, torch.randn(index.numel(), generator=g))
    x = torch.randn(17, 30, generator=g, requires_grad=True)
    y = kernels.linear(x, weight, None)
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    w = weight.dense().detach().double()
    dense_y = x.detach().double() @ w.t()
    dense_dx = 2 * dense_y @ w
    pairs = ((y.double(), dense_y), (dx.double(), dense_dx))
    return all(torch.allclose(got, wanted, rtol=1e-4, atol=1e-3) for got, wanted in pairs)


def _advice(compiled: dict[str, bool], extras: dict[str, bool]) -> list[str]:
    advice = []
    if not all(compiled.values()):
        advice.append(
            "compiled kernels are missing, so sparse layers compute through dense ones, several times "
            "slower: install a C compiler (gcc or clang) and run "
            "`pip install --force-reinstall --no-deps regraft`"
        )
    elif kernels.isa() == "baseline":
        advice.append(
            "the kernels run on baseline instructions: right for this processor, unless REGRAFT_ISA is set"
        )
    missing = [name for name, there in extras.items() if not there]
    if missing:
        advice.append(f"for more, run `pip install 'regraft[{','.join(missing)}]'`")
    return advice
