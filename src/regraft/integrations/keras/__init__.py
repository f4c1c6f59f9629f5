"""Keras 3 on the torch backend: sparse layers, and the callback that changes their topology (thesis 3).

Needs Keras (extra ``keras``) and the environment variable ``KERAS_BACKEND=torch``, which is set here where
Keras is not imported yet and nothing else was chosen.
"""

from regraft.integrations.keras import required  # noqa: F401  says what to do where Keras cannot be used
from regraft.integrations.keras.conv import SparseConv1D, SparseConv2D, SparseConv3D
from regraft.integrations.keras.dense import SparseDense
from regraft.integrations.keras.evolution import Evolution
from regraft.integrations.keras.networks import from_torch, load, save, to_torch
from regraft.integrations.keras.surgery import densify, sparsify
from regraft.integrations.keras.view import sparse_layers, torch_view

__all__ = [
    "Evolution",
    "SparseConv1D",
    "SparseConv2D",
    "SparseConv3D",
    "SparseDense",
    "densify",
    "from_torch",
    "load",
    "save",
    "sparse_layers",
    "sparsify",
    "to_torch",
    "torch_view",
]
