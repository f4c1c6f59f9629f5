"""Files of networks: whole, in slices, built again, loaded into a model, merged; checkpoints and states."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import regraft
from regraft import checkpoint, models, positions, sparsify
from regraft.cli.dataset import choose_data
from regraft.cli.ticket import Compared
from regraft.data import Data, Split
from regraft.errors import RegraftError
from regraft.federated import state as federation
from regraft.files import Header, NetworkFile, read_network, write_network
from regraft.merging import Merger
from regraft.prune import rounds
from regraft.scores import learned
from regraft.scores.regressors import Regressor
from regraft.train import Checkpoint, checkpoints, fit

from . import containers
from .target import Target, require


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _model(spec: str, density: float | None, seed: int = 0, **options: Any) -> nn.Module:
    model = models.build(spec, generator=_generator(seed), **options)
    return model if density is None else sparsify(model, density=density, generator=_generator(seed))


def _saved(model: nn.Module, **provenance: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        regraft.save(model, Path(folder, "n"), provenance=provenance)
        return Path(folder, "n").read_bytes()


@functools.cache
def corpus() -> tuple[bytes, ...]:
    """Perceptrons, a convolution, a model of its author's own, other types, no connections."""
    own = sparsify(
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        density=0.5,
        generator=_generator(),
    )
    nothing = _model("mlp:4-3-2", 0.5)
    nothing.get_submodule("fc1").weight.replace(torch.empty(0, dtype=torch.int64), torch.empty(0))  # type: ignore[union-attr,operator]
    return (
        _saved(_model("mlp:6-8-3", 0.3), data={"name": "digits", "seed": 0}, accuracy=0.9),
        _saved(_model("mlp:6-8-3", 0.3, 1), from_=["a", None, {"b": 1.5}]),
        _saved(_model("mlp:5-4-4-2", None, dropout=0.1, activation="tanh")),
        _saved(_model("mlp:6-5-3", 0.4).double()),
        _saved(_model("mlp:6-5-3", 0.4).bfloat16()),
        _saved(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))),
        _saved(own),
        _saved(nothing),
    )  # fmt: skip


def _networks(rng: random.Random) -> bytes:
    return containers.changed(rng, corpus(), "regraft")


def _placed(data: bytes, folder: Path, name: str = "n.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _check_tensors(tensors: dict[str, Tensor], header: Header) -> None:
    for name, tensor in tensors.items():
        require(not tensor.is_floating_point() or bool(tensor.isfinite().all()), f"'{name}' is not finite")
    for name, shape in header.shapes.items():
        index, values = tensors[f"{name}.index"], tensors[f"{name}.values"]
        require(index.dtype == torch.int64 and index.shape == values.shape, f"'{name}' has odd entries")
        positions.check(index, positions.numel(shape))


def _whole(data: bytes, folder: Path) -> None:
    path = _placed(data, folder)
    tensors, header = read_network(path)
    try:
        _check_tensors(tensors, header)
        write_network(folder / "again", tensors, header)
        again, its = read_network(folder / "again")
    except RegraftError as error:
        raise AssertionError("what was read cannot be written") from error
    require(its.shapes == header.shapes and its.model == header.model, "the header changed")
    require(list(again) == list(tensors), "the names changed")
    require(
        all(torch.equal(t, again[n]) and t.dtype == again[n].dtype for n, t in tensors.items()),
        "numbers changed",
    )


def _slices(case: tuple[bytes, int], folder: Path) -> None:
    data, step = case
    with NetworkFile(_placed(data, folder)) as file:
        require(sum(e.nbytes for e in file.entries.values()) <= len(data), "more numbers than bytes")
        require(all(n >= 0 for n in file.nnz.values()) and set(file.plain) <= set(file.entries), "odd names")
        for name, entry in file.entries.items():
            parts = [
                file.read_slice(name, at, min(at + step, entry.numel)) for at in range(0, entry.numel, step)
            ]
            if file.is_index(name):
                joined = torch.cat([p.long() for p in parts]) if parts else torch.empty(0, dtype=torch.int64)
                require(bool((joined[1:] > joined[:-1]).all()), "positions do not increase over slices")
            whole = file.read(name)
            require(whole.numel() == sum(p.numel() for p in parts), "slices and whole differ in length")


def _built(data: bytes, folder: Path) -> None:
    path = _placed(data, folder)
    model = regraft.load(path)
    try:
        header = checkpoint.read_header(path)
        regraft.save(model, folder / "again", provenance=header.provenance)
        again = regraft.load(folder / "again")
    except RegraftError as error:
        raise AssertionError("what was loaded cannot be saved") from error
    state, other = model.state_dict(), again.state_dict()
    require(state.keys() == other.keys(), "the names changed")
    require(all(torch.equal(t, other[n]) for n, t in state.items()), "numbers changed")


@functools.cache
def _into_models() -> tuple[nn.Module, ...]:
    return (
        _model("mlp:6-8-3", None), _model("mlp:6-8-3", 0.2, 7), _model("mlp:5-4-4-2", 0.5),
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    )  # fmt: skip


def _into(case: tuple[bytes, int], folder: Path) -> None:
    data, which = case
    models_here = _into_models()
    number = which % len(models_here)
    model = models_here[number]
    before = {n: t.clone() for n, t in model.state_dict().items()}
    try:
        regraft.load(_placed(data, folder), into=model)
    except RegraftError:
        now = model.state_dict()
        require(now.keys() == before.keys(), "a refused file changed the model's names")
        require(all(torch.equal(now[n], t) for n, t in before.items()), "a refused file changed the model")
        raise
    _into_models.cache_clear()
    torch.manual_seed(0)


def _merged(case: tuple[bytes, int], folder: Path) -> None:
    """With a good file, or with itself: of any shapes then."""
    data, other = case
    path, out = _placed(data, folder), folder / "out.safetensors"
    out.unlink(missing_ok=True)
    good = _placed(corpus()[0], folder, "good.safetensors")
    try:
        regraft.merge_files([good if other == 1 else path, path], out, generator=_generator())
    except RegraftError:
        require(not out.exists(), "a refused merge left a file")
        raise
    _check_tensors(*read_network(out))


def _shown(data: bytes, folder: Path) -> None:
    from click.testing import CliRunner

    from regraft.cli.app import cli

    result = CliRunner().invoke(cli, ["inspect", str(_placed(data, folder))])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    require(result.exit_code == 0, f"exit code {result.exit_code}")


@functools.cache
def _training() -> tuple[tuple[bytes, ...], Any]:
    """Checkpoints of a short run, and the run."""
    x = torch.rand(12, 4, generator=_generator())
    part = Split(x, torch.arange(12) % 3)
    data = Data("toy", part, part, ("a", "b", "c"))
    found: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in (torch.optim.SGD, torch.optim.Adam):
            model = _model("mlp:4-5-3", 0.5)
            optimizer = kind(model.parameters(), lr=0.1)
            keeper = _Keeper(folder)
            fit(model, data, epochs=1, batch_size=5, optimizer=optimizer, callbacks=[keeper])
            found.append(keeper.path.read_bytes())
            keeper.path.unlink()
    return tuple(found), keeper.run


class _Keeper(Checkpoint):
    run: Any = None

    def on_start(self, run: Any) -> None:
        super().on_start(run)
        self.run = run


def _checkpoint(data: bytes, folder: Path) -> None:
    config, state = checkpoints.read(_placed(data, folder))
    require(isinstance(config, dict) and isinstance(state, dict), "config and state are no dicts")


def _resumed(data: bytes, folder: Path) -> None:
    run = _training()[1]
    checkpoints.restore(run, _placed(data, folder))
    counters = run.epoch, run.batch, run.step
    require(all(type(n) is int and n >= 0 for n in counters), f"the counters are {counters}")
    for name, module in run.model.named_modules():
        if hasattr(module, "index"):
            positions.check(module.index, module.size, name)
            require(module.index.shape == module.values.shape, "entries differ in length")
    for group in run.optimizer.param_groups:
        require(all(isinstance(p, nn.Parameter) for p in group["params"]), "odd parameters")


@functools.cache
def _scores() -> tuple[bytes, ...]:
    generator = _generator()
    rand = functools.partial(torch.rand, generator=generator, dtype=torch.float64)
    trees = {
        "roots": torch.tensor([0, 3]), "left": torch.tensor([1, -1, -1, -1]), "right": torch.tensor([2, -1,
        -1, -1]),
        "feature": torch.tensor([1, -2, -2, -2]), "threshold": rand(4), "value": rand(4),
    }  # fmt: skip
    mlp = {"weight0": rand(3, 4), "bias0": rand(3), "weight1": rand(1, 3), "bias1": rand(1)}
    kinds = (
        Regressor("linear", {"coef": rand(4), "intercept": rand(1)}, 4), Regressor("trees", trees, 4),
        Regressor("mlp", mlp, 4),
    )  # fmt: skip
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for regressor in kinds:
            learned.Learned(regressor).save(Path(folder, "s"))
            found.append(Path(folder, "s").read_bytes())
    return tuple(found)


def _score(data: bytes, folder: Path) -> None:
    score = learned.Learned.load(_placed(data, folder))
    rows = torch.rand(7, len(score.features), generator=_generator(), dtype=torch.float64)
    require(score.regressor.predict(rows).shape == (7,), "not one prediction for each row")


CONFIG = {"score": "magnitude", "density": 0.5, "rounds": 2}


@functools.cache
def _rounds() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        saved = rounds.Saved(folder, CONFIG, (_generator(), None))
        model = _model("mlp:4-5-3", 0.5)
        topology = regraft.Topology.of(model)
        row = rounds.Round(1, 1.0, 0.5, 0.5, {n: c.nnz for n, c in topology.items()})
        saved.save(rounds.State(model, _model("mlp:4-5-3", None), topology, [row]))
        return (Path(folder, rounds.FILE).read_bytes(),)


def _resumed_rounds(data: bytes, folder: Path) -> None:
    _placed(data, folder, rounds.FILE)
    saved = rounds.Saved(folder, CONFIG, (_generator(), None))
    state = saved.load(_model("mlp:4-5-3", None), rewinds=True)
    assert state is not None
    require(regraft.Topology.of(state.model) == state.topology, "the model has another topology")
    require(all(type(r.number) is int for r in state.history), "a round has no number")


FEDERATION = {"clients": 3, "seed": 0}


@functools.cache
def _federations() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        history = [{"round": 0, "accepted": {"a": 10}, "bytes": 100}]
        path = federation.save(federation.State(_model("mlp:4-5-3", 0.5), None, history), folder, FEDERATION)
        return (path.read_bytes(),)


def _federation(data: bytes, folder: Path) -> None:
    _placed(data, folder, "round-000001.safetensors")
    state = federation.load(folder, _model("mlp:4-5-3", 0.5), FEDERATION)
    require(state.round == len(state.history), "the round is not the history's")


@functools.cache
def _mergers() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        merger = Merger(generator=_generator())
        for seed in (0, 1):
            merger.add(_model("mlp:4-5-3", 0.5, seed))
        merger.save(Path(folder, "m"))
        return (Path(folder, "m").read_bytes(),)


def _merger(data: bytes, folder: Path) -> None:
    merger = Merger.load(_placed(data, folder))
    require(len(merger) > 0, "a merger of nothing")
    merger.write(folder / "out")
    _check_tensors(*read_network(folder / "out"))


def _origin(data: bytes, folder: Path) -> None:
    """What commands ask a file about where it comes from."""
    path = _placed(data, folder)
    found = Compared.read(path)
    require(isinstance(found._drawn(), dict | None), "odd options")
    dataset = choose_data(None, {}, found.header, path)
    require(isinstance(dataset.name, str) and isinstance(dataset.seed, int), "an odd data set")
    require(isinstance(dataset.per_class, int | None), "an odd number of samples")


@functools.cache
def _origins() -> tuple[bytes, ...]:
    drawn = {"made_by": "regraft prune", "options": {"seed": 1, "init": ["he"], "control": None}}
    data = {"name": "digits", "classes": ["0", "1"], "per_class": 5, "test_per_class": None, "seed": 0}
    model = _model("mlp:6-8-3", 0.3)
    return _saved(model, data=data, **drawn), _saved(
        model, data=data, parents=[{"file": "x", "provenance": drawn}]
    )


def _of(seeds: Callable[[], tuple[bytes, ...]], key: str) -> Callable[[random.Random], bytes]:
    return lambda rng: containers.changed(rng, seeds(), key)


def _with_number(most: int) -> Callable[[random.Random], tuple[bytes, int]]:
    return lambda rng: (_networks(rng), rng.randint(1, most))


GROUP = "network files"
TARGETS = (
    Target("network", GROUP, 145_000, _networks, _whole),
    Target("network-slices", GROUP, 40_000, _with_number(9), _slices),
    Target("network-built", GROUP, 50_000, _networks, _built),
    Target("network-into", GROUP, 30_000, _with_number(4), _into),
    Target("network-merged", GROUP, 10_000, _with_number(2), _merged),
    Target("merger", GROUP, 10_000, _of(_mergers, "regraft"), _merger),
    Target("origin", GROUP, 10_000, _of(_origins, "regraft"), _origin),
    Target("inspect", GROUP, 5_000, _networks, _shown),
    Target("checkpoint", GROUP, 60_000, _of(lambda: _training()[0], checkpoint.TRAINING), _checkpoint),
    Target("checkpoint-resumed", GROUP, 20_000, _of(lambda: _training()[0], checkpoint.TRAINING), _resumed),
    Target("pruning-rounds", GROUP, 15_000, _of(_rounds, "regraft"), _resumed_rounds),
    Target("federation-state", GROUP, 15_000, _of(_federations, "regraft"), _federation),
    Target("learned-score", GROUP, 35_000, _of(_scores, learned.KEY), _score),
)
