from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.data import Loader, Split
from regraft.errors import InputError, MismatchError


def make(n: int = 10) -> Split:
    return Split(torch.arange(float(n)).reshape(n, 1), torch.arange(n))


def loader(n: int = 10, size: int = 3, seed: int = 0, **options) -> Loader:
    return Loader(make(n), size, generator=torch.Generator().manual_seed(seed), **options)


def order(batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


@given(n=st.integers(1, 30), size=st.integers(1, 35), shuffle=st.booleans(), drop=st.booleans())
def test_an_epoch_is_every_sample_once(n, size, shuffle, drop):
    if drop and size > n:
        with pytest.raises(InputError, match="leaves no batch"):
            loader(n, size, shuffle=shuffle, drop_last=drop)
        return
    made = loader(n, size, shuffle=shuffle, drop_last=drop)
    batches = list(made)
    assert len(batches) == len(made)
    assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)
    seen = [i for batch in order(batches) for i in batch]
    assert len(seen) == len(set(seen)) == (n // size * size if drop else n)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_epochs_differ_and_follow_the_generator():
    first, second = loader(50), loader(50)
    epochs = [order(first) for _ in range(3)]
    assert epochs == [order(second) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(loader(50, seed=1)) != epochs[0]


def test_one_permutation_is_drawn_per_epoch():
    made, generator = loader(10, 4), torch.Generator().manual_seed(0)
    for _ in range(2):
        permutation = torch.randperm(10, generator=generator).tolist()
        assert order(made) == [permutation[:4], permutation[4:8], permutation[8:]]
    assert torch.equal(made.generator.get_state(), generator.get_state())


def test_without_a_generator_two_loaders_agree_and_the_global_one_is_left():
    before = torch.get_rng_state()
    assert order(Loader(make(), 4)) == order(Loader(make(), 4))
    assert torch.equal(torch.get_rng_state(), before)


@given(
    n=st.integers(1, 20), size=st.integers(1, 8), epochs=st.integers(0, 2), stop=st.integers(0, 20),
    shuffle=st.booleans(), drop=st.booleans(), draws=st.integers(0, 3),
)  # fmt: skip
def test_resuming_anywhere_gives_the_batches_that_were_left(n, size, epochs, stop, shuffle, drop, draws):
    drop = drop and size <= n
    whole = loader(n, size, shuffle=shuffle, drop_last=drop)
    for _ in range(epochs):
        order(whole)
    stop = min(stop, len(whole))
    rest, state = [], whole.state_dict()
    for i, (_, y) in enumerate(whole):
        if i >= stop:
            rest.append(y.tolist())
            continue
        # the generator may be shared: others draw from it during the epoch
        torch.rand(draws, generator=whole.generator)
        state = whole.state_dict()
    later = [order(whole) for _ in range(2)]

    resumed = loader(n, size, seed=99, shuffle=shuffle, drop_last=drop)
    resumed.load_state_dict(state)
    assert order(resumed) == rest
    assert [order(resumed) for _ in range(2)] == later
    assert resumed.epoch == whole.epoch == epochs + 3


def test_a_state_between_epochs_starts_a_new_one():
    made = loader()
    order(made)
    state = made.state_dict()
    assert state["position"] is None
    following = order(made)
    made.load_state_dict(state)
    assert order(made) == following


def test_a_state_of_the_last_batch_leaves_nothing_of_the_epoch():
    made = loader()
    for _ in made:
        state = made.state_dict()
    following = order(made)
    made.load_state_dict(state)
    assert order(made) == []
    assert order(made) == following


def test_an_epoch_that_was_left_is_not_continued_unasked():
    made, other = loader(), loader()
    next(iter(made))
    order(other)
    assert order(made) == order(other)


def test_a_state_survives_saving(tmp_path):
    made = loader()
    batches = iter(made)
    next(batches)
    torch.save(made.state_dict(), tmp_path / "state.pt")
    rest = order(batches)
    resumed = loader(seed=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert order(resumed) == rest


@pytest.mark.parametrize("shuffle", [True, False])
def test_changing_a_batch_leaves_the_data(shuffle):
    made = loader(shuffle=shuffle)
    for x, y in made:
        x.add_(100)
        y.zero_()
    assert torch.equal(made.split.x, make().x)
    assert torch.equal(made.split.y, make().y)


def test_batches_go_to_the_device_asked_for():
    x, y = next(iter(loader(device="meta")))
    assert (x.device.type, y.device.type) == ("meta", "meta")
    x, _ = next(iter(loader(device="cpu")))
    assert x.device.type == "cpu"


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_bad_batch_sizes(size):
    with pytest.raises(InputError, match="batch_size"):
        Loader(make(), size)


@pytest.mark.parametrize(
    "other", [{"n": 11}, {"size": 4}, {"shuffle": False}, {"drop_last": True}], ids=lambda o: next(iter(o))
)
def test_a_state_of_another_loader_is_refused(other):
    with pytest.raises(MismatchError, match="was saved with"):
        loader(**other).load_state_dict(loader().state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position": 5}, "position 5: expected 0 to 4"),
        ({"position": "x"}, "position"),
        ({"epoch": -1}, "epoch"),
        ({"order": torch.zeros(3, dtype=torch.uint8), "position": 1}, "no generator's state"),
        ({"generator": None}, "no generator's state"),
    ],
)
def test_bad_states_are_refused(change, words):
    made = loader()
    with pytest.raises(InputError, match=words):
        made.load_state_dict({**made.state_dict(), **change})
    with pytest.raises(InputError, match="lacks 'samples'"):
        made.load_state_dict({"epoch": 1})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_order_is_the_same_on_a_gpu():
    on_cpu, on_gpu = loader(50), Loader(make(50).to("cuda"), 3, generator=torch.Generator().manual_seed(0))
    moved = loader(50, device="cuda")
    batches = list(moved)
    assert order(on_cpu) == order(on_gpu) == order(batches)
    assert {x.device.type for x, _ in batches} == {"cuda"}
