"""A batch with as many samples of each class, as GraSP is computed on."""

from __future__ import annotations

import torch
from torch import Tensor

from regraft.data.split import Split
from regraft.errors import InputError


def balanced_batch(split: Split, per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``per_class`` samples of each class of ``split``, drawn without replacement, class after class:
    (x [n, ...], y [n]). GraSP is published with 10 per class (Wang et al. 2020, arXiv:2002.07376, section 5).

    >>> split = Split(torch.arange(6.0).reshape(6, 1), torch.tensor([0, 1, 0, 1, 1, 1]))
    >>> balanced_batch(split, 2, torch.Generator().manual_seed(0))[1].tolist()
    [0, 0, 1, 1]

    Raises:
        InputError: ``per_class`` below 1, or a class with fewer samples than that.
    """
    if isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1:
        raise InputError(f"per_class is {per_class!r}, but must be a whole number of 1 or more; 10 is usual")
    split.check_one_label("a balanced batch has as many samples of each class")
    chosen = []
    for label, count in enumerate(split.counts()):
        if 0 < count < per_class:
            raise InputError(
                f"class {label} has {count} samples, too few for {per_class} of each: lower per_class"
            )
        if count:
            of_class = (split.y == label).nonzero().squeeze(1).cpu()
            order = torch.randperm(count, generator=generator, device=generator.device).cpu()
            chosen.append(of_class[order[:per_class]])
    return split[torch.cat(chosen).to(split.device)]
