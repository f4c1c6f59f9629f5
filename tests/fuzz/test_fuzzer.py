"""Some thousand hostile inputs for every reader; and that the fuzzer would see what it looks for."""

from __future__ import annotations

import os
import random

import pytest
from benchmarks.fuzz import trees
from benchmarks.fuzz.attempt import FREE, Peak, alarmed, attempt
from benchmarks.fuzz.smaller import smaller
from benchmarks.fuzz.target import Target, require, size_of, source
from benchmarks.fuzz.targets import TARGETS
from benchmarks.fuzz.workers import Batch, run

from regraft.errors import InputError

SEED = 1
INPUTS = 100  # of each target
FEWER = {"grid": 25}  # YAML is read by Python


def tried(target, case, tmp_path, seconds=5.0):
    with alarmed():
        return attempt(target, case, tmp_path, Peak(), seconds)


@pytest.mark.filterwarnings("ignore")  # numpy's and torch's, on purpose: the numbers are wild
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_inputs_are_read_or_refused(name, tmp_path):
    target = TARGETS[name]
    statuses = set()
    for number in range(FEWER.get(name, INPUTS)):
        outcome = tried(target, target.make(source(SEED, name, number)), tmp_path)
        assert outcome.good, f"--seed {SEED} --again {name} {number}: {outcome.status}\n{outcome.detail}"
        statuses.add(outcome.status)
    assert statuses == {"accepted", "refused"}  # an input that is always refused early tests little


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_a_function_of_seed_target_and_number(name):
    target = TARGETS[name]
    first = [repr(target.make(source(SEED, name, number))) for number in range(8)]
    again = [repr(target.make(source(SEED, name, number))) for number in reversed(range(8))]
    assert first == again[::-1]
    assert len(set(first)) > 1


def test_two_thirds_are_for_files_and_messages():
    shares = dict.fromkeys({t.group for t in TARGETS.values()}, 0)
    for target in TARGETS.values():
        shares[target.group] += target.share
    assert 3 * (shares["network files"] + shares["messages"] + shares["data files"]) >= 2 * sum(
        shares.values()
    )
    assert max(t.share for t in TARGETS.values()) < sum(shares.values()) / 5


def target_of(check, name="made"):
    return Target(name, "texts", 1, lambda rng: rng.random(), check)


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (lambda case, folder: None, "accepted"),
        (lambda case, folder: _raise(InputError("no")), "refused"),
        (lambda case, folder: _raise(KeyError("no")), "crash"),
        (lambda case, folder: _raise(SystemExit(0)), "crash"),
        (lambda case, folder: _raise(RecursionError), "crash"),
        (lambda case, folder: require(False, "no"), "inconsistent"),
        (lambda case, folder: _raise(MemoryError), "memory"),
        (lambda case, folder: _raise(InputError("")), "message"),
        (lambda case, folder: b"x" * (2 * FREE), "memory"),
    ],
)
def test_what_came_of_an_input(check, status, tmp_path):
    outcome = tried(target_of(check), 1, tmp_path)
    assert outcome.status == status
    assert outcome.good == (status in ("accepted", "refused"))


def test_a_refusal_for_want_of_memory_is_none(tmp_path):
    def check(case, folder):
        try:
            raise MemoryError
        except MemoryError as error:
            raise InputError("it cannot be read") from error

    assert tried(target_of(check), 1, tmp_path).status == "memory"


def test_what_takes_too_long_is_stopped_through_any_handler(tmp_path):
    def check(case, folder):
        try:
            while True:
                pass
        except Exception:
            pass

    assert tried(target_of(check), 1, tmp_path, seconds=0.05).status == "hang"


def test_a_worker_that_dies_is_replaced_and_the_input_told():
    cases = [source(0, "dying", number).random() for number in range(10)]

    def check(case, folder):
        if case == cases[7]:
            os.kill(os.getpid(), 9)
        if case == cases[9]:
            raise KeyError

    target = target_of(check, "dying")
    reports = list(run([Batch("dying", 0, 10)], {"dying": target}, seed=0, jobs=1, seconds=1.0))
    assert [r.counts for r in reports] == [{"death": 1}, {"accepted": 8, "crash": 1}]
    death, crash = (r.findings[0] for r in reports)
    assert (death["input"], death["kind"], death["where"]) == (7, "death", "exit code -9")
    assert crash["kind"] == "crash"


def test_a_smaller_input_makes_the_same_fault(tmp_path):
    def check(case, folder):
        require(b"!" not in case[0], "it has one")

    target = target_of(check)
    case = (b"a" * 50 + b"!" + b"b" * 70, 3)
    outcome = tried(target, case, tmp_path)
    assert smaller(case, lambda case: tried(target, case, tmp_path), outcome) == (b"!", 3)


def test_texts_that_no_tree_gives():
    rng = random.Random(0)
    made = {trees.changed(rng, '{"a": [1, 2], "b": {"c": "d"}}') for _ in range(2000)}
    for piece in ("NaN", "1e999", "[[[[[[", "9" * 5000, '"a": ', "\\ud800"):
        assert any(piece in text for text in made), piece
    assert any(text.count('"a"') > 1 for text in made)


def test_the_size_of_an_input():
    assert size_of((b"abc", ["de"], 1)) == 13
