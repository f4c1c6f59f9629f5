"""``Loader``: batches of a split by index, in an order that can be resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from regraft.data.split import Split
from regraft.errors import InputError, MismatchError


class Loader:
    """Batches (x [b, ...], y [b]) of a split; one pass is an epoch.

    The split stays one tensor; a batch is one ``index_select``. Each epoch draws one permutation from
    ``generator``, on the generator's own device, so the order is the same wherever the split lies.

    ``state_dict()`` can be taken at any moment, also inside a loop over the loader: the batch in hand counts
    as done. After ``load_state_dict`` the next loop yields exactly the batches that were left, and later
    epochs are the same as without the interruption.

    Args:
        split: what to load.
        batch_size: samples per batch, 1 or more.
        shuffle: a new order each epoch; else the split's own order.
        generator: where the order comes from; None makes one with seed 0, so two such loaders agree.
        drop_last: leave out a last batch that is not full.
        device: move batches there; None leaves them where the split is. From the CPU to CUDA, batches go
            through pinned memory without waiting.

    >>> split = Split(torch.arange(5.).reshape(5, 1), torch.tensor([0, 1, 0, 1, 0]))
    >>> loader = Loader(split, 2, generator=torch.Generator().manual_seed(0))
    >>> len(loader), [len(y) for _, y in loader]
    (3, [2, 2, 1])
    >>> batches = iter(loader)
    >>> first, state = next(batches), loader.state_dict()
    >>> rest = [y.tolist() for _, y in batches]
    >>> loader.load_state_dict(state)
    >>> [y.tolist() for _, y in loader] == rest
    True

    Raises:
        InputError: ``batch_size`` below 1, or ``drop_last`` would leave no batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: bool = True,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}, but must be a whole number of 1 or more")
        if drop_last and batch_size > len(split):
            raise InputError(
                f"batch_size {batch_size} with drop_last leaves no batch of {len(split)} samples: "
                "use a smaller batch_size"
            )
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.device = None if device is None else torch.device(device)
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self._epoch: _Epoch | None = None
        self._resume = False
        self._begun = 0

    def __len__(self) -> int:
        full, left = divmod(len(self.split), self.batch_size)
        return full + (1 if left and not self.drop_last else 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._resume and self._epoch is not None:
            self._resume = False
        else:
            self._begun += 1
            order = self.generator.get_state()
            self._epoch = _Epoch(self._draw(self.generator), order)
        return self._batches(self._epoch)

    @property
    def epoch(self) -> int:
        """Number of the epoch under way, or of the last one; 0 before the first."""
        return self._begun

    def _draw(self, generator: torch.Generator) -> Tensor | None:
        if not self.shuffle:
            return None
        order = torch.randperm(len(self.split), generator=generator, device=generator.device)
        return order.to(self.split.device)

    def _batches(self, epoch: _Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        while epoch.position < len(self):
            start = epoch.position * self.batch_size
            # the batch in hand counts as done: a state taken in the loop's body goes on after it
            epoch.position += 1
            yield self._batch(epoch.permutation, start, min(start + self.batch_size, len(self.split)))
        if self._epoch is epoch:
            self._epoch = None

    def _batch(self, permutation: Tensor | None, start: int, stop: int) -> tuple[Tensor, Tensor]:
        x, y = self.split.x, self.split.y
        if permutation is None:
            # a copy, as with shuffling: changing a batch in place never changes the data
            batch = x[start:stop].clone(), y[start:stop].clone()
        else:
            index = permutation[start:stop]
            batch = x.index_select(0, index), y.index_select(0, index)
        if self.device is None or self.device == self.split.device:
            return batch
        if self.device.type == "cuda" and self.split.device.type == "cpu":
            return tuple(t.pin_memory().to(self.device, non_blocking=True) for t in batch)  # type: ignore[return-value]
        return batch[0].to(self.device), batch[1].to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here: plain numbers and two uint8 tensors on the CPU.

        Keys: ``samples``, ``batch_size``, ``shuffle``, ``drop_last`` (checked when loaded), ``epoch``,
        ``position`` (batches done in the epoch under way, or None between epochs), ``order`` (the generator
        before this epoch's permutation) and ``generator`` (the generator now).
        """
        now = self.generator.get_state()
        running = self._epoch
        return {
            "samples": len(self.split), "batch_size": self.batch_size, "shuffle": self.shuffle,
            "drop_last": self.drop_last, "epoch": self._begun,
            "position": None if running is None else running.position,
            "order": (now if running is None else running.order).clone(), "generator": now.clone(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the generator passed at the start is set as it was then.

        Raises:
            MismatchError: the state is of a loader over another number of samples, batch size or order.
            InputError: not a state of a loader.
        """
        wanted = {
            "samples": len(self.split), "batch_size": self.batch_size, "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }  # fmt: skip
        absent = [k for k in (*wanted, "epoch", "position", "order", "generator") if k not in state]
        if absent:
            raise InputError(f"not a state of a loader: it lacks {', '.join(map(repr, absent))}")
        for key, value in wanted.items():
            if state[key] != value:
                raise MismatchError(
                    f"the loader's state was saved with {key}={state[key]!r}, but this loader has {value!r}: "
                    "make the loader as it was"
                )
        position, begun = state["position"], state["epoch"]
        if not isinstance(begun, int) or begun < 0:
            raise InputError(f"the loader's state has epoch {begun!r}: expected a whole number of 0 or more")
        if position is not None and (not isinstance(position, int) or not 0 <= position <= len(self)):
            raise InputError(
                f"the loader's state has position {position!r}: expected 0 to {len(self)} or None"
            )
        replay = torch.Generator(self.generator.device)
        try:
            replay.set_state(state["order"].cpu())
            self.generator.set_state(state["generator"].cpu())
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"the loader's state holds no generator's state ({error})") from error
        self._begun = begun
        self._resume = position is not None
        self._epoch = None if position is None else _Epoch(self._draw(replay), state["order"].cpu(), position)


class _Epoch:
    """One epoch under way: its permutation, the generator's state before it, the batches done."""

    __slots__ = ("order", "permutation", "position")

    def __init__(self, permutation: Tensor | None, order: Tensor, position: int = 0) -> None:
        self.permutation = permutation
        self.order = order
        self.position = position
