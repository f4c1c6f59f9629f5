"""``prune.iterative``: what goes back where, what is counted, and going on after a kill."""

import copy

import pytest
import torch
from tests.prune.toys import make_normed, net, same, samples, state, train
from torch import nn

from regraft import Topology, prune, sparsify
from regraft.errors import FileError, InputError, MismatchError


def masked_imp(make, density, rounds, rewind_to=0):
    """Iterative magnitude pruning with dense weights and masks, written a second time: {weight: mask}."""
    point = make()
    train(point, 0, rewind_to)
    layers = [n for n, m in point.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    masks = {n: torch.ones_like(point.get_submodule(n).weight) for n in layers}
    total = sum(m.numel() for m in masks.values())
    for done in range(1, rounds + 1):
        model = copy.deepcopy(point)
        for n in layers:
            layer = model.get_submodule(n)
            with torch.no_grad():
                layer.weight.mul_(masks[n])
            layer.weight.register_hook(lambda g, m=masks[n]: g * m)
        train(model, rewind_to, None)
        magnitudes = torch.cat([model.get_submodule(n).weight.detach().abs().flatten() for n in layers])
        k = round(density ** (done / rounds) * total)
        flat = torch.zeros(total)
        flat[magnitudes.topk(k).indices] = 1.0
        parts = flat.split([masks[n].numel() for n in layers])
        masks = {n: part.view(masks[n].shape) for n, part in zip(layers, parts, strict=True)}
    return masks


@pytest.mark.parametrize("rewind_to", [0, 2])
def test_imp_finds_the_ticket_of_a_masked_reference(rewind_to):
    ticket = prune.iterative(make_normed, train, density=0.2, rounds=3, rewind_to=rewind_to, floor=1)
    masks = masked_imp(make_normed, 0.2, 3, rewind_to)
    assert {n: c.index.tolist() for n, c in ticket.topology.items()} == {
        f"{n}.weight": m.flatten().nonzero().squeeze(1).tolist() for n, m in masks.items()
    }
    assert ticket.epoch == rewind_to


@pytest.mark.parametrize("rewind_to", [0, 1, 3])
def test_everything_is_rewound_bit_for_bit(rewind_to):
    """Weights, biases, and batch norm's statistics and count of batches."""
    point = make_normed()
    train(point, 0, rewind_to)
    ticket = prune.iterative(make_normed, train, density=0.3, rounds=2, rewind_to=rewind_to)
    assert Topology.of(ticket.model) == ticket.topology
    assert same(state(ticket.model), state(prune.apply(point, ticket.topology)))
    assert int(ticket.model.norm.num_batches_tracked) == 4 * rewind_to


def test_each_round_trains_what_the_round_before_left():
    seen = []

    def watching(model, start, stop):
        nnz = Topology.of(model).nnz if seen else 8 * 12 + 12 * 4
        seen.append((nnz, start, stop))
        return float(len(seen))

    ticket = prune.iterative(lambda: net(8, 12, 4), watching, density=0.25, rounds=2, shots=3)
    assert seen == [(144, 0, None), (72, 0, None)]
    assert [(r.number, r.metric, r.trained_density, r.density) for r in ticket.history] == [
        (1, 1.0, 1.0, 0.5),
        (2, 2.0, 0.5, 0.25),
    ]
    assert [sum(r.counts.values()) for r in ticket.history] == [72, 36]


def test_epochs_of_each_round():
    spans = []
    options = {"density": 0.2, "rounds": 3}

    def watching(model, start, stop):
        spans.append((start, stop))

    def run(**more):
        spans.clear()
        ticket = prune.iterative(lambda: net(8, 12, 4), watching, **options, **more)
        return [*spans, ticket.epoch]

    assert run(rewind_to=2) == [(0, 2), (2, None), (2, None), (2, None), 2]
    assert run(rewind_to=2, epochs=5) == [(0, 2), (2, 7), (2, 7), (2, 7), 2]
    assert run(rewind_to=None) == [(0, None), (0, None), (0, None), 0]
    assert run(rewind_to=None, epochs=2) == [(0, 2), (2, 4), (4, 6), 6]


def test_kept_weights_are_those_that_training_left():
    """Gradual pruning by hand: train two epochs, cut, train on."""
    ticket = prune.iterative(
        make_normed, train, density=0.3, rounds=2, rewind_to=None, epochs=2, path="linear"
    )
    model = make_normed()
    train(model, 0, 2)
    prune.apply(model, prune.upfront(model, score="magnitude", density=0.65))
    train(model, 2, 4)
    prune.apply(model, prune.upfront(model, score="magnitude", density=0.3))
    assert same(state(ticket.model), state(model))


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_the_state_of_an_optimizer_follows_where_weights_are_kept(kind):
    held = {}

    def make():
        held["model"] = sparsify(net(8, 12, 4), density=1.0)
        parameters = held["model"].parameters()
        held["optimizer"] = (
            torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
            if kind == "momentum"
            else torch.optim.Adam(parameters, lr=0.01)
        )
        return held["model"]

    def train_on(model, start, stop):
        x, y = samples()
        for _ in range(start, stop):
            held["optimizer"].zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            held["optimizer"].step()
        key = "momentum_buffer" if kind == "momentum" else "exp_avg"
        weight = model[0].weight
        held["moments"] = dict(
            zip(weight.index.tolist(), held["optimizer"].state[weight.values][key].tolist(), strict=True)
        )

    ticket = prune.iterative(
        make, train_on, density=0.3, rounds=2, rewind_to=None, epochs=2,
        optimizers=lambda: held["optimizer"],
    )  # fmt: skip
    assert ticket.model is held["model"]
    before, weight = held["moments"], ticket.model[0].weight
    key = "momentum_buffer" if kind == "momentum" else "exp_avg"
    now = held["optimizer"].state[weight.values][key]
    assert now.tolist() == [before[i] for i in weight.index.tolist()]
    train_on(ticket.model, 4, 6)


class Killed(Exception):
    pass


@pytest.mark.parametrize("rewind_to", [0, 2, None])
@pytest.mark.parametrize("after", [0, 1])
def test_a_killed_run_goes_on_to_the_same_ticket(tmp_path, rewind_to, after):
    """Killed in the training of a later round; random ties, random scores, a second call to make_model."""
    options = {
        "density": 0.2, "rounds": 2, "rewind_to": rewind_to, "score": "random", "floor": 2, "shots": 2,
        "epochs": 1 if rewind_to is None else None,
    }  # fmt: skip
    seeded = lambda: torch.Generator().manual_seed(11)
    whole = prune.iterative(make_normed, train, generator=seeded(), **options)

    def stop(done):
        if done.number == after:
            raise Killed

    def train_or_die(model, start, stop):
        if after == 0 and start >= (rewind_to or 0):
            raise Killed
        return train(model, start, stop)

    with pytest.raises(Killed):
        prune.iterative(
            make_normed, train_or_die, generator=seeded(), folder=tmp_path, on_round=stop, **options
        )
    again = []
    resumed = prune.iterative(
        make_normed, train, generator=seeded(), folder=tmp_path, on_round=again.append, **options
    )
    assert len(again) == 2 - after
    assert resumed.history == whole.history
    assert resumed.topology == whole.topology
    assert same(state(resumed.model), state(whole.model))
    finished = prune.iterative(make_normed, None, generator=seeded(), folder=tmp_path, **options)
    assert same(state(finished.model), state(whole.model))


def test_a_folder_of_another_call_is_refused(tmp_path):
    make = lambda: net(8, 12, 4)
    run = lambda make=make, **more: prune.iterative(
        make, train, folder=tmp_path, **{"density": 0.3, "rounds": 1, **more}
    )
    run()
    with pytest.raises(MismatchError, match=r"holds rounds with density 0.3, but this call has 0.2: give"):
        run(density=0.2)
    with pytest.raises(MismatchError, match=r"with score 'magnitude', but this call has 'random'"):
        run(score="random", generator=torch.Generator())
    with pytest.raises(MismatchError, match="does not fit the network of this call"):
        run(make=lambda: net(8, 13, 4))
    (tmp_path / "rounds.safetensors").write_bytes(b"broken")
    with pytest.raises(FileError):
        run()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        prune.iterative(make, train, density=0.3, rounds=1, folder=tmp_path / "file" / "deeper")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds is 0, but must be a whole number of 1 or more"),
        ({"shots": 0}, "shots is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"rewind_to": -1}, r"rewind_to is -1, but must be an epoch, 0 or more, or None"),
        ({"rewind_to": 1.5}, "rewind_to is 1.5"),
        ({"density": 0.0}, "density is 0.0"),
        ({"density": 0.001}, "too few for 2 layers"),
        ({"optimizers": lambda: None}, "rewind_to is 0: after a rewind"),
        ({"optimizers": lambda: None, "rewind_to": None}, "return regraft.sparsify"),
        ({"optimizers": lambda: None, "rewind_to": None, "folder": "x"}, "cannot hold an optimizer"),
        ({"path": "cubik"}, "did you mean 'cubic'"),
    ],
)
def test_mistakes_are_told_before_any_training(options, message):
    def never(model, start, stop):
        raise AssertionError

    with pytest.raises(InputError, match=message):
        prune.iterative(lambda: net(8, 12, 4), never, **{"density": 0.3, "rounds": 2, **options})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good"])
def test_a_metric_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match=r"in round 1, but must return a finite number or None"):
        prune.iterative(lambda: net(8, 12, 4), lambda *_: value, density=0.3, rounds=2)
