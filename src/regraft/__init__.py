"""Sparse neural networks that evolve and merge."""

from regraft.allocate import ErdosRenyi, erdos_renyi, erdos_renyi_kernel, uniform
from regraft.errors import RegraftError
from regraft.layers import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseLinear,
    densify,
    sparsify,
)
from regraft.topology import Topology
from regraft.weight import SparseWeight

__version__ = "0.1.0"

__all__ = [
    "ErdosRenyi",
    "RegraftError",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseLinear",
    "SparseWeight",
    "Topology",
    "densify",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "sparsify",
    "uniform",
]
