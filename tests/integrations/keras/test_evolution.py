"""The callback is regraft's Evolve, at the right moments, with the optimizer's slots, and it resumes."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("keras")

import keras

import regraft
from regraft.errors import InputError
from regraft.evolve import Gradient
from regraft.integrations.keras import Evolution, SparseConv2D, SparseDense, to_torch, torch_view
from regraft.integrations.keras.evolution import change_generator
from regraft.schedules import Progress, by_name

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 12)).astype("float32"), RNG.standard_normal((32, 4)).astype("float32")


def network(optimizer=None, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((12,)), SparseDense(20, "relu", density=0.3, seed=1, name="fc1"),
        SparseDense(4, density=0.5, seed=2, name="fc2"),
    ])  # fmt: skip
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", **options)
    return model


def fit(model, *callbacks, epochs=4, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def topology(model):
    return regraft.Topology.of(torch_view(model))


@pytest.mark.parametrize("rate", ["constant", "ldv", "osv", "exd"])
@pytest.mark.parametrize("every", ["epoch", 3])
def test_it_does_what_evolve_does_in_a_torch_loop(rate, every):
    """SET, LDV, OSV and EXD: the same positions to the last, the same values up to rounding."""
    model = network()
    twin = to_torch(model).train()
    evolution = Evolution(rate, every=every, seed=7)
    fit(model, evolution)

    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    steps = 4 if every == "epoch" else every
    evolver = regraft.Evolve(rate=rate, every=steps, total=16).attach(twin, optimizer)
    for number in range(16):
        batch = slice(8 * (number % 4), 8 * (number % 4) + 8)
        optimizer.zero_grad()
        nn.functional.mse_loss(twin(torch.tensor(X[batch])), torch.tensor(Y[batch])).backward()
        optimizer.step()
        evolver.generator = change_generator(7, number + 1)
        evolver.step()
    assert topology(model) == regraft.Topology.of(twin)
    assert [(s.step, s.rate, s.dropped) for s in evolution.history] == [
        (s.step, s.rate, s.dropped) for s in evolver.history
    ]
    for layer in model.layers:
        values = twin.get_submodule(layer.name).weight.values
        assert torch.allclose(layer.values.value, values, atol=1e-5)


def test_the_rates_are_the_schedules():
    for name in ("constant", "ldv", "osv", "exd"):
        evolution = Evolution(name)
        logs = fit(network(), evolution, epochs=5).history
        expected = [by_name(name)(Progress(i, 5)) for i in range(4)]
        assert logs["evolve_rate"] == pytest.approx([0.0, *expected])
        assert logs["evolve_dropped"] == [0.0, *(s.total for s in evolution.history)]


def test_counts_stay_and_the_last_epoch_is_followed_by_no_change():
    model = network()
    nnz, seen = topology(model).nnz, []

    class After(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(topology(self.model))

    fit(model, Evolution(0.5), After())
    assert [t.nnz for t in seen] == [nnz] * 4
    assert len({str(t["fc1.weight"].index.tolist()) for t in seen}) == 4
    assert topology(model) == seen[-1]


def test_early_stopping_restores_the_topology_that_was_best():
    x_val, y_val = X[:8], Y[:8]
    model, best = network(keras.optimizers.SGD(1e-6)), {}

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                best["topology"], best["out"] = topology(self.model), self.model(x_val)

    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True, min_delta=1e9)
    done = fit(model, Evolution(0.9), stop, Keep(), epochs=9, validation_data=(x_val, y_val)).history
    assert len(done["loss"]) == 3
    assert topology(model) == best["topology"]
    assert torch.equal(model(x_val), best["out"])


KINDS = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam",
    "RMSprop", "ScheduleFreeAdamW",
)  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "ema": lambda: keras.optimizers.SGD(0.01, use_ema=True),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    **{
        kind: partial(getattr(keras.optimizers, kind), 0.01)
        for kind in KINDS
        if hasattr(keras.optimizers, kind)
    },
}


def slots(model, layer):
    """The optimizer's variables with one number for each connection, by name: no two layers have as many."""
    return {
        variable.name.removeprefix(layer.values.path.replace("/", "_")): variable.value.clone()
        for variable in model.optimizer.variables
        if tuple(variable.shape) == tuple(layer.values.shape)
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_of_survivors_stay_bit_for_bit_and_those_of_new_connections_start_fresh(name):
    model = network(OPTIMIZERS[name]())
    fit(model, epochs=1)
    evolution = Evolution(0.4)
    evolution.set_model(model)
    layers = model.layers
    before = [(layer.weight.index.clone(), slots(model, layer)) for layer in layers]
    evolution.evolve()
    for layer, (index, old) in zip(layers, before, strict=True):
        new = slots(model, layer)
        assert new.keys() == old.keys()
        assert old
        kept = layer.weight.values.detach() != 0  # grown connections begin with 0
        assert torch.equal(layer.weight.index[kept], index[torch.isin(index, layer.weight.index[kept])])
        assert 0 < int((~kept).sum()) < layer.weight.nnz
        for key in old:
            was = old[key][torch.isin(index, layer.weight.index[kept])]
            assert torch.equal(new[key][kept], was), key
            start = 0.1 if "accumulator" in key and name in ("Adagrad", "Ftrl") else 0.0
            assert bool((new[key][~kept] == torch.tensor(start)).all()), key
    fit(model, epochs=1)


@pytest.mark.parametrize("every", ["epoch", 3])
def test_a_run_in_two_parts_equals_one(every, tmp_path):
    whole = network(keras.optimizers.Adam(0.01))
    fit(whole, Evolution("ldv", every=every, seed=3), epochs=6)

    first = network(keras.optimizers.Adam(0.01))
    # the first half knows that there will be six epochs, as a run that is cut off does
    fit(first, Evolution("ldv", every=every, seed=3), Stop(2), epochs=6)
    first.save(tmp_path / "half.keras")
    again = keras.saving.load_model(tmp_path / "half.keras")
    fit(again, Evolution("ldv", every=every, seed=3), epochs=6, initial_epoch=3)
    assert topology(again) == topology(whole)
    assert torch.equal(again(X), whole(X))


class Stop(keras.callbacks.Callback):
    """Ends training after an epoch, or fails within it."""

    def __init__(self, epoch, fail=False):
        super().__init__()
        self.epoch, self.fail = epoch, fail

    def on_epoch_begin(self, epoch, logs=None):
        if self.fail and epoch == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = not self.fail and epoch == self.epoch


def test_backup_and_restore_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = network(keras.optimizers.Adam(0.01))
    fit(whole, Evolution("exd"), epochs=5)
    for fail in (True, False):
        model = network(keras.optimizers.Adam(0.01))
        callbacks = [Evolution("exd"), keras.callbacks.BackupAndRestore(tmp_path / "backup")]
        if fail:
            with pytest.raises(KeyboardInterrupt):
                fit(model, *callbacks, Stop(3, fail=True), epochs=5)
        else:
            fit(model, *callbacks, epochs=5)
    assert topology(model) == topology(whole)
    assert torch.equal(model(X), whole(X))


def test_the_seed_decides():
    found = []
    for seed in (1, 1, 2):
        model = network()
        fit(model, Evolution(0.5, seed=seed), epochs=3)
        found.append(topology(model))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("every", ["epoch", 4])
def test_growing_by_gradients_finds_the_largest_of_the_last_batch(every):
    model = network(keras.optimizers.SGD(0.0))
    model.get_layer("fc2").trainable = False
    model.compile(keras.optimizers.SGD(0.0), "mse")
    layer = model.get_layer("fc1")
    weight = layer.weight
    dense = weight.dense().detach().requires_grad_()
    hidden = torch.relu(torch.tensor(X[24:]) @ dense.t() + layer.bias.value)
    nn.functional.mse_loss(model.get_layer("fc2")(hidden), torch.tensor(Y[24:])).backward()
    gradient = dense.grad.abs().reshape(-1)
    frozen = model.get_layer("fc2").weight.index.clone()
    old = weight.index.clone()
    evolution = Evolution(0.3, drop="magnitude", grow=Gradient(), every=every, total=5 if every == 4 else 2)
    fit(model, evolution, epochs=2)
    assert len(evolution.history) == 1
    grown = weight.index[~torch.isin(weight.index, old)]
    absent = torch.ones(weight.size, dtype=torch.bool)
    absent[weight.index] = False
    assert grown.numel() > 0
    assert gradient[grown].min() >= gradient[absent & (gradient > 0)].max() - 1e-6
    assert torch.equal(model.get_layer("fc2").weight.index, frozen)


def test_convolutions_evolve():
    model = keras.Sequential([
        keras.Input((6, 6, 2)), SparseConv2D(4, 3, density=0.4, activation="relu"), keras.layers.Flatten(),
        keras.layers.Dense(1),
    ])  # fmt: skip
    model.compile("adam", "mse")
    x = RNG.standard_normal((8, 6, 6, 2)).astype("float32")
    before = model.layers[0].weight.index.clone()
    model.fit(x, x[:, 0, 0, :1], epochs=3, verbose=0, callbacks=[Evolution(0.4)])
    layer = model.layers[0]
    assert not torch.equal(layer.weight.index, before)
    exact = layer.compute_dense(torch.tensor(x), layer.weight.dense(), layer.bias.value)
    assert torch.allclose(layer(x), torch.relu(exact), atol=1e-5)


def test_layers_are_chosen_by_name_and_what_was_tried_is_counted():
    model = network()
    before = topology(model)
    evolution = Evolution(0.5, include="fc1", explore=True)
    logs = fit(model, evolution).history
    assert topology(model)["fc2.weight"] == before["fc2.weight"]
    assert topology(model)["fc1.weight"] != before["fc1.weight"]
    assert logs["evolve_explored"] == sorted(logs["evolve_explored"])
    assert logs["evolve_explored"][-1] > before["fc1.weight"].index.numel() / 240


def test_layers_that_do_not_train_stay_as_they_are():
    model = network()
    for layer in model.layers:
        layer.trainable = False
    evolution = Evolution(0.5)
    evolution.set_model(model)
    before = topology(model)
    assert evolution.evolve().dropped == {}
    assert topology(model) == before


def test_total_ends_the_changes_early():
    evolution = Evolution("ldv", total=3)
    fit(network(), evolution, epochs=6)
    assert [s.rate for s in evolution.history] == [by_name("ldv")(Progress(i, 3)) for i in range(2)]


def test_a_second_fit_begins_a_new_schedule():
    model, evolution = network(), Evolution("ldv", every=2)
    fit(model, evolution, epochs=2)
    fit(model, evolution, epochs=2)
    assert [s.rate for s in evolution.history] == 2 * [by_name("ldv")(Progress(i, 4)) for i in range(3)]
    assert [s.step for s in evolution.history] == [2, 4, 6, 10, 12, 14]


def batches():
    while True:
        yield X[:8], Y[:8]


def test_a_stream_of_unknown_length():
    model, evolution = network(), Evolution("exd", every=3)
    model.fit(batches(), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False, callbacks=[evolution])
    assert [s.step for s in evolution.history] == [3, 6]
    evolution = Evolution(grow="gradient")
    evolution.set_params({"epochs": 2, "steps": None})
    evolution.set_model(network())
    with pytest.raises(InputError, match="how many batches an epoch has is not known"):
        evolution.on_train_begin()


class ByName(keras.optimizers.SGD):
    """Keeps its slots where nobody would look."""

    def build(self, variables):
        super().build(variables)
        self.kept = {v.path: self.add_variable_from_reference(v, name="kept") for v in variables}


def test_an_optimizer_whose_slots_cannot_be_found_is_told():
    with pytest.raises(InputError, match=r"ByName keeps 'sequential.*_kept' in no list that lines up"):
        fit(network(ByName(0.1)), Evolution())


AVERAGES = [(lambda: keras.optimizers.SGD(0.01, use_ema=True), "_average")]
if "ScheduleFreeAdamW" in OPTIMIZERS:
    AVERAGES.append((OPTIMIZERS["ScheduleFreeAdamW"], "_momentum"))


@pytest.mark.parametrize(("optimizer", "slot"), AVERAGES)
def test_averages_of_new_connections_start_with_their_values(optimizer, slot):
    model = network(optimizer())
    fit(model, epochs=1)
    layer = model.layers[0]
    old = layer.weight.index.clone()
    evolution = Evolution(0.4, grow=regraft.RandomGrowth("fan_in"))
    evolution.set_model(model)
    evolution.evolve()
    new = ~torch.isin(layer.weight.index, old)
    assert bool((layer.weight.values[new] != 0).all())
    assert torch.equal(slots(model, layer)[slot][new], layer.weight.values.detach()[new])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rate": 1.5}, "rate 1.5"),
        ({"rate": "exp"}, "unknown rate 'exp'"),
        ({"drop": "smallest"}, "unknown drop rule"),
        ({"grow": "rnd"}, "unknown grow rule"),
        ({"every": "batch"}, "every is 'batch'"),
        ({"every": 0}, "every is 0"),
        ({"total": 0}, "total is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_are_told(wrong, words):
    with pytest.raises(InputError, match=words):
        Evolution(**wrong)


def test_models_that_cannot_evolve_are_told():
    dense = keras.Sequential([keras.Input((12,)), keras.layers.Dense(4)])
    dense.compile("sgd", "mse")
    with pytest.raises(InputError, match="no sparse layer: build it with SparseDense"):
        fit(dense, Evolution())
    unbuilt = keras.Sequential([SparseDense(4, density=0.5)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(InputError, match="not built yet"):
        torch_view(unbuilt)
    with pytest.raises(InputError, match="pattern 'fc9' matches no sparse weight"):
        fit(network(), Evolution(include="fc9"))
    with pytest.raises(InputError, match="has no model"):
        Evolution().evolve()
