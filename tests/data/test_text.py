"""Texts: the grammar's rules, rows and their labels, parts, files of one's own, and models that read them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regraft import data, measure, models
from regraft.data import Split, grammar
from regraft.errors import FileError, InputError, MismatchError
from regraft.train import Recipe, train_recipe

TEXT = "text:context=16,characters=8000"


@pytest.fixture(scope="module")
def written() -> str:
    return grammar.write(60_000, seed=3)[0]


def test_the_same_seed_writes_the_same_text() -> None:
    assert grammar.write(500, 1) == grammar.write(500, 1)
    assert grammar.write(500, 1) != grammar.write(500, 2)
    # frozen, so that a text made anywhere at any time is the one that a network was trained on
    assert grammar.write(60, 0)[0] == "Brikono and Rosto met under the quarry. Rosto borrowed the w"


def test_verbs_agree_across_clauses(written: str) -> None:
    subjects = re.findall(
        r"The (\w+)(?: that [^.]*?)? (\w+?) (?:behind|under|near|inside|above) the", written
    )
    habits = [(s, v) for s, v in subjects if v.rstrip("s") in {h.rstrip("s") for h in grammar._HABITS}]
    assert len(habits) > 100
    assert all(subject.endswith("s") != verb.endswith("s") for subject, verb in habits)


def test_pronouns_follow_names(written: str) -> None:
    found = re.findall(r"(\w)(?= \w+ the \w+ \w+ \w+ the \w+\. (She|He))", written)
    assert len(found) > 100
    assert all((letter == "a") == (pronoun == "She") for letter, pronoun in found)


def test_brackets_and_quotes_close_within_a_paragraph(written: str) -> None:
    for paragraph in written.split("\n")[:-1]:
        assert paragraph.count('"') % 2 == 0
        assert paragraph.count("(") == paragraph.count(")")


def test_a_paragraph_speaks_of_its_own_two_people(written: str) -> None:
    for paragraph in written.split("\n")[:-1]:
        first, second = re.match(r"(\w+) and (\w+) met", paragraph).groups()  # type: ignore[union-attr]
        speakers = set(re.findall(r'" \w+ (\w+)\.', paragraph)) | set(re.findall(r"(\w+) counted", paragraph))
        assert speakers <= {first, second}


def test_the_bits_are_less_than_those_of_characters_alone(written: str) -> None:
    counts = torch.tensor([written.count(c) for c in grammar.ALPHABET if c in written], dtype=torch.float64)
    shares = counts / counts.sum()
    alone = float(-(shares * shares.log2()).sum())
    assert 0.3 < grammar.write(60_000, 3)[1] < 0.2 * alone


def test_labels_are_the_next_characters() -> None:
    text = data.load(TEXT)
    rows, labels = text.train.x.long(), text.train.y
    assert rows.shape == labels.shape
    assert torch.equal(rows[:, 1:], labels[:, :-1])
    assert torch.equal(rows[1:, 0], labels[:-1, -1])  # rows follow each other without a gap
    start = "".join(text.class_names[i] for i in rows[:2].flatten().tolist())
    assert start == grammar.write(8000, 0)[0][:32]


def test_test_samples_are_the_end() -> None:
    text = data.load(TEXT)
    whole = grammar.write(8000, 0)[0]
    first = "".join(text.class_names[i] for i in text.test.x[0].long().tolist())
    assert first == whole[7200 : 7200 + 16]
    assert len(text.test) == (800 - 1) // 16


def test_parts_are_disjoint_and_share_the_test_text() -> None:
    one, two = (data.load(f"{TEXT},part={k}/2") for k in (1, 2))
    whole = grammar.write(8000, 0)[0][:7200]
    for part, expected in ((one, whole[:3600]), (two, whole[3600:])):
        read = "".join(part.class_names[i] for i in part.train.x.flatten().long().tolist())
        assert expected.startswith(read)
        assert len(expected) - len(read) <= 16
    assert torch.equal(one.test.x, two.test.x)


def test_validation_comes_before_the_test_text() -> None:
    text, less = data.load(TEXT), data.load(TEXT, validation=0.25)
    assert less.validation is not None
    assert len(less.validation) == (1800 - 1) // 16
    assert torch.equal(less.train.x, text.train.x[: len(less.train)])
    assert torch.equal(less.test.x, text.test.x)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a:b.txt"
    path.write_bytes(("\ufeff" + "Übung\r\n" * 300).encode())
    text = data.load(path)
    assert text.class_names == tuple(sorted(set("Übung\n")))
    assert "".join(text.class_names[i] for i in text.train.x[0, :6].long().tolist()) == "Übung\n"
    assert data.load(f"{path}:context=8,characters=600").input_shape == (8,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 characters is too short"),
        (b"short", "5 characters is too short"),
        (b"abc\xff\xfe", "byte 3 is 0xff"),
    ],
)
def test_files_that_are_no_texts(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(FileError, match=words):
        data.load(path)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("text:contxt=3", {}, "did you mean 'context'"),
        ("text:context=many", {}, "whole number"),
        ("text:context=0", {}, "1 character or more"),
        ("text:part=3/2", {}, "k/n"),
        ("text:characters=100", {}, "too short"),
        ("text:characters=4000,part=1/60", {}, "in 60 parts"),
        ("text", {"per_class": 5}, "by their class"),
        ("text", {"classes": [0]}, "by their class"),
        ("text", {"standardise": "pixel"}, "have no scale"),
        ("text", {"test_fraction": 1.5}, "test_fraction"),
        ("text", {"image_size": 8}, "for images"),
        ("text:characters=4000,context=1500", {"validation": 0.5}, "validation"),
    ],
)
def test_options_that_texts_do_not_have(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        data.load(name, **options)  # type: ignore[arg-type]


def test_rows_of_labels_have_no_class_of_their_own() -> None:
    rows = Split(torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64))
    assert rows.counts() == [12]
    with pytest.raises(InputError, match="one for each of its positions"):
        rows.split_off(0.5, torch.Generator())
    with pytest.raises(InputError, match="one for each of its positions"):
        data.balanced_batch(rows, 1, torch.Generator())
    with pytest.raises(InputError, match="one for each of its positions"):
        measure.by_class(rows, 1)


def test_figures_are_means_over_positions() -> None:
    text = data.load(TEXT)
    model = models.build("gpt:1-8-2", input_shape=(16,), classes=text.classes)
    found = measure.evaluate(model, text.test, batch_size=7)
    scores = model(text.test.x).transpose(1, 2).flatten(0, 1)
    labels = text.test.y.flatten()
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
    assert found["accuracy"] == (scores.argmax(1) == labels).double().mean().item()
    assert found["bits"] == pytest.approx(found["loss"] / math.log(2))


def test_texts_and_models_that_do_not_fit() -> None:
    text, digits = data.load(TEXT), data.load("digits", per_class=5)
    wide = models.build("gpt:1-8-2", input_shape=(16,), classes=text.classes)
    with pytest.raises(MismatchError, match="take gpt"):
        measure.evaluate(models.build("mlp:16-60"), text.test)
    with pytest.raises(MismatchError, match="take data such as text"):
        measure.evaluate(wide, Split(text.test.x, text.test.y[:, 0]))
    with pytest.raises(MismatchError, match="does not take samples"):
        measure.evaluate(models.build("gpt:1-8-2", input_shape=(8,), classes=text.classes), text.test)
    with pytest.raises(MismatchError, match="an output for each class"):
        measure.evaluate(models.build("gpt:1-8-2", input_shape=(16,), classes=5), _low(text.test))
    with pytest.raises(MismatchError):
        measure.evaluate(wide, digits.test)


def _low(split: Split) -> Split:
    return Split(split.x % 5, split.y)


def test_a_sparse_gpt_learns_and_keeps_what_the_grammar_says() -> None:
    recipe = Recipe(
        "gpt:1-32-4", density=0.3, optimizer="adam", lr=0.01, epochs=4, batch_size=16, evolve="set", seed=1
    )
    trained = train_recipe(recipe, data.load("text:context=32,characters=20000"))
    losses = trained.history.column("test_loss")
    assert losses[-1] < losses[0] < math.log(60)
    assert sum(row.get("dropped", 0) for row in trained.history.epochs) > 0
    again = train_recipe(recipe, data.load("text:context=32,characters=20000"))
    for a, b in zip(trained.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_inspect_counts_what_a_text_costs() -> None:
    model: nn.Module = models.build("gpt:1-8-2", input_shape=(16,), classes=5)
    layers = {row["name"]: row for row in measure.inspect(model)["layers"]}
    assert layers["blocks.block1.fc1"]["dense_flops"] == 2 * 8 * 32 * 16
