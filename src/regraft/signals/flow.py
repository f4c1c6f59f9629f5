"""Signals that see what the connections let through: synaptic flow, and the flow of variance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.signals import substitute
from regraft.signals.protocol import Vectors, active_of, values_of, weights_of


@dataclass(frozen=True)
class Flow:
    """How much of what enters the network flows through one more unit of each connection.

    The network is made linear and positive: weights are ``|w|^power``, biases and the running means of batch
    normalisation 0, activations let everything pass, and normalisation layers only scale, by ``|gamma|`` and,
    where they have one, the running variance (in evaluation mode, whatever the model's mode). With R the sum
    of its outputs, the signal is (1 / power) dR/d|w|, in float64. Times ``|w|`` it is the share of R that
    runs through the connection: the shares of a layer that everything passes sum to R, and what enters a
    hidden unit leaves it (Tanaka et al. 2020, arXiv:2006.05467, theorems 1 and 2).

    ReLU lets positive numbers pass anyway; for tanh, sigmoid and others this takes their slope to be 1. A
    network that multiplies activations with each other (gates, attention of its own making) has a flow, but
    its shares do not sum to R.

    Attention by ``F.scaled_dot_product_attention`` passes the cube root of q k v, averaged over the positions
    that it may see: something flows only where query, key and value all have it, each has a third of what
    flows, and the shares of the three layers together are those of one. An embedding gives the mean over its
    rows, whatever it is asked for. Of both, the literature says nothing.

    Attributes:
        power: 1 for synaptic flow; 2 for variances, which a sum of independent terms adds with squared
            weights.
        variance: what enters: False for ones (no data is seen; only the input's shape is needed), True for
            the variance of each input feature over the probe's batches.

    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, -3.0])), None)
    >>> Flow()(model, Probe(input_shape=(2,)))["weight"].tolist()
    [1.0, 1.0]

    Raises:
        InputError: a power below 1; when called: no input shape and no batches, a model without sparse
            weights.
        MismatchError: when called: an input that does not fit the model; values or active that do not fit.
    """

    power: int = 1
    variance: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.power, bool) or not isinstance(self.power, int) or self.power < 1:
            raise InputError(f"power is {self.power!r}, but must be 1 (synaptic flow), 2 (variance) or more")

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The signal of each connection, float64, not negative."""
        weights = weights_of(model)
        entering = self._input(probe or Probe()).to(next(iter(weights.values())).values.device)
        sizes = {n: v.abs().double() for n, v in values_of(weights, values).items()}
        masks = active_of(weights, active)
        leaves = {}
        for name, size in sizes.items():
            leaf = size if self.power == 1 else size**self.power
            leaves[name] = (leaf.clone() if masks is None else leaf * masks[name]).requires_grad_()
        tensors = {**self._linear(model), **{f"{n}.values": leaf for n, leaf in leaves.items()}}
        with torch.enable_grad(), substitute.evaluation(model), _Linearised(self.power):
            total = substitute.run(model, tensors, entering).sum()
        if not total.requires_grad:
            raise InputError(
                f"the output of the {type(model).__name__} does not depend on its sparse weights"
            )
        slopes = torch.autograd.grad(total, tuple(leaves.values()), materialize_grads=True)
        if self.power == 1:
            return dict(zip(leaves, slopes, strict=True))
        return {n: s * sizes[n] ** (self.power - 1) for n, s in zip(leaves, slopes, strict=True)}

    def _input(self, probe: Probe) -> Tensor:
        if not self.variance:
            return torch.ones((1, *probe.require_input_shape("the flow")), dtype=torch.float64)
        batches = probe.require_batches("the variance flow")
        try:
            x = torch.cat([x.detach().double() for x, _ in batches])
        except RuntimeError as error:
            shapes = sorted({tuple(x.shape[1:]) for x, _ in batches})
            raise MismatchError(f"the probe's batches hold samples of different shapes: {shapes}") from error
        if len(x) == 0:
            raise InputError("the variance flow got batches without samples: pass two samples or more")
        return x.var(0, correction=0, keepdim=True)

    def _linear(self, model: nn.Module) -> dict[str, Tensor]:
        """The tensors of no sparse weight as the linear network has them, float64."""
        parameters, buffers = substitute.others(model)
        tensors = {}
        for name, tensor in parameters.items():
            wide = tensor.double() if tensor.is_floating_point() else tensor
            tensors[name] = torch.zeros_like(wide) if name.endswith("bias") else wide.abs() ** self.power
        for name, tensor in buffers.items():
            tensors[name] = tensor.double() if tensor.is_floating_point() else tensor.clone()
        return tensors


flow = Flow()
"""Synaptic flow: dR/d|w| of ones sent through ``|w|`` (Tanaka et al. 2020, arXiv:2006.05467, eq. 1)."""

variance_flow = Flow(power=2, variance=True)
"""The flow of the inputs' variance through w^2: what the outputs would vary by if the signs of the weights
were random. No labels are seen."""


class _Linearised(TorchFunctionMode):
    """Torch's activations pass what enters them, its normalisations only scale, wherever they are called."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PASS:
            return args[0] if args else kwargs["input"]
        if func in _SCALE:
            return _SCALE[func](self.power, *args, **kwargs)
        return func(*args, **kwargs)


_NAMES = (
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "rrelu", "rrelu_", "prelu", "elu", "elu_", "selu",
    "selu_", "celu", "celu_", "gelu", "silu", "mish", "softplus", "softsign", "tanhshrink", "hardtanh",
    "hardtanh_", "hardswish", "hardsigmoid", "logsigmoid", "sigmoid", "sigmoid_", "tanh", "tanh_", "softmax",
    "log_softmax", "softmin", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout",
)  # fmt: skip
_PASS = {getattr(home, n) for home in (torch, F, Tensor) for n in _NAMES if hasattr(home, n)}


def _batch_norm(
    power: int,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    scaled = input if running_var is None else input / _channels((running_var + eps) ** (power / 2), input)
    return scaled if weight is None else scaled * _channels(weight, input)


def _instance_norm(
    power: int,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    return input if weight is None else input * _channels(weight, input)


def _group_norm(
    power: int,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return input if weight is None else input * _channels(weight, input)


def _layer_norm(
    power: int,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = 1e-5,
) -> Tensor:
    return input if weight is None else input * weight


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    """A vector [C] that multiplies the channels of [N, C, ...]."""
    return vector.view(1, -1, *(1,) * (like.ndim - 2))


def _attention(
    power: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(times, -3) for t in (key, value))
    seen = torch.ones(query.shape[-2], key.shape[-2], dtype=query.dtype, device=query.device)
    if is_causal:
        seen = seen.tril()
    if attn_mask is not None:
        seen = seen * (attn_mask if attn_mask.dtype == torch.bool else attn_mask > -torch.inf).to(seen)
    shares = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    met = (query @ key.transpose(-2, -1)) / query.shape[-1] * shares @ value
    flows = met > 0  # the cube root is steep at 0, where nothing flows
    return torch.where(flows, met, 1.0).pow(1 / 3) * flows


def _embedding(power: int, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return weight.mean(0).expand(*input.shape, -1)


_SCALE: dict[Any, Callable[..., Tensor]] = {
    F.scaled_dot_product_attention: _attention,
    F.embedding: _embedding,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
}
if hasattr(F, "rms_norm"):
    _SCALE[F.rms_norm] = _layer_norm
