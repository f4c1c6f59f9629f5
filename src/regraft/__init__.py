"""Sparse neural networks that evolve while they train and merge into one.

>>> import torch, regraft
>>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
>>> model = regraft.sparsify(model, density=0.2, generator=torch.Generator().manual_seed(0))
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
>>> evolver = regraft.Evolve(rate=regraft.ExponentialDecay(0.3, 0.01), every=100).attach(model, optimizer)
>>> merged = regraft.merge([model, model], weights="magnitude", biases="average", density="keep")
>>> regraft.Topology.of(merged) == regraft.Topology.of(model)
True
"""

from typing import TYPE_CHECKING

from regraft.version import __version__

if TYPE_CHECKING:
    from regraft.allocate import ErdosRenyi, erdos_renyi, erdos_renyi_kernel, uniform
    from regraft.checkpoint import load, save
    from regraft.errors import RegraftError
    from regraft.evolve import Evolve, RandomGrowth, RowNormalise, set_topology
    from regraft.kernels import get_threads, set_threads
    from regraft.layers import (
        SparseConv1d,
        SparseConv2d,
        SparseConv3d,
        SparseLinear,
        densify,
        sparsify,
    )
    from regraft.merging import ActivationMatching, Merger, WeightMatching, merge, merge_files
    from regraft.merging.resparsify import resparsify  # a module has the function's name
    from regraft.schedules import (
        Constant,
        Cosine,
        Exponential,
        ExponentialDecay,
        LinearDecreasing,
        Oscillating,
    )
    from regraft.topology import Topology
    from regraft.weight import SparseWeight
else:
    from regraft.lazily import attributes

    # each name is imported when it is first asked for: `regraft --help` and a TAB in a shell need no torch
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "regraft.allocate": ("ErdosRenyi", "erdos_renyi", "erdos_renyi_kernel", "uniform"),
            "regraft.checkpoint": ("load", "save"),
            "regraft.errors": ("RegraftError",),
            "regraft.evolve": ("Evolve", "RandomGrowth", "RowNormalise", "set_topology"),
            "regraft.kernels": ("get_threads", "set_threads"),
            "regraft.layers": (
                "SparseConv1d",
                "SparseConv2d",
                "SparseConv3d",
                "SparseLinear",
                "densify",
                "sparsify",
            ),
            "regraft.merging": (
                "ActivationMatching",
                "Merger",
                "WeightMatching",
                "merge",
                "merge_files",
                "resparsify",
            ),
            "regraft.schedules": (
                "Constant",
                "Cosine",
                "Exponential",
                "ExponentialDecay",
                "LinearDecreasing",
                "Oscillating",
            ),
            "regraft.topology": ("Topology",),
            "regraft.weight": ("SparseWeight",),
        },
    )

__all__ = [
    "ActivationMatching",
    "Constant",
    "Cosine",
    "ErdosRenyi",
    "Evolve",
    "Exponential",
    "ExponentialDecay",
    "LinearDecreasing",
    "Merger",
    "Oscillating",
    "RandomGrowth",
    "RegraftError",
    "RowNormalise",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseLinear",
    "SparseWeight",
    "Topology",
    "WeightMatching",
    "__version__",
    "densify",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "get_threads",
    "load",
    "merge",
    "merge_files",
    "resparsify",
    "save",
    "set_threads",
    "set_topology",
    "sparsify",
    "uniform",
]
