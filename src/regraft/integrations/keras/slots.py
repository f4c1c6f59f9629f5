"""The slots of a Keras optimizer (momentum, Adam's moments, ...) follow a change of topology."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from regraft.errors import InputError
from regraft.evolve.optimizer_state import FRESH

# lists of an optimizer's variables that are not one for each trained variable
OTHER_LISTS = ("_variables", "_trainable_variables")


def inner_optimizers(optimizer: Any) -> Iterator[Any]:
    """The optimizer and those that it wraps (loss scaling, several optimizers in one)."""
    yield optimizer
    inside = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "_inner_optimizers", ())]
    for inner in inside:
        if inner is not None:
            yield from inner_optimizers(inner)


def slots_of(optimizer: Any, variable: Any) -> dict[str, Any]:
    """The optimizer's variables that hold one number for each of ``variable``'s, by how they start.

    An optimizer keeps them in lists that line up with the variables that it trains. The name of a slot says
    what a new entry begins with: ``"average/0"`` with the variable's own value, ``"accumulator/0"`` with the
    optimizer's ``initial_accumulator_value``, any other with zero.

    Raises:
        InputError: an optimizer that keeps such numbers elsewhere.
    """
    found: dict[str, Any] = {}
    claimed: set[int] = set()
    for part in inner_optimizers(optimizer):
        trained = getattr(part, "_trainable_variables", ())
        place = next((i for i, v in enumerate(trained) if v is variable), None)
        for name, slots in vars(part).items():
            if not isinstance(slots, list) or len(slots) != len(trained) or name in OTHER_LISTS:
                continue
            claimed |= {id(slot) for slot in slots}
            slot: Any = None if place is None else slots[place]
            if hasattr(slot, "assign") and tuple(slot.shape) == tuple(variable.shape):
                found[f"{_start(part, name)}/{len(found)}"] = slot
    for other in optimizer.variables:
        if id(other) not in claimed and tuple(other.shape) == tuple(variable.shape):
            raise InputError(
                f"the optimizer {type(optimizer).__name__} keeps '{other.name}' in no list that lines up "
                "with the variables that it trains, so it cannot follow when connections move: keep a list "
                "of such variables, as keras.optimizers.Optimizer shows, or take an optimizer of Keras's own"
            )
    return found


def _start(optimizer: Any, name: str) -> str:
    if name == "_accumulators" and hasattr(optimizer, "initial_accumulator_value"):
        return "accumulator"
    z_of_schedule_free = name == "_momentums" and type(optimizer).__name__ == "ScheduleFreeAdamW"
    return "average" if name == "_model_variables_moving_average" or z_of_schedule_free else "zero"


class _Slots(dict[str, Any]):
    """Slots by name as the state that ``remap_state`` moves: what is set is written into the variable."""

    def __init__(self, variables: dict[str, Any]) -> None:
        super().__init__({name: variable.value for name, variable in variables.items()})
        self._variables = variables

    def __setitem__(self, name: str, value: Any) -> None:
        self._variables[name].assign(value)


class KerasState(torch.optim.Optimizer):
    """A Keras optimizer as ``regraft.Evolve`` sees one: it holds parameters and has a state for each.

    It takes no steps; ``Evolve`` moves what is in its state when connections move.

    Args:
        optimizer: of Keras.
        variables: the values of the sparse layers.
    """

    def __init__(self, optimizer: Any, variables: Iterable[Any]) -> None:
        known = {v.value: slots_of(optimizer, v) for v in variables}
        super().__init__(list(known), {"initial": _initial_accumulator(optimizer)})
        self.state.update({p: _Slots(slots) for p, slots in known.items()})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing: Keras takes the steps."""


def _initial_accumulator(optimizer: Any) -> float:
    for part in inner_optimizers(optimizer):
        if hasattr(part, "initial_accumulator_value"):
            return float(part.initial_accumulator_value)
    return 0.0


# names as in slots_of, up to as many slots as any optimizer has
FRESH[KerasState] = {
    **{f"accumulator/{i}": lambda group, values: float(group["initial"]) for i in range(8)},
    **{f"average/{i}": lambda group, values: values for i in range(8)},
}
