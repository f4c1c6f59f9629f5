"""A probe carries what scores look at, and says clearly what it lacks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft.errors import InputError
from regraft.probe import Probe


def test_probe_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="snip needs a loss"):
        Probe().require_loss("snip")
    with pytest.raises(InputError, match="snip needs at least one batch"):
        Probe().require_batches("snip")
    probe = Probe(loss=nn.functional.cross_entropy, batches=[(torch.zeros(1), torch.zeros(1))])
    assert probe.require_loss("snip") is nn.functional.cross_entropy
    assert len(probe.require_batches("snip")) == 1


def test_generator() -> None:
    with pytest.raises(InputError, match="random growth draws random numbers"):
        Probe().require_generator("random growth")
    generator = torch.Generator()
    assert Probe(generator=generator).require_generator("random growth") is generator
