"""What multiplies a weight in a saliency: (model, probe) -> {weight name: vector}.

A signal says what one more unit of a connection would bring: to the loss, to the gradient's norm, or to what
flows from input to output. The scores of pruning at initialisation are a weight times one of them, and a rule
that grows connections reads them directly.
"""

from regraft.signals.flow import Flow, flow, variance_flow
from regraft.signals.gradients import HessianGradient, gradient, hessian_gradient
from regraft.signals.protocol import Signal, Vectors, weights_of

__all__ = [
    "Flow", "HessianGradient", "Signal", "Vectors", "flow", "gradient", "hessian_gradient", "variance_flow",
    "weights_of",
]  # fmt: skip
