"""Sparse models under torch.func, torch.compile, autocast, optimizers, and torch's own composite modules."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import regraft
from regraft.errors import InputError
from regraft.evolve import GROWS


def mlp(seed=0, dtype=torch.float64, density=0.4):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    return regraft.sparsify(made, density, generator=torch.Generator().manual_seed(seed))


def dense_loss(index, shapes, parameters, x):
    """The same network written with dense tensors only, as a function of the flat values."""
    w0, b0, w2, b2 = (
        torch.zeros(shapes[0], dtype=x.dtype).flatten().index_put((index[0],), parameters["0.weight.values"]),
        parameters["0.bias"],
        torch.zeros(shapes[1], dtype=x.dtype).flatten().index_put((index[1],), parameters["2.weight.values"]),
        parameters["2.bias"],
    )
    h = torch.tanh(x @ w0.view(shapes[0]).T + b0)
    return (h @ w2.view(shapes[1]).T + b2).pow(2).mean()


@pytest.fixture
def functions():
    """(parameters, x, loss of the sparse model, the same of dense tensors)"""
    model = mlp()
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    index = (model[0].weight.index, model[2].weight.index)

    def sparse(parameters, x):
        return functional_call(model, parameters, (x,)).pow(2).mean()

    def dense(parameters, x):
        return dense_loss(index, ((8, 6), (3, 8)), parameters, x)

    return parameters, torch.randn(5, 6, dtype=torch.float64), sparse, dense


def close(a, b):
    torch.testing.assert_close(a, b)


def test_grad(functions):
    parameters, x, sparse, dense = functions
    close(grad(sparse)(parameters, x), grad(dense)(parameters, x))


def test_per_sample_gradients_by_vmap(functions):
    parameters, x, sparse, _ = functions
    batched = vmap(grad(sparse), in_dims=(None, 0))(parameters, x.unsqueeze(1))
    for i in range(len(x)):
        one = grad(sparse)(parameters, x[i : i + 1])
        close({n: g[i] for n, g in batched.items()}, one)


def test_an_ensemble_by_vmap_over_values(functions):
    parameters, x, sparse, dense = functions
    many = {n: torch.stack([p, 2 * p, -p]) for n, p in parameters.items()}
    got = vmap(sparse, in_dims=(0, None))(many, x)
    close(got, torch.stack([dense({n: p[i] for n, p in many.items()}, x) for i in range(3)]))


# torch's own forward-mode rules are scripted on first use
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_jvp_and_hessian(functions):
    parameters, x, sparse, dense = functions
    tangent = {n: torch.randn_like(p) for n, p in parameters.items()}
    for got, expected in zip(
        jvp(lambda p: sparse(p, x), (parameters,), (tangent,)),
        jvp(lambda p: dense(p, x), (parameters,), (tangent,)),
        strict=True,
    ):
        close(got, expected)
    close(hessian(sparse)(parameters, x), hessian(dense)(parameters, x))


def test_hessian_vector_product_by_double_backward(functions):
    parameters, x, sparse, dense = functions
    leaves = {n: p.clone().requires_grad_() for n, p in parameters.items()}

    def product(f):
        first = torch.autograd.grad(f(leaves, x), list(leaves.values()), create_graph=True)
        return torch.autograd.grad(sum((g * g).sum() for g in first), list(leaves.values()))

    close(product(sparse), product(dense))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_graph_breaks_and_after_rewiring(backend):
    torch._dynamo.reset()
    model = mlp(dtype=torch.float32)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x = torch.randn(5, 6)
    for _ in range(2):
        expected = torch.autograd.grad(model(x).pow(2).sum(), list(model.parameters()))
        got = torch.autograd.grad(compiled(x).pow(2).sum(), list(model.parameters()))
        close(compiled(x), model(x))
        close(got, expected)
        model[0].weight.replace(torch.arange(20, 30), torch.randn(10))


def evolved(grow, *, wrap=lambda model: model, run=lambda model, x: model(x), dtype=torch.float64):
    """A model after eighteen steps and six changes of topology."""
    model = mlp(dtype=dtype)
    forward = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    evolver = regraft.Evolve("magnitude", grow, 0.4, every=3, generator=generator).attach(forward, optimizer)
    batches = torch.Generator().manual_seed(2)
    for _ in range(18):
        x = torch.randn(5, 6, generator=batches, dtype=dtype)
        optimizer.zero_grad()
        with evolver.watch():
            run(forward, x).float().pow(2).mean().backward()
        optimizer.step()
        evolver.step()
    assert [done.total for done in evolver.history] == [11] * 6
    return model


def assert_alike(model, expected, **tolerance):
    assert regraft.Topology.of(model) == regraft.Topology.of(expected) != regraft.Topology.of(mlp())
    for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, **tolerance)


@pytest.mark.parametrize("grow", GROWS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_evolves_and_is_compiled_once(backend, grow):
    """Also under rules that watch gradients, which compiled graphs do not show."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = evolved(grow, wrap=lambda model: torch.compile(model, backend=counter, fullgraph=True))
    assert counter.frame_count == 1
    assert_alike(compiled, evolved(grow))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("grow", ["gradient", "inner-product"])
def test_activation_checkpointing_grows_the_same(grow, reentrant):
    def recomputed(model, x):
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    assert_alike(evolved(grow, run=recomputed), evolved(grow))


@pytest.mark.parametrize("grow", GROWS)
def test_evolves_in_bfloat16_by_autocast_and_whole(grow):
    def autocast(model, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x)

    assert {p.dtype for p in evolved(grow, run=autocast, dtype=torch.float32).parameters()} == {torch.float32}
    whole = evolved(grow, dtype=torch.bfloat16)
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    assert whole[0].weight.index.dtype == torch.int64


def test_a_convolution_grows_by_gradient_under_autocast():
    model = regraft.sparsify(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), 0.3)
    evolver = regraft.Evolve("magnitude", "gradient", 0.3, every=1).attach(model)
    with evolver.watch(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 2, 8, 8)).float().square().mean().backward()
    assert evolver.step().total > 0


def test_a_loader_with_workers_changes_nothing():
    data = TensorDataset(torch.randn(40, 6, dtype=torch.float64), torch.randint(3, (40,)))

    def trained(workers):
        shuffle = torch.Generator().manual_seed(4)
        loader = DataLoader(data, 8, shuffle=True, num_workers=workers, generator=shuffle)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        evolver = regraft.Evolve(every=len(loader), total=3 * len(loader)).attach(model, optimizer)
        for _ in range(3):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                evolver.step()
        assert len(evolver.history) == 2
        return model

    assert_alike(trained(2), trained(0), rtol=0, atol=0)


def test_the_clipped_norm_is_the_norm_over_connections_and_biases():
    model = mlp()
    dense = regraft.densify(copy.deepcopy(model))
    masks = [model[i].weight.dense(torch.ones_like(model[i].weight.values)) for i in (0, 2)]
    x = torch.randn(5, 6, dtype=torch.float64)
    for one in (model, dense):
        (one(x) * 1e3).sum().backward()
    for layer, mask in zip((dense[0], dense[2]), masks, strict=True):
        layer.weight.grad.mul_(mask)
    norms = [nn.utils.clip_grad_norm_(one.parameters(), 1.0) for one in (model, dense)]
    close(*norms)
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    close(grads.norm().item(), 1.0)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="fully_shard of torch 2.6 needs a GPU")
def test_weights_split_by_fsdp_train_but_do_not_evolve(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = mlp()
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = model(x)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/one", rank=0, world_size=1)
    try:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with pytest.raises(
            InputError, match=r"'0.weight' is split over processes .* DistributedDataParallel"
        ):
            regraft.Evolve().attach(model, optimizer)
        close(model(x), expected)
    finally:
        torch.distributed.destroy_process_group()


def test_compiles_a_convolution():
    torch._dynamo.reset()
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(4, 4, 3)
    )
    regraft.sparsify(model, 0.5)
    x = torch.randn(2, 2, 6, 6)
    close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_exports_to_a_graph_of_plain_operations():
    model = mlp(dtype=torch.float32).eval()
    x = torch.randn(5, 6)
    exported = torch.export.export(model, (x,))
    close(exported.module()(x), model(x))


@pytest.mark.parametrize("device_type", ["cpu"])
def test_autocast_trains_in_bfloat16(device_type):
    model = mlp(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(20, 6), torch.randint(3, (20,))
    losses = []
    for _ in range(20):
        with torch.autocast(device_type, dtype=torch.bfloat16):
            out = model(x)
            loss = nn.functional.cross_entropy(out.float(), y)
        assert out.dtype == torch.bfloat16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.Adam(p, 0.01),
        lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    ],
)
def test_an_optimizer_moves_the_values_as_it_would_dense_weights_under_a_mask(make):
    """Ten steps on the values equal ten steps on a dense weight whose gradient is masked."""
    sparse = mlp(density=0.4)
    dense = regraft.densify(copy.deepcopy(sparse))
    masks = {
        f"{i}.weight": sparse[i].weight.dense(torch.ones_like(sparse[i].weight.values)).bool() for i in (0, 2)
    }
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randint(3, (20,))
    for model in (sparse, dense):
        optimizer = make(model.parameters())
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            if model is dense:
                for name, p in dense.named_parameters():
                    if name in masks:
                        p.grad.mul_(masks[name])
            optimizer.step()
    for i in (0, 2):
        close(sparse[i].weight.dense(), dense[i].weight * masks[f"{i}.weight"])
    state = optimizer.state
    assert {s.numel() for s in state[dense[0].weight].values() if s.numel() > 1} == {48}


def test_clipping_and_flat_parameters_see_the_sparse_values():
    model = mlp(dtype=torch.float32)
    (model(torch.randn(5, 6)) * 1e3).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    flat = nn.utils.parameters_to_vector(model.parameters())
    assert flat.numel() == regraft.Topology.of(model).nnz + 11
    nn.utils.vector_to_parameters(torch.zeros_like(flat), model.parameters())
    assert model[0].weight.values.abs().sum() == 0


def test_exponential_moving_average_of_a_sparse_model():
    model = mlp(dtype=torch.float32)
    average = torch.optim.swa_utils.AveragedModel(model)
    before = model[0].weight.values.detach().clone()
    average.update_parameters(model)
    with torch.no_grad():
        model[0].weight.values.add_(2.0)
    average.update_parameters(model)
    close(average.module[0].weight.values.detach(), before + 1.0)


@pytest.mark.parametrize("training", [True, False])
def test_transformer_layers_compute_the_same_when_sparse(training):
    """In evaluation torch's transformer takes a fast path that reads ``linear1.weight`` itself."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    regraft.sparsify(model, 1.0, include="*linear*")
    reference = regraft.densify(copy.deepcopy(model))
    x = torch.randn(3, 5, 8)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(model.train(training)(x), reference.train(training)(x))


def test_a_torch_function_given_the_weight_works_on_the_dense_one():
    model = mlp()
    weight, x = model[0].weight, torch.randn(5, 6, dtype=torch.float64)
    y = nn.functional.linear(x, weight, bias=model[0].bias)
    close(y, model[0](x))
    y.sum().backward()
    assert weight.values.grad is not None
    close(torch.linalg.matrix_norm(weight), torch.linalg.matrix_norm(weight.dense()))
