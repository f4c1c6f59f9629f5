"""Transformers are scored, pruned and evolved as other networks are; what attention means for each signal."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft import Topology, data, diagnose, models, prune, signals, sparsify
from regraft.evolve import METHODS
from regraft.evolve import method as method_by_name
from regraft.models.transformer import Attention
from regraft.probe import Probe
from regraft.scores.named import SCORES

CONTEXT, CLASSES = 6, 11


def gpt(density: float | None = None, layers: int = 2) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    name = f"gpt:{layers}-8-2"
    model = models.build(name, input_shape=(CONTEXT,), classes=CLASSES, activation="gelu", generator=g)
    return model if density is None else sparsify(model, density, generator=g)


def probe() -> Probe:
    g = torch.Generator().manual_seed(1)
    rows = torch.randint(0, CLASSES, (12, CONTEXT + 1), generator=g)
    return Probe(F.cross_entropy, [(rows[:, :-1].float(), rows[:, 1:])], generator=g)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_prunes_a_transformer_upfront(score: str) -> None:
    model = gpt()
    topology = prune.upfront(model, probe(), score=score, density=0.2, floor=1, generator=probe().generator)
    assert topology.nnz == round(0.2 * topology.size)
    assert len(topology) == 12  # six layers a block; not the head
    pruned = prune.apply(model, topology)
    assert bool(pruned(probe().batches[0][0]).isfinite().all())


def test_synflow_in_many_shots_leaves_no_layer_empty() -> None:
    with pytest.warns(prune.LayerCollapseWarning, match="block2"):
        prune.upfront(gpt(), probe(), score="synflow", density=0.05)
    kept = prune.upfront(gpt(), probe(), score="synflow", density=0.05, shots=10)
    assert min(layer.nnz for _, layer in kept.items()) > 0


def test_the_hessian_gradient_product_is_the_slope_of_the_gradient() -> None:
    model = gpt(0.5).double()
    part = Probe(F.cross_entropy, [(x, y) for x, y in probe().batches])
    product = signals.HessianGradient(temperature=1.0)(model, part)
    g = signals.gradient(model, part)
    weights = signals.weights_of(model)
    step = 1e-6
    slope = [
        signals.gradient(
            model, part, values={n: w.values.detach() + s * step * g[n] for n, w in weights.items()}
        )
        for s in (1, -1)
    ]
    for name in g:
        numeric = (slope[0][name] - slope[1][name]) / (2 * step)
        torch.testing.assert_close(numeric, product[name], rtol=1e-4, atol=1e-7)


def attend() -> nn.Module:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention(8, 2, causal=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x)  # type: ignore[no-any-return]

    return sparsify(Alone(), 0.6, allocate="uniform", generator=torch.Generator().manual_seed(0))


def test_query_key_and_value_share_the_flow_equally() -> None:
    model = attend()
    flow = signals.flow(model, Probe(input_shape=(5, 8)))
    weights = signals.weights_of(model)
    shares = {n: float((flow[n] * w.values.detach().abs()).sum()) for n, w in weights.items()}
    through = shares["attention.out.weight"]
    for part in ("query", "key", "value"):
        assert shares[f"attention.{part}.weight"] == pytest.approx(through / 3)


def test_what_flows_ends_where_query_key_or_value_does() -> None:
    model = attend()
    weight = model.attention.key.weight
    flow = signals.flow(
        model, Probe(input_shape=(5, 8)), values={
            n: torch.where(w.rows() < 4, 0.0, w.values.detach()) if w is weight else w.values.detach()
            for n, w in signals.weights_of(model).items()
        },
    )  # fmt: skip
    # the first head sees no keys: nothing of it reaches the output
    assert not bool(flow["attention.value.weight"][model.attention.value.weight.rows() < 4].any())
    assert bool(flow["attention.value.weight"][model.attention.value.weight.rows() >= 4].any())


def test_the_flow_of_a_deep_transformer_is_finite_and_sees_no_data() -> None:
    model = gpt(0.5, layers=12)
    found = signals.flow(model, Probe(input_shape=(CONTEXT,)))
    assert all(bool(v.isfinite().all()) and bool((v >= 0).all()) for v in found.values())
    swapped = gpt(0.5, layers=12)
    with torch.no_grad():
        swapped.token.weight.copy_(swapped.token.weight.flip(0))  # type: ignore[union-attr]
    again = signals.flow(swapped, Probe(input_shape=(CONTEXT,)))
    assert all(torch.allclose(found[n], again[n]) for n in found)


def test_connectivity_follows_paths_through_attention() -> None:
    model = gpt(0.1)
    found = diagnose.connectivity(model)
    assert not found.unreachable
    by_name = {layer.name: layer for layer in found.layers}
    assert all(0 < layer.effective <= layer.kept for layer in by_name.values())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_evolves_a_transformer(method: str) -> None:
    model = gpt(0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    evolver = method_by_name(method, every=2, total=12, generator=torch.Generator().manual_seed(0))
    evolver.attach(model, optimizer)
    before, (x, y) = Topology.of(model), probe().batches[0]
    for _ in range(8):
        optimizer.zero_grad()
        with evolver.watch():
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        evolver.step()
    after = Topology.of(model)
    assert before.nnz == after.nnz
    assert (before == after) == (method == "static")
    assert bool(model(x).isfinite().all())


def test_a_transformer_is_pruned_in_rounds() -> None:
    text = data.load(f"text:context={CONTEXT},characters=2000")

    def make() -> nn.Module:
        g = torch.Generator().manual_seed(0)
        return models.build("gpt:1-8-2", input_shape=(CONTEXT,), classes=text.classes, generator=g)

    def train(model: nn.Module, start: int, stop: int | None) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(start, 3 if stop is None else stop):
            optimizer.zero_grad()
            F.cross_entropy(model(text.train.x), text.train.y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    ticket = prune.iterative(make, train, density=0.2, rounds=2, rewind_to=0, floor=1)
    assert ticket.topology.nnz == round(0.2 * ticket.topology.size)
    start, values = make(), dict(ticket.model.named_parameters())
    assert torch.equal(values["token.weight"], start.token.weight)  # type: ignore[arg-type]
