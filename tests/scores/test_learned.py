"""The learned score: features against direct computation, regressors against scikit-learn, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.scores.networks import made
from torch import Tensor, nn

from regraft import SparseWeight, scores
from regraft.errors import FileError, InputError, MismatchError
from regraft.probe import Probe
from regraft.scores import (
    FOUR,
    REGRESSORS,
    TEN,
    Example,
    Learned,
    Perceptron,
    Regressor,
    features,
    weights_of,
)
from regraft.scores.features import unit_range


def rows_and_targets(n: int = 200, inputs: int = 4) -> tuple[Tensor, Tensor]:
    rows = torch.rand(n, inputs, generator=torch.Generator().manual_seed(0)).double()
    return rows, (rows[:, 0] * rows[:, 1] + 0.3 * rows[:, -1]) / 1.3


def example(n: int = 200, inputs: int = 4) -> Example:
    rows, wanted = rows_and_targets(n, inputs)
    return Example({"a": rows[: n // 2], "b": rows[n // 2 :]}, {"a": wanted[: n // 2], "b": wanted[n // 2 :]})


def estimator(name: str) -> Any:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression, SGDRegressor
    from sklearn.tree import DecisionTreeRegressor

    return {
        "linear": LinearRegression(), "sgd": SGDRegressor(random_state=0),
        "tree": DecisionTreeRegressor(random_state=0), "forest": RandomForestRegressor(7, random_state=0),
        "mlp": Perceptron(epochs=3),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(REGRESSORS) - {"mlp"}))
def test_predictions_are_scikit_learns(name: str) -> None:
    how = estimator(name)
    learned = scores.fit([example()], how)
    rows, _ = rows_and_targets()
    wanted = torch.as_tensor(how.predict(rows.numpy()))
    torch.testing.assert_close(learned.regressor.predict(rows), wanted, rtol=1e-12, atol=1e-12)
    other = torch.rand(500, 4, generator=torch.Generator().manual_seed(7)).double()
    wanted = torch.as_tensor(how.predict(other.numpy()))
    torch.testing.assert_close(learned.regressor.predict(other), wanted, rtol=1e-12, atol=1e-12)


def test_the_perceptron_is_that_of_the_thesis_and_learns() -> None:
    rows, wanted = rows_and_targets()
    learned = scores.fit([example()], "mlp")
    shapes = {n: tuple(t.shape) for n, t in learned.regressor.tensors.items()}
    assert shapes["weight0"] == (64, 4)
    assert shapes["weight1"] == (32, 64)
    assert shapes["weight2"] == (1, 32)
    assert len(shapes) == 6
    t = {n: v.double() for n, v in learned.regressor.tensors.items()}
    hidden = torch.relu(torch.relu(rows @ t["weight0"].t() + t["bias0"]) @ t["weight1"].t() + t["bias1"])
    direct = torch.sigmoid(hidden @ t["weight2"].t() + t["bias2"]).squeeze(1)
    torch.testing.assert_close(learned.regressor.predict(rows), direct)
    better = scores.fit([example()], Perceptron(lr=0.5, epochs=60, batch_size=16))
    errors = [float((r.regressor.predict(rows) - wanted).square().mean()) for r in (learned, better)]
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.3 * float(wanted.var())


@pytest.mark.parametrize("name", sorted(REGRESSORS))
def test_same_seed_same_score_and_the_global_generator_is_left_alone(name: str) -> None:
    how = name if name != "forest" else "tree"  # 100 trees take a second
    state = torch.get_rng_state()
    a, b = (scores.fit([example(60)], how, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, b.regressor.tensors[n]) for n, t in a.regressor.tensors.items())


@pytest.mark.parametrize("name", sorted(REGRESSORS))
def test_save_load_and_apply_to_another_network(name: str, tmp_path: Path) -> None:
    learned = scores.fit([example()], estimator(name))
    learned.save(tmp_path / "score.safetensors")
    back = Learned.load(tmp_path / "score.safetensors", features=FOUR)
    assert back.features == FOUR
    model, probe = made("residual")
    found, wanted = back(model, probe), learned(model, probe)
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)
    assert {n: v.shape for n, v in found.items()} == {n: w.values.shape for n, w in weights_of(model).items()}


def test_four_features_are_the_scores_each_scaled_to_the_unit_range() -> None:
    model, probe = made("mlp")
    found = torch.cat(list(features(model, probe).values()))
    for i, name in enumerate(FOUR):
        raw = torch.cat(list(scores.by_name(name)(model, probe).values())).double()
        torch.testing.assert_close(found[:, i], (raw - raw.min()) / (raw.max() - raw.min()))
    assert found.min(0).values.tolist() == [0] * 4
    assert found.max(0).values.tolist() == [1] * 4


@pytest.mark.parametrize("model_name", ["mlp", "residual"])
def test_ten_features_against_a_direct_computation(model_name: str) -> None:
    model, probe = made(model_name, dtype=torch.float64)
    model.eval()
    x = torch.cat([x for x, _ in probe.batches])
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name in weights_of(model):
        layer = model.get_submodule(name.removesuffix(".weight"))
        layer.register_forward_hook(
            lambda _, i, o, name=name: seen.update({name: (i[0].detach(), o.detach())})
        )
    model(x)
    raw: dict[str, list[float]] = {name: [] for name in TEN[4:]}
    for name, weight in weights_of(model).items():
        before, after = (t.transpose(0, 1).flatten(1) for t in seen[name])
        groups = getattr(model.get_submodule(name.removesuffix(".weight")), "groups", 1)
        dense = weight.dense().detach()
        for flat in weight.index.tolist():
            out, into = (int(i) for i in torch.unravel_index(torch.tensor(flat), dense.shape)[:2])
            into += out // (dense.shape[0] // groups) * dense.shape[1]
            raw["weight"].append(float(dense.flatten()[flat]))
            raw["layer-norm"].append(float(dense.norm()))
            raw["input-max"].append(float(before[into].max()))
            raw["output-max"].append(float(after[out].max()))
            raw["input-mean"].append(float(before[into].mean()))
            raw["output-mean"].append(float(after[out].mean()))
    found = torch.cat(list(features(model, probe, TEN).values()))
    for i, name in enumerate(TEN[4:], start=4):
        wanted = torch.tensor(raw[name], dtype=torch.float64)
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
        torch.testing.assert_close(found[:, i], wanted, rtol=1e-9, atol=1e-9)


def test_features_of_a_pruned_network_are_those_of_what_is_active() -> None:
    model, probe = made("mlp", dtype=torch.float64)
    pruned, _ = made("mlp", dtype=torch.float64)
    active = {n: torch.arange(w.nnz) % 2 == 0 for n, w in weights_of(model).items()}
    with torch.no_grad():
        for n, w in weights_of(pruned).items():
            w.values.mul_(active[n])
    names = ("input-max", "output-mean")
    found, wanted = features(model, probe, names, active=active), features(pruned, probe, names)
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_a_feature_that_is_the_same_everywhere_is_zero() -> None:
    assert unit_range({"a": torch.ones(3)})["a"].tolist() == [0.0] * 3
    with pytest.raises(InputError, match="NaN or infinite"):
        unit_range({"a": torch.tensor([1.0, torch.inf])})


def test_targets_are_the_tickets_scores_and_zero_elsewhere() -> None:
    model, probe = made("mlp", density=1.0)
    ticket, _ = made("mlp", density=1.0)
    for weight in weights_of(ticket).values():
        weight.replace(weight.index[::3], weight.values.detach()[::3] * 2)
    found, worth = scores.targets(model, ticket, probe), scores.synflow(ticket, probe)
    top = max(float(v.max()) for v in worth.values())
    for name, vector in found.items():
        torch.testing.assert_close(vector[::3], worth[name] / top)
        assert float(vector.sum()) == pytest.approx(float(vector[::3].sum()))


def test_a_score_learned_from_a_ticket_finds_it() -> None:
    """Where a feature holds the answer, the regressor finds it and the score orders as the target does."""
    model, probe = made("mlp", density=1.0)
    wanted = scores.targets(model, model, probe)  # the ticket is the whole network
    learned = scores.fit([Example(features(model, probe), wanted)], "linear")
    found = torch.cat(list(learned(model, probe).values()))
    torch.testing.assert_close(found, torch.cat(list(wanted.values())), atol=1e-9, rtol=1e-6)


# What goes wrong


def test_other_features(tmp_path: Path) -> None:
    learned = scores.fit([example(50, 10)], "linear", features=TEN)
    path = tmp_path / "ten.safetensors"
    learned.save(path)
    with pytest.raises(MismatchError, match=r"was trained on the features magnitude, .*output-mean, not on"):
        Learned.load(path, features=FOUR)
    with pytest.raises(MismatchError, match="was trained on 10 features, but 4 are named"):
        Learned(learned.regressor)
    with pytest.raises(MismatchError, match="was trained on 10 features, but got"):
        learned.regressor.predict(torch.zeros(3, 4))
    with pytest.raises(MismatchError, match=r"the rows of 'a' have shape \(25, 10\), but 4 features"):
        scores.fit([example(50, 10)])
    with pytest.raises(InputError, match="unknown feature 'magnitud': did you mean 'magnitude'"):
        features(made("mlp")[0], names=["magnitud"])
    with pytest.raises(InputError, match="one or more different names"):
        features(made("mlp")[0], names=["weight", "weight"])


def test_what_cannot_be_learned_from() -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        scores.fit([])
    with pytest.raises(InputError, match="unknown regressor 'lineer': did you mean 'linear'"):
        scores.fit([example()], "lineer")
    with pytest.raises(MismatchError, match="targets of 'a' do not line up"):
        scores.fit([Example({"a": torch.zeros(3, 4)}, {"a": torch.zeros(2)})])
    from sklearn.neighbors import KNeighborsRegressor

    with pytest.raises(InputError, match="a KNeighborsRegressor cannot become a score"):
        scores.fit([example()], KNeighborsRegressor())
    with pytest.raises(InputError, match="must be positive"):
        Perceptron(lr=0.0)


def test_tickets_that_do_not_belong_to_the_model() -> None:
    model, probe = made("mlp", density=0.3)
    with pytest.raises(MismatchError, match="connections that are no candidates"):
        scores.targets(model, made("mlp", density=0.9)[0], probe)
    with pytest.raises(MismatchError, match="sparse weights are not the model's"):
        scores.targets(model, made("residual")[0], probe)


def test_units_need_layers_and_batches() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = SparseWeight((2, 2), torch.arange(4), torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w().t()

    with pytest.raises(InputError, match="'w' belongs to no layer of regraft"):
        features(Bare(), Probe(batches=[(torch.ones(1, 2), torch.ones(1))]), ["input-max"])
    with pytest.raises(InputError, match="activation of units needs at least one batch"):
        features(made("mlp")[0], names=["input-max"])


GOOD = {"kind": "linear", "tensors": {"coef": torch.ones(2), "intercept": torch.zeros(1)}, "inputs": 2}
TREE = {
    "roots": torch.tensor([0]), "left": torch.tensor([1, -1, -1]), "right": torch.tensor([2, -1, -1]),
    "feature": torch.tensor([0, -2, -2]), "threshold": torch.zeros(3), "value": torch.arange(3.0),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kind": "forest"}, "unknown kind of regressor 'forest'"),
        ({"tensors": {}}, "they are called"),
        ({"tensors": {"coef": torch.ones(3), "intercept": torch.zeros(1)}}, "they have the shapes"),
        ({"kind": "trees"}, "they are called"),
        ({"kind": "trees", "tensors": {**TREE, "left": torch.tensor([0, -1, -1])}}, "does not come after"),
        ({"kind": "trees", "tensors": {**TREE, "right": torch.tensor([9, -1, -1])}}, "does not come after"),
        (
            {"kind": "trees", "tensors": {**TREE, "feature": torch.tensor([2, 0, 0])}},
            "feature that is not there",
        ),
        ({"kind": "trees", "tensors": {**TREE, "value": torch.zeros(2)}}, "differ in length"),
        ({"kind": "trees", "tensors": {**TREE, "left": torch.zeros(3)}}, "not whole numbers"),
        ({"kind": "mlp"}, "they are called"),
        (
            {"kind": "mlp", "tensors": {"weight0": torch.zeros(1, 3), "bias0": torch.zeros(1)}},
            "takes 2 inputs",
        ),
        (
            {"kind": "mlp", "tensors": {"weight0": torch.zeros(2, 2), "bias0": torch.zeros(2)}},
            "2 outputs, not one",
        ),
    ],
)
def test_arrays_that_are_no_regressor(change: dict[str, Any], fault: str) -> None:
    Regressor(**GOOD)
    with pytest.raises(InputError, match=fault):
        Regressor(**{**GOOD, **change})


def test_files_that_are_no_learned_score(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileError, match="cannot read"):
        Learned.load(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(FileError, match="cannot read"):
        Learned.load(path)
    tensors = {"coef": torch.ones(1), "intercept": torch.zeros(1)}

    def write(about: str, **changed: Tensor) -> None:
        save_file({**tensors, **changed}, path, {"regraft-learned-score": about})

    save_file(tensors, path)
    with pytest.raises(FileError, match="is no learned score"):
        Learned.load(path)
    for about in ("[]", "{", '{"format": 1}', '{"format": "1", "kind": "linear", "features": []}'):
        write(about)
        with pytest.raises(FileError, match="is no learned score"):
            Learned.load(path)
    write('{"format": 2, "kind": "linear", "features": ["magnitude"]}')
    with pytest.raises(FileError, match="newer format"):
        Learned.load(path)
    write('{"format": 1, "kind": "linear", "features": ["nonsense"]}')
    with pytest.raises(FileError, match="no usable learned score: unknown feature"):
        Learned.load(path)
    write('{"format": 1, "kind": "linear", "features": ["magnitude"]}', coef=torch.tensor([torch.nan]))
    with pytest.raises(FileError, match="NaN or infinite"):
        Learned.load(path)
    write('{"format": 1, "kind": "linear", "features": ["magnitude"]}')
    assert Learned.load(path).features == ("magnitude",)
