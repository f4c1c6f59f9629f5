"""Thesis 3's figure 5.12 in Keras 3: `python benchmarks/keras_rewiring.py`.

Its network, 784-4000-1000-4000-10 with dropout 0.3, SGD with momentum 0.9 and batches of 100, in four ways:

dense     Keras's Dense layers
rebuild   SET's own Keras code: dense kernels under masks that a constraint multiplies in after each step.
          After each epoch the masks are rewired, the model is erased and built anew with the new masks and
          weights, and compiled with a new optimizer, so the momentum is gone
callback  thesis 3's: the same masks, rewired within one fit before an epoch begins
sparse    SparseDense layers and the Evolution callback of regraft.integrations.keras

The masks are rewired by the steps of that code: the whole kernel is sorted, and new positions are drawn one
by one. The output layer of the masked networks is dense, as there. Steps are timed within fit; changes of
topology apart, at points of each method's schedule over 500 epochs; all ways in turn, on one thread; medians.

--whole times real epochs instead, with the change before each; --train DIR trains on Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch

import regraft
from _common import in_own_process, megabytes, numbers, options, reset_peak, set_threads, write_figures
from interleaved import measured
from regraft import data
from regraft.integrations.keras import Evolution, SparseDense
from regraft.integrations.keras.required import keras
from regraft.kernels import plan
from regraft.schedules import Progress, by_name

HIDDEN, EPSILON, BATCH, EPOCHS, STEPS = (4000, 1000, 4000), 20, 100, 500, 600
WAYS = ("dense", "rebuild", "callback", "sparse")
METHODS = {"SET": "constant", "LDV": "ldv", "OSV": "osv", "EXD": "exd"}
POINTS = 3  # of a schedule at which a change is timed
Array = np.ndarray[Any, Any]
Rate = Callable[[Progress], float]


class Mask(keras.constraints.Constraint):  # type: ignore[misc]  # Keras has no types
    """Multiplies a kernel by a mask after each step of the optimizer."""

    def __init__(self, mask: Array) -> None:
        self.mask = torch.from_numpy(mask)

    def __call__(self, kernel: Any) -> Any:
        return kernel * self.mask

    def get_config(self) -> dict[str, Any]:
        return {"mask": self.mask.numpy()}


def random_mask(inputs: int, units: int, rng: np.random.Generator) -> Array:
    """Each connection with Erdos-Renyi's probability."""
    share = EPSILON * (inputs + units) / (inputs * units)
    return (rng.random((inputs, units), np.float32) < share).astype(np.float32)


def rewired(kernel: Array, mask: Array, rate: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The mask after a change, and the kernel with what was dropped and grown at 0."""
    ordered = np.sort(kernel, axis=None)
    negative, positive = ordered[ordered < 0], ordered[ordered > 0]
    low = negative[min(int((1 - rate) * len(negative)), len(negative) - 1)]
    high = positive[min(int(rate * len(positive)), len(positive) - 1)]
    kept = ((kernel < low) | (kernel > high)).astype(np.float32)
    grown, missing = kept.copy(), int(mask.sum() - kept.sum())
    while missing:
        i, j = rng.integers(kernel.shape[0]), rng.integers(kernel.shape[1])
        if grown[i, j] == 0:
            grown[i, j] = 1
            missing -= 1
    return grown, kernel * kept


def optimizer() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


def compiled(layers: list[Any]) -> Any:
    model = keras.Sequential([keras.Input((784,)), *layers])
    model.compile(optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


class Way(Protocol):
    """A network that trains and changes its topology."""

    model: Any

    def change(self, rate: float) -> None: ...
    def refresh(self) -> None: ...
    def epochs(self, x: Array, y: Array, epochs: int, rate: Rate, clock: Clock) -> None: ...


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Processor time at the begin of each epoch's first batch and at the end of its last one."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.begins.append(time.process_time())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ends.append(time.process_time())


class Dense:
    """Nothing changes."""

    def __init__(self, seed: int, hidden: tuple[int, ...]) -> None:
        self.hidden = hidden
        self.model = compiled([*self._hidden(), keras.layers.Dense(10, "softmax")])

    def _hidden(self) -> Iterator[Any]:
        for units in self.hidden:
            yield keras.layers.Dense(units, "relu")
            yield keras.layers.Dropout(0.3)

    def change(self, rate: float) -> None: ...

    def refresh(self) -> None: ...

    def epochs(self, x: Array, y: Array, epochs: int, rate: Rate, clock: Clock) -> None:
        self.model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[clock])


class Rebuild:
    """A new model and optimizer after each epoch."""

    def __init__(self, seed: int, hidden: tuple[int, ...]) -> None:
        self.rng, self.hidden = np.random.default_rng(seed), hidden
        sizes = zip((784, *hidden), hidden, strict=False)
        self.masks = [random_mask(inputs, units, self.rng) for inputs, units in sizes]
        self.model = self.build()

    def build(self) -> Any:
        layers: list[Any] = []
        for units, mask in zip(self.hidden, self.masks, strict=True):
            layers += [
                keras.layers.Dense(units, "relu", kernel_constraint=Mask(mask)),
                keras.layers.Dropout(0.3),
            ]
        return compiled([*layers, keras.layers.Dense(10, "softmax")])

    def rewire(self, rate: float) -> list[Array]:
        weights: list[Array] = self.model.get_weights()
        for i, mask in enumerate(self.masks):
            self.masks[i], weights[2 * i] = rewired(weights[2 * i], mask, rate, self.rng)
        return weights

    def change(self, rate: float) -> None:
        weights = self.rewire(rate)
        del self.model
        keras.utils.clear_session()
        self.model = self.build()
        self.model.set_weights(weights)

    def refresh(self) -> None:
        """Values as after an epoch: none of the active ones is 0."""
        weights = self.model.get_weights()
        for i, mask in enumerate(self.masks):
            weights[2 * i] = self.rng.standard_normal(mask.shape, np.float32) * np.float32(0.01) * mask
        self.model.set_weights(weights)

    def epochs(self, x: Array, y: Array, epochs: int, rate: Rate, clock: Clock) -> None:
        for epoch in range(epochs):
            if epoch:
                self.change(rate(Progress(epoch - 1, epochs)))
            self.model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[clock])
            clock.set_model(None)  # else it would hold on to a model that is to be erased


class InPlace(Rebuild):
    """The same masks, rewired in the model that trains."""

    def change(self, rate: float) -> None:
        self.model.set_weights(self.rewire(rate))
        dense = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Dense)]
        for layer, mask in zip(dense[:-1], self.masks, strict=True):
            layer.kernel.constraint = Mask(mask)

    def epochs(self, x: Array, y: Array, epochs: int, rate: Rate, clock: Clock) -> None:
        def begin(epoch: int, logs: Any = None) -> None:
            if epoch:
                self.change(rate(Progress(epoch - 1, epochs)))

        before = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
        self.model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[before, clock])


class Sparse(Dense):
    """Only the connections."""

    def __init__(self, seed: int, hidden: tuple[int, ...]) -> None:
        self.seed, self.hidden = seed, hidden
        output = SparseDense(10, "softmax", epsilon=EPSILON, seed=100 * seed)
        self.model = compiled([*self._hidden(), output])
        self.evolution = Evolution(0.3, seed=seed)
        self.evolution.set_model(self.model)

    def _hidden(self) -> Iterator[Any]:
        for number, units in enumerate(self.hidden, start=1):
            yield SparseDense(units, "relu", epsilon=EPSILON, seed=100 * self.seed + number)
            yield keras.layers.Dropout(0.3)

    def change(self, rate: float) -> None:
        self.evolution.evolver.rate = regraft.Constant(rate)
        self.evolution.evolve()

    def refresh(self) -> None:
        for layer in self.model.layers:
            if isinstance(layer, SparseDense):
                layer.values.value.data.normal_(0, 0.01)

    def epochs(self, x: Array, y: Array, epochs: int, rate: Rate, clock: Clock) -> None:
        callbacks = [Evolution(rate, seed=self.seed), clock]
        self.model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks)


MADE: dict[str, Callable[[int, tuple[int, ...]], Way]] = {
    "dense": Dense, "rebuild": Rebuild, "callback": InPlace, "sparse": Sparse,
}  # fmt: skip


def random_data(steps: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps * BATCH, 784), np.float32)
    return x, rng.integers(10, size=len(x))


def rates(method: str) -> list[float]:
    """The rates of a method at points of its schedule; SET's is always the same."""
    points = 1 if method == "SET" else POINTS
    schedule = by_name(METHODS[method])
    return [schedule(Progress(round((i + 0.5) * EPOCHS / points), EPOCHS)) for i in range(points)]


def step_times(ways: Mapping[str, Way], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of a training step of each way, round by round, within fit."""
    x, y = random_data(steps)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first fills caches
        for name, way in ways.items():
            clock = Clock()
            way.epochs(x, y, 1, regraft.Constant(0.3), clock)
            taken[name].append((clock.ends[0] - clock.begins[0]) / steps)
    return {name: times[1:] for name, times in taken.items()}


def change_times(ways: Mapping[str, Way], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of a change of each way and method, means over the method's schedule, round by round."""
    taken: dict[str, dict[str, list[float]]] = {name: {m: [] for m in METHODS} for name in ways}
    for _ in range(rounds):
        for method in METHODS:
            for name, way in ways.items():
                seconds = []
                for rate in rates(method):
                    way.refresh()
                    start = time.process_time()
                    way.change(rate)
                    seconds.append(time.process_time() - start)
                taken[name][method].append(statistics.fmean(seconds))
    return taken


def predictions(ways: Mapping[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of a prediction of one sample and of a batch."""
    x = torch.randn(BATCH, 784)
    jobs: dict[str, Callable[[], object]] = {}
    for name, way in ways.items():
        for samples in (1, BATCH):
            jobs[f"{name}/{samples}"] = lambda way=way, n=samples: way.model(x[:n], training=False)  # type: ignore[misc]
    with torch.no_grad():
        found = measured(jobs, rounds=rounds, seconds=5e-3)
    return {name: {str(n): statistics.median(found[f"{name}/{n}"]) for n in (1, BATCH)} for name in ways}


def memory(name: str, hidden: tuple[int, ...]) -> dict[str, float]:
    """MB of a way in a process of its own: variables, masks and slots, and the peak of two short epochs."""
    x, y = random_data(5)
    reset_peak()
    before = megabytes()
    way = MADE[name](0, hidden)
    way.epochs(x, y, 3, regraft.Constant(0.3), Clock())
    tensors = [v.value for v in (*way.model.variables, *way.model.optimizer.variables)]
    tensors += [torch.from_numpy(mask) for mask in getattr(way, "masks", [])]
    for layer in way.model.layers:  # what the kernels keep beside the positions
        if isinstance(layer, SparseDense):
            tensors += plan.of(layer.weight).parts
    held = sum(t.numel() * t.element_size() for t in tensors) / 1e6
    trained = sum(v.value.numel() for v in way.model.trainable_variables)
    connections = sum(int(mask.sum()) - mask.size for mask in getattr(way, "masks", []))
    return {
        "held_mb": held, "peak_mb": megabytes("VmHWM") - before, "parameters": trained + connections,
    }  # fmt: skip


def whole(ways: Mapping[str, Way], rounds: int, steps: int) -> None:
    """Seconds of real epochs at SET's rate, each with the change before it."""
    x, y = random_data(steps)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            clock = Clock()
            way.epochs(x, y, 2, regraft.Constant(0.3), clock)
            taken[name].append(clock.ends[1] - clock.ends[0])
    for name, times in taken.items():
        ratios = [100 * t / d for t, d in zip(times, taken["dense"], strict=True)]
        share = statistics.median(ratios)
        print(f"{name:9} {statistics.median(times):8.1f} s an epoch, {share:6.1f} % of the dense network's")


def train(folder: str, hidden: tuple[int, ...], seeds: int, epochs: int, per_class: int) -> None:
    """Test accuracy on Fashion-MNIST after equal epochs, each way and method with the same seeds."""
    made = data.load("fashion-mnist", data_dir=folder, per_class=per_class)
    x, y = made.train.x.flatten(1).numpy(), made.train.y.numpy()
    x_test, y_test = made.test.x.flatten(1).numpy(), made.test.y.numpy()
    cells = [("dense", "SET"), *((w, m) for w in ("rebuild", "callback") for m in ("SET", "EXD"))]
    cells += [("sparse", m) for m in METHODS]
    for name, method in cells:
        found = []
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            way = MADE[name](seed, hidden)
            clock = Clock()
            way.epochs(x, y, epochs, by_name(METHODS[method]), clock)
            found.append(100 * way.model.evaluate(x_test, y_test, batch_size=1000, verbose=0)[1])
        spread = f" +- {statistics.stdev(found):.2f}" if seeds > 1 else ""
        label = name if name == "dense" else f"{name} {method}"
        print(
            f"{label:14} {statistics.fmean(found):6.2f}{spread}  {[round(v, 2) for v in found]}", flush=True
        )


def show(figures: Mapping[str, Any]) -> None:
    dense = statistics.median(figures["step_s"]["dense"])
    print(
        f"{'':9} {'step, ms':>9} {'of dense':>9} {'1 sample':>9} {'100':>7}  {'held, MB':>9} {'peak, MB':>9}"
    )
    for name in WAYS:
        step, seen, held = figures["step_s"][name], figures["predict_s"][name], figures["memory"][name]
        ratio = statistics.median(100 * t / d for t, d in zip(step, figures["step_s"]["dense"], strict=True))
        print(
            f"{name:9} {1e3 * statistics.median(step):9.1f} {ratio:7.1f} % {1e3 * seen['1']:6.2f} ms "
            f"{1e3 * seen[str(BATCH)]:4.1f} ms {held['held_mb']:9.1f} {held['peak_mb']:9.0f}"
        )
    print(f"\nan epoch of {STEPS} steps with its change, of the dense network's (a change, ms)")
    print(f"{'':9}" + "".join(f"{m:>18}" for m in METHODS))
    for name in WAYS[1:]:
        step = statistics.median(figures["step_s"][name])
        cells = []
        for method in METHODS:
            change = statistics.median(figures["change_s"][name][method])
            cells.append(f"{100 * (STEPS * step + change) / (STEPS * dense):8.1f} % ({1e3 * change:5.0f})")
        print(f"{name:9}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=20, help="of an epoch that is timed (default 20)")
    parser.add_argument("--whole", action="store_true", help="time real epochs of --steps instead")
    parser.add_argument("--train", metavar="DIR", help="train on Fashion-MNIST in this folder instead")
    parser.add_argument("--hidden", default=",".join(map(str, HIDDEN)), help="sizes of the hidden layers")
    parser.add_argument("--seeds", type=int, default=3, help="of --train")
    parser.add_argument("--epochs", type=int, default=10, help="of --train")
    parser.add_argument("--per-class", type=int, default=1000, help="training images a class in --train")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    set_threads(args.threads)
    hidden = tuple(numbers(args.hidden, int))
    keras.utils.set_random_seed(0)
    if args.memory:
        print(json.dumps(memory(args.memory, hidden)))
    elif args.train:
        train(args.train, hidden, args.seeds, args.epochs, args.per_class)
    elif args.whole:
        whole({name: MADE[name](0, hidden) for name in WAYS}, args.rounds, args.steps)
    else:
        ways = {name: MADE[name](0, hidden) for name in WAYS}
        figures = {
            "step_s": step_times(ways, args.rounds, args.steps),
            "change_s": change_times(ways, args.rounds),
            "predict_s": predictions(ways, args.rounds),
            "memory": {
                name: in_own_process(__file__, "--memory", name, "--hidden", args.hidden) for name in WAYS
            },
        }
        show(figures)
        write_figures(args.json, figures)


if __name__ == "__main__":
    main()
