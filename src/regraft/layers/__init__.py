"""Sparse layers, and the surgery that puts them into a model."""

from regraft.layers.modules import (
    SPARSE_TYPE,
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseLayer,
    SparseLinear,
    sparse_layers,
)
from regraft.layers.surgery import densify, sparsifiable, sparsify

__all__ = [
    "SPARSE_TYPE",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseLayer",
    "SparseLinear",
    "densify",
    "sparse_layers",
    "sparsifiable",
    "sparsify",
]
