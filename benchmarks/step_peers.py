"""The networks that `step.py` trains, and the ways to take one training step that it compares.

Every way trains the same connections. Two of them are other projects', measured where they are installed:

    pip install pybind11 setuptools && pip install --no-deps --no-build-isolation sparseprop==0.1.14
    pip install --no-deps rigl-torch==0.5.2

sparseprop compiles itself; loading it makes the process round tiny numbers to zero. rigl-torch imports
torchvision for the names of two classes; where that does not load, empty classes stand in for them.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

Step = Callable[[], object]

WAYS = (
    "dense", "masked dense", "rigl-torch", "torch CSR", "SciPy as in SET", "sparseprop", "regraft ordinary",
    "regraft fused",
)  # fmt: skip
MODULES = {
    "rigl-torch": "rigl_torch.RigL",
    "sparseprop": "sparseprop.modules",
}  # what others must have installed
RATE, MOMENTUM = 0.01, 0.9


class Network(NamedTuple):
    """A ReLU MLP: sizes, hidden layers' connections by epsilon or by density, and the batch. The output
    layer is dense."""

    sizes: tuple[int, ...]
    epsilon: float | None = None
    density: float | None = None
    batch: int = 100

    def connections(self) -> list[int]:
        """Active weights of each layer."""
        pairs = list(itertools.pairwise(self.sizes))
        if self.epsilon is not None:
            return [min(a * b, round(self.epsilon * (a + b))) for a, b in pairs]
        assert self.density is not None
        return [round(self.density * a * b) for a, b in pairs[:-1]] + [pairs[-1][0] * pairs[-1][1]]


NETWORKS = {
    "A": Network((784, 1000, 1000, 1000, 10), epsilon=20),
    "B": Network((784, 4000, 1000, 4000, 10), epsilon=20),
    "C": Network((784, 4000, 4000, 4000, 4000, 10), epsilon=20),
    "S": Network((784, 1000, 1000, 10), density=0.04, batch=128),
    "L": Network((784, 4000, 4000, 10), density=0.01, batch=128),
}
TINY = Network((8, 8, 8, 4), density=1.0, batch=16)


def why_not(way: str) -> str | None:
    """Why this way cannot be measured here; None if it can."""
    if way == "rigl-torch":
        _stand_in_for_torchvision()
    try:
        importlib.import_module(MODULES.get(way, "torch"))
    except Exception as error:  # a package built for another torch fails in many ways
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None


def _stand_in_for_torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        blocks = {name: type(name, (), {}) for name in ("Bottleneck", "BasicBlock")}
        resnet = SimpleNamespace(**blocks)
        sys.modules["torchvision"] = cast(Any, SimpleNamespace(models=SimpleNamespace(resnet=resnet)))


def batch_of(net: Network) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(net.batch, net.sizes[0], generator=g)
    return x, torch.randint(0, net.sizes[-1], (net.batch,), generator=g)


def dense_model(sizes: Sequence[int]) -> nn.Sequential:
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        modules += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def sparse_model(net: Network) -> nn.Sequential:
    from regraft import sparsify

    counts = net.connections()
    model = dense_model(net.sizes)
    # the density is the allocation's to say
    return sparsify(
        model, 1.0, allocate=lambda *_: counts, init="rescale", generator=torch.Generator().manual_seed(0)
    )


def zeroed_model(net: Network) -> nn.Sequential:
    """The sparse model with dense weights, zeros where no connection is."""
    from regraft import densify

    return densify(sparse_model(net))


class Masked(nn.Linear):
    """A dense layer whose weight is multiplied by a mask."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class CsrProduct(torch.autograd.Function):
    """W x for x [in, batch], with torch's own sparse kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, layer: Csr) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.layer = layer
        return torch.sparse_csr_tensor(layer.rowptr, layer.col, values, layer.shape) @ x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, values = ctx.saved_tensors
        layer, dy = ctx.layer, grads[0]
        pattern = torch.sparse_csr_tensor(layer.rowptr, layer.col, layer.zeros, layer.shape)
        dvalues = torch.sparse.sampled_addmm(pattern, dy, x.t(), beta=0.0).values()
        if not ctx.needs_input_grad[0]:
            return None, dvalues, None
        transposed = torch.sparse_csr_tensor(layer.colptr, layer.row, values[layer.perm], layer.shape[::-1])
        return transposed @ dy, dvalues, None


class Csr(nn.Module):
    """A layer over activations [features, batch] in torch's compressed rows."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        w = scipy.sparse.csr_matrix(layer.weight.dense().detach().numpy())
        t = scipy.sparse.csr_matrix((np.arange(w.nnz), w.indices, w.indptr), w.shape).T.tocsr()
        self.shape = w.shape
        self.values, self.bias = nn.Parameter(torch.from_numpy(w.data)), nn.Parameter(layer.bias.detach())
        parts = (w.indptr, w.indices, t.indptr, t.indices, t.data)
        self.rowptr, self.col, self.colptr, self.row, self.perm = (
            torch.from_numpy(p.astype(np.int64)) for p in parts
        )
        self.zeros = torch.zeros(w.nnz)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = CsrProduct.apply(x, self.values, self)  # type: ignore[no-untyped-call]
        return y + self.bias[:, None]


class Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.t()


def torch_step(model: nn.Module, x: Tensor, target: Tensor) -> Step:
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), target).backward()
        optimizer.step()

    return step


def scipy_step(model: nn.Sequential, x: Tensor, target: Tensor) -> Step:
    """As SET's authors structure it: weights [in, out] in compressed rows, activations [batch, features], the
    gradient entry by entry from the coordinates, an update for each layer."""
    layers: list[Any] = [m for m in model if hasattr(m, "weight")]
    weights = [scipy.sparse.csr_matrix(m.weight.dense().detach().numpy().T) for m in layers]
    biases = [m.bias.detach().numpy().copy() for m in layers]
    moments = [(np.zeros_like(w.data), np.zeros_like(b)) for w, b in zip(weights, biases, strict=True)]
    inputs, classes = x.numpy(), target.numpy()
    onehot = np.eye(biases[-1].size, dtype=np.float32)[classes]

    def step() -> None:
        activations = [inputs]
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z = activations[-1] @ w + b
            activations.append(np.maximum(z, 0) if i < len(weights) - 1 else z)
        e = np.exp(activations[-1] - activations[-1].max(1, keepdims=True))
        delta = (e / e.sum(1, keepdims=True) - onehot) / len(classes)
        for i in reversed(range(len(weights))):
            w, (mw, mb) = weights[i], moments[i]
            c = w.tocoo()
            a_t, d_t = np.ascontiguousarray(activations[i].T), np.ascontiguousarray(delta.T)
            gradient = np.einsum("ij,ij->i", a_t[c.row], d_t[c.col])
            bias_gradient = delta.sum(0)
            if i:
                delta = (delta @ w.T) * (activations[i] > 0)
            mw *= MOMENTUM
            mw += gradient
            mb *= MOMENTUM
            mb += bias_gradient
            w.data -= RATE * mw
            biases[i] -= RATE * mb

    return step


def masked_step(net: Network, x: Tensor, target: Tensor) -> Step:
    model = zeroed_model(net)
    for module in model:
        if isinstance(module, nn.Linear):
            module.__class__ = Masked
            module.register_buffer("mask", (module.weight != 0).float())
    return torch_step(model, x, target)


def rigl_step(net: Network, x: Tensor, target: Tensor) -> Step:
    """Its masks with a fixed topology: their cost in every step, without the cost of an update. It keeps the
    first layer dense, as its authors do."""
    _stand_in_for_torchvision()
    scheduler_type = importlib.import_module(MODULES["rigl-torch"]).RigLScheduler
    model, loss = dense_model(net.sizes), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    density = sum(net.connections()) / sum(a * b for a, b in itertools.pairwise(net.sizes))
    scheduler = scheduler_type(
        model, optimizer, dense_allocation=density, T_end=10**9, delta=10**6, ignore_linear_layers=False,
        static_topo=True,
    )  # fmt: skip

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), target).backward()
        if scheduler():
            optimizer.step()

    return step


def sparseprop_step(net: Network, x: Tensor, target: Tensor) -> Step:
    """Its sparse layers wherever at most a fifth of the weights is left, which is its authors' condition."""
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # it has an OpenMP of its own
    layer_type = importlib.import_module(MODULES["sparseprop"]).SparseLinear
    modules: list[nn.Module] = []
    for module in zeroed_model(net):
        sparse = (
            isinstance(module, nn.Linear) and module.weight.count_nonzero() <= 0.2 * module.weight.numel()
        )
        modules.append(layer_type.from_dense(module) if sparse else module)
    return torch_step(nn.Sequential(*modules), x, target)


def make_step(way: str, net: Network) -> Step:
    """A function that takes one training step on one batch."""
    x, target = batch_of(net)
    if way == "dense":
        return torch_step(dense_model(net.sizes), x, target)
    others = {"masked dense": masked_step, "rigl-torch": rigl_step, "sparseprop": sparseprop_step}
    if way in others:
        return others[way](net, x, target)
    sparse = sparse_model(net)
    if way == "torch CSR":
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        layers = [Csr(m) if hasattr(m, "weight") else m for m in sparse]
        return torch_step(nn.Sequential(Transpose(), *layers, Transpose()), x, target)
    if way == "SciPy as in SET":
        return scipy_step(sparse, x, target)
    from regraft.kernels import layout
    from regraft.kernels.fused import FusedMLP

    if way == "regraft ordinary":
        layout.chain(sparse)
        return torch_step(sparse, x, target)
    optimizer = torch.optim.SGD(sparse.parameters(), lr=RATE, momentum=MOMENTUM)
    fused = FusedMLP(sparse, nn.CrossEntropyLoss(), optimizer)
    return lambda: fused.step(x, target)
