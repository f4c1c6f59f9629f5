"""A script of somebody who uses regraft, for a type checker: what it reveals is what they see."""

from typing import assert_type

import torch

import regraft
from regraft import merging, train

model = regraft.sparsify(torch.nn.Sequential(torch.nn.Linear(64, 10)), density=0.1)
assert_type(model, torch.nn.Sequential)
assert_type(regraft.Topology.of(model).density, float)
assert_type(regraft.__version__, str)
merged = regraft.merge([model, model], weights="average")
assert_type(merged, torch.nn.Module)
print(merging.merge is regraft.merge, train.fit.__name__)
regraft.sparsfy(model)  # type: ignore[attr-defined]
