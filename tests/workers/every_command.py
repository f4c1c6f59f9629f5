"""The commands that write networks, one after the other in one process: FOLDER STUDY THREADS EXECUTOR."""

import os
import sys
from pathlib import Path

import torch

from regraft.cli import main

TINY = ("--model", "mlp:in-16-12-classes", "--per-class", "12", "--test-per-class", "4")
TRAIN = ("train", *TINY, "--epochs", "3", "--batch-size", "20", "--dropout", "0.2")
PRUNE = ("prune", *TINY, "--epochs", "2", "--batch-size", "20", "--density", "0.2")
FEDERATE = ("federate", *TINY, "--rounds", "2", "--density", "0.2", "--clients", "3")


def commands(study: str, executor: str) -> list[tuple[str, ...]]:
    """All of them write into the working folder, so that no path differs."""
    return [
        (*TRAIN, "--seed", "0", "--out", "a.safetensors", "--checkpoint", "checkpoints"),
        (*TRAIN, "--seed", "1", "--evolve", "rigl", "--optimizer", "adam", "--out", "b.safetensors"),
        (*PRUNE, "--score", "snip", "--out", "snip.safetensors"),
        (*PRUNE, "--schedule", "iterative", "--rounds", "2", "--out", "imp.safetensors"),
        ("merge", "a.safetensors", "b.safetensors", "--weights", "random", "--out", "random.safetensors"),
        ("merge", "a.safetensors", "b.safetensors", "--align", "weights", "--out", "aligned.safetensors"),
        ("tournament", "a.safetensors", "b.safetensors", "--out", "t.safetensors"),
        (*FEDERATE, "--partition", "dirichlet:0.5", "--lost", "0.2", "--out", "f.safetensors"),
        (*FEDERATE, "--topology", "random", "--out", "g.safetensors"),
        ("export", "a.safetensors", "--out", "a.c"),
        ("export", "a.safetensors", "--out", "a.npz"),
        ("study", "run", study, "--preset", "smoke", "--folder", "study", "--executor", executor),
    ]  # fmt: skip


def run(folder: str, study: str, threads: str, executor: str) -> None:
    """Each command in turn; the first that fails ends it."""
    Path(folder).mkdir(parents=True)
    os.chdir(folder)
    torch.set_num_threads(int(threads))
    for command in commands(study, executor):
        try:
            main(list(command))
        except SystemExit as stopped:
            if stopped.code:
                raise


if __name__ == "__main__":
    run(*sys.argv[1:])
