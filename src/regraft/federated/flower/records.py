"""What travels in Flower's records: updates as bytes, positions that a node remembers."""

from __future__ import annotations

import math

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import nn

from regraft.errors import InputError
from regraft.federated.trust import Rejected
from regraft.federated.update import topology_of
from regraft.topology import Topology
from regraft.weight import SparseWeight

ARRAYS, CONFIG, TOPOLOGY = "regraft.update", "regraft.config", "regraft.topology"
_KEY = "update"


def arrays_of(message: bytes) -> ArrayRecord:
    """An update's bytes as a record with one array of bytes.

    >>> message_of(arrays_of(b"rgfu"))
    b'rgfu'
    """
    return ArrayRecord({_KEY: Array(np.frombuffer(message, dtype=np.uint8))})


def message_of(arrays: ArrayRecord) -> bytes:
    """The bytes again.

    Raises:
        Rejected: a record of something else.
    """
    if list(arrays) != [_KEY]:
        raise Rejected(
            "corrupt", f"the arrays are called {', '.join(list(arrays)[:5]) or 'nothing'}, not '{_KEY}'"
        )
    array = arrays[_KEY]
    if array.dtype != "uint8" or len(array.shape) != 1:
        raise Rejected("corrupt", f"the update is an array of {array.dtype}, not of bytes")
    try:
        return bytes(array.numpy().tobytes())
    except Exception as error:  # NumPy's parser of a hostile array may raise anything
        raise Rejected("corrupt", f"the array of the update cannot be read: {error}") from None


def config_of(content: RecordDict) -> ConfigRecord:
    """The plain values that come with a message.

    Raises:
        InputError: a message of something else.
    """
    config = content.get(CONFIG)
    if not isinstance(config, ConfigRecord):
        raise InputError(f"the message has no '{CONFIG}': server and clients must both run regraft's apps")
    return config


def remember(state: RecordDict, model: nn.Module) -> None:
    """Keep the model's topology in a node's state, which lasts from round to round."""
    kept = {n: Array(c.index.to(torch.int64).numpy()) for n, c in topology_of(model).items()}
    state[TOPOLOGY] = ArrayRecord(kept)


def remembered(state: RecordDict, model: nn.Module) -> Topology | None:
    """The topology that the node was sent last; None where there is none, or of another model."""
    kept = state.get(TOPOLOGY)
    if not isinstance(kept, ArrayRecord):
        return None
    shapes = {n: tuple(m.shape) for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    if set(shapes) != set(kept):
        return None
    found = {n: torch.from_numpy(np.array(kept[n].numpy())) for n in shapes}
    if any(len(i) and int(i.max()) >= math.prod(shapes[n]) for n, i in found.items()):
        return None
    return Topology({n: (shapes[n], index) for n, index in found.items()})
