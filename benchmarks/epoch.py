"""A whole epoch of `regraft train`, sparse and dense in turn: loop, loader, dropout, SET's update and all.

    python benchmarks/epoch.py --data-dir DIR                        # network A on Fashion-MNIST
    python benchmarks/epoch.py --data digits --networks S --epochs 5

Networks as in `step.py`, with epsilon 20 for A, B and C and the density of S and L over all layers. Each run
is one command, printed as it starts; seconds are those of the epochs' training, without the evaluation.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import options, write_figures
from step_peers import NETWORKS


def command(network: str, dense: bool, arguments: Any, out: Path) -> list[str]:
    """The `regraft train` command of one run."""
    net = NETWORKS[network]
    hidden = "-".join(map(str, net.sizes[1:-1]))
    how = ("--epsilon", f"{net.epsilon:g}") if net.epsilon else ("--density", f"{net.density}")
    return [
        "regraft", "train", "--data", arguments.data, "--model", f"mlp:in-{hidden}-classes",
        *(("--dense",) if dense else (*how, "--rate", "exd")), "--dropout", str(arguments.dropout),
        "--batch-size", str(net.batch), "--epochs", str(arguments.epochs),
        "--threads", str(arguments.threads), "--out", f"{out}.safetensors", "--json", f"{out}.json",
        *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []),
    ]  # fmt: skip


def seconds(words: list[str], out: Path) -> list[float]:
    """Seconds of each epoch of one run."""
    print(shlex.join(words), file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "regraft", *words[1:]], check=False, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    history = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["history"]
    return [row["seconds"] for row in history]


def measure(network: str, arguments: Any) -> dict[str, Any]:
    """Epochs of both, run after run."""
    taken: dict[str, list[float]] = {"sparse": [], "dense": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for way, times in taken.items():
                out = Path(folder, way)
                times += seconds(command(network, way == "dense", arguments, out), out)
    ratios = sorted(d / s for d, s in zip(taken["dense"], taken["sparse"], strict=True))
    return {"network": network, **taken, "ratios": ratios, "ratio": statistics.median(ratios)}


def main() -> None:
    parser = options(__doc__, rounds=2)
    parser.add_argument("--networks", default="A", help="which of A, B, C, S, L (default A)")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--epochs", type=int, default=2, help="of each run (default 2)")
    parser.add_argument("--dropout", type=float, default=0.3)
    arguments = parser.parse_args()
    figures = []
    for network in arguments.networks:
        row = measure(network, arguments)
        figures.append(row)
        if arguments.json != "-":
            for way in ("sparse", "dense"):
                print(f"{network} {way:6} {min(row[way]):7.2f} - {max(row[way]):.2f} s per epoch")
            low, high = row["ratios"][0], row["ratios"][-1]
            print(f"{network} sparse is {row['ratio']:.1f} times faster ({low:.1f} - {high:.1f})")
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
