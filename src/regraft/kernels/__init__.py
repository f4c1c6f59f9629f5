"""How a sparse layer computes; what it computes is the same whichever way is taken."""

from regraft.kernels.materialised import conv, linear

__all__ = ["conv", "linear"]
