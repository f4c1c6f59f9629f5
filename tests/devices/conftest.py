"""The devices that the tests of this folder run on: a strict stand-in, and CUDA where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

REASON = "no CUDA device here (torch.cuda.is_available() is false)"

try:
    # at import: before the first backward pass, which starts a thread for each device that is known by then
    from tests.devices import standin

    standin.register()
    MISSING = ""
except (ImportError, AttributeError) as error:  # a torch without devices in Python
    MISSING = f"this torch has no devices made in Python: {error}"


@pytest.fixture(params=["cpu-stand-in", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device other than the CPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip(REASON)
        # else convolutions round to TF32, and are compared with float32
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield torch.device("cuda", torch.cuda.current_device())
        return
    if MISSING:
        pytest.skip(MISSING)
    with standin.active() as made:
        yield made
