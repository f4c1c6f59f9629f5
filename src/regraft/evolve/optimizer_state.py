"""An optimizer's state follows its parameter when the topology changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import ASGD, LBFGS, Adagrad, Optimizer, Rprop

from regraft.errors import InputError
from regraft.kernels.rewiring import complement, move
from regraft.weight import Rewiring, SparseWeight

Optimizers = Optimizer | Iterable[Optimizer] | None
Fresh = Callable[[Mapping[str, Any], Tensor], Tensor | float]

# state that does not start at zero: {optimizer: {name of the state: (group, values of the new entries) ->
# start}}
FRESH: dict[type[Optimizer], dict[str, Fresh]] = {
    Adagrad: {"sum": lambda group, values: float(group["initial_accumulator_value"])},
    Rprop: {"step_size": lambda group, values: float(group["lr"])},
    ASGD: {"ax": lambda group, values: values},
}


def optimizers(given: Optimizers) -> tuple[Optimizer, ...]:
    """None, one optimizer or several, as a tuple."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Iterable) else (given,)


def holds(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
    """Whether ``optimizer`` updates ``parameter``."""
    return any(p is parameter for group in optimizer.param_groups for p in group["params"])


def check_held(given: Sequence[Optimizer], weights: Mapping[str, SparseWeight]) -> None:
    """Raise InputError where optimizers are given and none of them holds any of the weights, or where weights
    are split over processes."""
    for name, weight in weights.items():
        if hasattr(weight.values, "device_mesh"):  # a DTensor
            raise InputError(
                f"'{name}' is split over processes (FSDP, tensor parallel), and its topology cannot change: "
                "use DistributedDataParallel"
            )
    if given and not any(holds(o, w.values) for o in given for w in weights.values()):
        raise InputError(
            f"the {type(given[0]).__name__} optimizer holds none of the sparse weights "
            f"({', '.join(repr(n) for n in weights)}): build it after regraft.sparsify"
        )


@torch.no_grad()
def remap_state(optimizer: Optimizer, parameter: nn.Parameter, rewiring: Rewiring, old_nnz: int) -> None:
    """Move an optimizer's state of a SparseWeight's values along with a change of topology.

    Call it after the weight was changed. Each tensor of the parameter's old shape ``[old_nnz]`` (momentum,
    Adam's moments, Rprop's previous gradient, ...) keeps the survivors' entries bit for bit; new entries get
    what the optimizer would start them with: zero, but Adagrad's ``sum`` its ``initial_accumulator_value``,
    Rprop's ``step_size`` the learning rate, ASGD's average ``ax`` the value itself (``FRESH``; add a line for
    an optimizer of your own). Scalars, such as step counts, stay. LBFGS keeps histories over all parameters
    flattened together, which mean nothing afterwards: its state is cleared.

    A parameter that the optimizer does not hold, or has no state for, is left alone.

    >>> from regraft import SparseWeight
    >>> w = SparseWeight((1, 4), torch.tensor([0, 1]), torch.ones(2))
    >>> optimizer = torch.optim.SGD(w.parameters(), lr=0.1, momentum=0.9)
    >>> w.values.sum().backward(); optimizer.step()
    >>> rewiring = w.rewire(torch.tensor([1, 3]), torch.zeros(1))
    >>> remap_state(optimizer, w.values, rewiring, old_nnz=2)
    >>> optimizer.state[w.values]["momentum_buffer"].tolist()
    [1.0, 0.0]
    """
    if isinstance(optimizer, LBFGS):
        if holds(optimizer, parameter):
            optimizer.state.clear()
            # it remembers how many numbers there are in all
            optimizer._numel_cache = None
        return
    if parameter not in optimizer.state:
        return
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    starts = {key: f for kind, fs in FRESH.items() if isinstance(optimizer, kind) for key, f in fs.items()}
    grown = parameter.detach()[complement(rewiring.kept_new, parameter.numel())] if starts else parameter

    def remapped(key: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.shape != (old_nnz,) or key == "step":
                return value
            fresh = starts[key](group, grown) if key in starts else 0.0
            return move(value, rewiring.kept_old, rewiring.kept_new, parameter.numel(), fresh=fresh)
        if type(value) in (list, tuple):
            return type(value)(remapped(key, v) for v in value)
        if type(value) is dict:
            return {k: remapped(str(k), v) for k, v in value.items()}
        return value

    state = optimizer.state[parameter]
    for key, value in state.items():
        state[key] = remapped(key, value)
