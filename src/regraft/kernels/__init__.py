"""How a sparse layer computes; what it computes is the same whichever way is taken."""

from regraft.kernels import layout
from regraft.kernels.convolution import conv
from regraft.kernels.dispatch import backend, current, linear, use
from regraft.kernels.native import get_threads, isa, set_threads

__all__ = ["backend", "conv", "current", "get_threads", "isa", "layout", "linear", "set_threads", "use"]
