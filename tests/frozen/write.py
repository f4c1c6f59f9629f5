"""Write the files of the newest formats, once, when a format is new: `python tests/frozen/write.py format-2`.

What stands in a folder beside this file was written by the version that its network files name, and is never
written again: `tests/test_frozen.py` reads it with every version that follows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import regraft
from regraft import export, models
from regraft.scores.learned import Learned
from regraft.scores.regressors import Regressor

NETWORKS = {"mlp": ("mlp:6-8-3", (6,)), "resnet": ("resnet-8", (3, 32, 32))}


def sample(shape: tuple[int, ...]) -> torch.Tensor:
    """Two inputs that anybody can compute."""
    count = torch.Size((2, *shape)).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64)).float().view(2, *shape)


def main(folder: Path) -> None:
    """Networks with what they compute, a learned score with what it predicts, an exported network."""
    folder.mkdir(parents=True)
    expected = {}
    for name, (spec, shape) in NETWORKS.items():
        g = torch.Generator().manual_seed(0)
        density = 0.02 if name == "resnet" else 0.5
        model = regraft.sparsify(models.build(spec, generator=g), density=density, generator=g)
        model.train()(sample(shape))  # running statistics of their own
        model.eval()
        regraft.save(model, folder / f"{name}.safetensors", provenance={"seed": 0, "data": {"name": "none"}})
        with torch.no_grad():
            expected[name] = model(sample(shape)).tolist()
        if name == "mlp":
            export.to_npz(model, folder / "mlp.npz", input_shape=shape)
    slopes = {"coef": torch.tensor([1.0, 2.0, 3.0, 4.0]), "intercept": torch.tensor([0.5])}
    Learned(Regressor("linear", slopes, 4)).save(folder / "learned.safetensors")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
