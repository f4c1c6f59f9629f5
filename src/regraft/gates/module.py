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
        weights: what each unit counts in the mean of its group, [units]; at first 1. See
            ``Gated.count_connections``.

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
    weights: Tensor

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
        self.register_buffer("weights", torch.ones(units))

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
        """The mean of ``values`` [units] over each group by ``weights``, [groups], differentiable."""
        weights = self.weights.to(values)
        zeros = values.new_zeros(len(self.sizes))
        total = zeros.index_add(0, self.group_of, values * weights)
        return total / zeros.index_add(0, self.group_of, weights)

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
