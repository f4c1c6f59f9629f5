"""The ways to take one training step that `step.py` compares."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

Step = Callable[[], object]

WAYS = ("dense", "masked dense", "torch CSR", "SciPy, as in SET", "regraft ordinary", "regraft fused")
RATE, MOMENTUM = 0.01, 0.9


def batch_of(inputs: int, outputs: int, batch: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch, inputs, generator=g), torch.randint(0, outputs, (batch,), generator=g)


def dense_model(sizes: Sequence[int]) -> nn.Sequential:
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        modules += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def sparse_model(sizes: Sequence[int], epsilon: float) -> nn.Sequential:
    from regraft import sparsify

    return sparsify(dense_model(sizes), epsilon=epsilon, generator=torch.Generator().manual_seed(0))


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


def make_step(way: str, sizes: Sequence[int], epsilon: float, batch: int) -> Step:
    """A function that takes one training step on one batch."""
    x, target = batch_of(sizes[0], sizes[-1], batch)
    if way == "dense":
        return torch_step(dense_model(sizes), x, target)
    if way == "masked dense":
        model = dense_model(sizes)
        for module in model:
            if isinstance(module, nn.Linear):
                kept = epsilon * (module.in_features + module.out_features) / module.weight.numel()
                module.__class__ = Masked
                module.register_buffer("mask", (torch.rand_like(module.weight) < kept).float())
        return torch_step(model, x, target)
    sparse = sparse_model(sizes, epsilon)
    if way == "torch CSR":
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        layers = [Csr(m) if hasattr(m, "weight") else m for m in sparse]
        return torch_step(nn.Sequential(Transpose(), *layers, Transpose()), x, target)
    if way == "SciPy, as in SET":
        return scipy_step(sparse, x, target)
    from regraft.kernels import layout
    from regraft.kernels.fused import FusedMLP

    if way == "regraft ordinary":
        layout.chain(sparse)
        return torch_step(sparse, x, target)
    optimizer = torch.optim.SGD(sparse.parameters(), lr=RATE, momentum=MOMENTUM)
    fused = FusedMLP(sparse, nn.CrossEntropyLoss(), optimizer)
    return lambda: fused.step(x, target)
