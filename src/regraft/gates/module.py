"""``Gates``: the hard concrete gates of a whole network as one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.gates.hard_concrete import HardConcrete


class Gates(nn.Module):
    """One gate for each unit of each group; a forward pass gives their values, [units of all groups].

    The gates of all groups lie one after the other in one vector, so that drawing them costs a handful of
    small operations a step, however many groups there are. In training the values are random: one number for
    each gate and call, whatever the batch and the space that it is multiplied with. In evaluation they are
    certain (Louizos et al. 2017, equation 13).

    The random numbers come from a generator of the module's own, whose state is part of ``state_dict``;
    torch's global generator is not touched.

    Attributes:
        sizes: units of each group, by name, in the order of the vector.
        log_alpha: Parameter, [units]: the locations.
        delta: Parameter, [units], where the temperatures train: beta = sigmoid(delta) (thesis 2, 1.2.1).
        averaging: takes means over the groups, [groups, units]; see ``weigh``.

    Args:
        sizes: as the attribute.
        distribution: the constants.
        location: log alpha starts at N(location, spread).
        spread: standard deviation of the start, 0 or more.
        train_beta: whether temperatures train, from the distribution's beta on.
        seed: of the start and of the values in training.

    >>> gates = Gates({"0": 3, "2": 2}, seed=0)
    >>> drawn = gates()
    >>> drawn.shape, bool((drawn >= 0).all() and (drawn <= 1).all())
    (torch.Size([5]), True)
    >>> gates.eval()().shape, gates.split(gates())["2"].shape
    (torch.Size([5]), torch.Size([2]))

    Raises:
        InputError: no group, a group without units, a negative spread or seed.
    """

    log_alpha: nn.Parameter
    delta: nn.Parameter | None
    group_of: Tensor
    averaging: Tensor

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        distribution: HardConcrete | None = None,
        location: float = 1.0,
        spread: float = 0.01,
        train_beta: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not sizes or min(sizes.values()) < 1:
            raise InputError(f"gates need groups of one unit or more, but the groups are {dict(sizes)}")
        if spread < 0:
            raise InputError(f"spread is {spread!r}, but must be 0 or more; 0.01 is usual")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InputError(f"seed is {seed!r}, but must be an integer of 0 or more")
        self.sizes = dict(sizes)
        self.distribution = HardConcrete() if distribution is None else distribution
        self.generator = torch.Generator().manual_seed(seed)
        units = sum(self.sizes.values())
        start = torch.randn(units, generator=self.generator)
        self.log_alpha = nn.Parameter(location + spread * start)
        beta = min(self.distribution.beta, 1.0 - 1e-6)
        delta = torch.logit(torch.full((units,), beta))
        self.delta = nn.Parameter(delta) if train_beta else None
        counts = torch.tensor(list(self.sizes.values()))
        self.register_buffer(
            "group_of", torch.repeat_interleave(torch.arange(len(counts)), counts), persistent=False
        )
        self.register_buffer("averaging", torch.empty(len(counts), units))
        self.weigh(torch.ones(units))

    def forward(self, uniform: Tensor | None = None) -> Tensor:
        """Values in [0, 1], [units].

        Args:
            uniform: numbers in [0, 1) to use in training instead of the module's own, [units]: for many
                networks that are trained at once by ``torch.func.vmap``, where no generator can draw.
        """
        if not self.training:
            return self.distribution.certain(self.log_alpha)
        return self.distribution.sample(
            self.log_alpha, self.noise() if uniform is None else uniform, self.beta
        )

    def noise(self) -> Tensor:
        """The next numbers of the module's own, uniform in [0, 1), [units]."""
        drawn = torch.rand(self.log_alpha.shape, generator=self.generator)
        return drawn.to(self.log_alpha)

    @property
    def beta(self) -> Tensor | None:
        """The temperatures where they train, else None."""
        return None if self.delta is None else torch.sigmoid(self.delta)

    def open_probability(self) -> Tensor:
        """P[g > 0] of each gate, [units], differentiable."""
        return self.distribution.open_probability(self.log_alpha, self.beta)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """A vector over all gates as one vector a group."""
        parts = torch.split(values, list(self.sizes.values()))
        return dict(zip(self.sizes, parts, strict=True))

    def group_means(self, values: Tensor) -> Tensor:
        """The weighted mean of ``values`` [units] over each group, [groups], differentiable."""
        return self.averaging.to(values) @ values

    @torch.no_grad()
    def weigh(self, weights: Tensor) -> None:
        """Say what each unit counts in the mean of its group; at first all count the same.

        Args:
            weights: 0 or more, [units]; where they are 0 for a whole group, its units count the same.

        >>> gates = Gates({"0": 3})
        >>> gates.weigh(torch.tensor([3.0, 1.0, 0.0]))
        >>> gates.group_means(torch.tensor([1.0, 5.0, 9.0]))
        tensor([2.])
        """
        rows = nn.functional.one_hot(self.group_of, len(self.sizes)).T.to(self.averaging)
        weighted = rows * weights.to(rows)
        total = weighted.sum(1, keepdim=True)
        self.averaging.copy_(torch.where(total > 0, weighted, rows))
        self.averaging.div_(self.averaging.sum(1, keepdim=True))

    @property
    def counted(self) -> Tensor:
        """Whether each unit counts in the mean of its group, bool [units]."""
        return self.averaging.sum(0) > 0

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {units}" for name, units in self.sizes.items())

    def get_extra_state(self) -> Tensor:
        """The generator's state."""
        return self.generator.get_state()

    def set_extra_state(self, state: Any) -> None:
        """Take over a generator's state.

        Raises:
            MismatchError: not the state of a generator.
        """
        try:
            self.generator.set_state(state.cpu())
        except (AttributeError, RuntimeError, TypeError) as error:
            raise MismatchError(f"the state of the gates holds no generator's state ({error})") from error
