"""The surgery: which layers, how many connections, what the new layers inherit, and the way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

import regraft
from regraft import SparseConv2d, SparseLinear, Topology, densify, sparsify
from regraft.errors import InputError, MismatchError
from regraft.layers import sparse_layers, sparsifiable


class Net(nn.Module):
    """A little of everything: convolutions, norms, nested modules, a head, a layer without weights."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3))
        self.body = nn.ModuleDict({"fc": nn.Linear(8 * 4 * 4, 20)})
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        x = torch.relu(self.features(x)).flatten(1)
        return self.head(torch.relu(self.body["fc"](x)))


SIZES = {"features.0": 54, "features.3": 432, "body.fc": 2560, "head": 100}


def mlp():
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def counts(model):
    return {n.removesuffix(".weight"): c.nnz for n, c in Topology.of(model).items()}


def test_in_place_with_the_exact_number_of_connections():
    model = Net()
    assert sparsify(model, 0.1) is model
    assert sum(counts(model).values()) == round(0.1 * sum(SIZES.values()))
    assert isinstance(model.features[0], SparseConv2d)
    assert isinstance(model.head, SparseLinear)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 5)


@given(st.floats(0.05, 1.0), st.sampled_from(sorted(regraft.allocate.ALLOCATIONS)), st.integers(0, 99))
def test_any_density_and_allocation(density, allocate, seed):
    generator = torch.Generator().manual_seed(seed)
    model = sparsify(mlp(), density, allocate=allocate, generator=generator)
    assert Topology.of(model).nnz == round(density * 900)


def test_values_are_the_dense_ones_and_full_density_changes_nothing():
    model = Net().eval()
    x = torch.randn(2, 1, 8, 8)
    before, dense = model(x), {n: p.detach().clone() for n, p in model.named_parameters()}
    sparsify(model, 1.0)
    torch.testing.assert_close(model(x), before)
    for name, layer in sparse_layers(model).items():
        assert torch.equal(layer.weight.dense(), dense[f"{name}.weight"])
        assert torch.equal(layer.bias, dense[f"{name}.bias"])


def test_epsilon_is_thesis_three():
    model = nn.Sequential(
        nn.Linear(784, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 10)
    )
    sparsify(model, epsilon=20)
    assert list(counts(model).values()) == [35_680, 40_000, 40_000, 10_000]
    assert sum(p.numel() for p in model.parameters()) == 128_690


def test_a_function_of_the_users_own_allocates():
    model = sparsify(mlp(), 0.5, allocate=lambda shapes, density: [7 for _ in shapes])
    assert counts(model) == {"0": 7, "2": 7}


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        ("*", (), {"features.0", "features.3", "body.fc", "head"}),
        ("features*", (), {"features.0", "features.3"}),
        (["*.fc", "head"], (), {"body.fc", "head"}),
        ("*", "head", {"features.0", "features.3", "body.fc"}),
        ("*", ["head*", "*.0"], {"features.3", "body.fc"}),
    ],
)
def test_patterns_choose_layers_by_module_name(include, exclude, chosen):
    assert set(sparsifiable(Net(), include, exclude)) == chosen
    model = sparsify(Net(), 0.5, include=include, exclude=exclude)
    assert set(sparse_layers(model)) == chosen
    assert sum(counts(model).values()) == round(0.5 * sum(SIZES[n] for n in chosen))


def test_same_seed_same_topology():
    def draw(seed):
        return Topology.of(sparsify(mlp(), 0.2, generator=torch.Generator().manual_seed(seed)))

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_positions_are_drawn_from_the_generator_alone():
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    sparsify(mlp_ := mlp(), 0.2, generator=torch.Generator().manual_seed(3))
    drawn = Topology.of(mlp_)
    torch.random.set_rng_state(state)
    torch.rand(5)
    assert Topology.of(sparsify(mlp(), 0.2, generator=torch.Generator().manual_seed(3))) == drawn


def test_a_given_topology_is_taken():
    source = sparsify(mlp(), 0.2)
    model = sparsify(mlp(), topology=Topology.of(source))
    assert Topology.of(model) == Topology.of(source)
    only_head = Topology({"2.weight": ((10, 30), torch.tensor([5, 6]))})
    partly = sparsify(mlp(), topology=only_head)
    assert Topology.of(partly) == only_head
    assert type(partly[0]) is nn.Linear


def test_rescaling_keeps_the_variance_of_a_wide_layer():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(2000, 500, bias=False))
    x = torch.randn(200, 2000)
    expected = float(dense(x).detach().std())
    generator = torch.Generator().manual_seed(0)
    sparsify(dense, 0.05, init="rescale", generator=generator)
    assert float(dense(x).detach().std()) == pytest.approx(expected, rel=0.05)


def test_trainability_mode_and_hooks_are_inherited():
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    model.eval()
    seen = []
    handle = model[2].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    model[0].register_forward_pre_hook(lambda m, a, kwargs: seen.append(m), with_kwargs=True)
    sparsify(model, 0.5)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"0.bias", "2.weight.values"}
    assert not model[0].training
    model(torch.randn(1, 20))
    assert [type(entry) for entry in seen] == [SparseLinear, type]
    densify(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"0.bias", "2.weight"}
    handle.remove()
    del seen[:]
    model(torch.randn(1, 20))
    assert len(seen) == 1, "the handle that the caller holds still removes its hook"


def test_backward_hooks_are_inherited():
    model = mlp()
    seen = []
    model[2].register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(grad_in[0].shape))
    sparsify(model, 0.5)
    model(torch.randn(3, 20)).sum().backward()
    assert seen == [(3, 30)]


def test_the_way_back_computes_the_same_and_leaves_no_trace():
    model = sparsify(Net(), 0.2).eval()
    x = torch.randn(2, 1, 8, 8)
    expected, names = model(x), {n for n, _ in Net().named_parameters()}
    assert densify(model) is model
    torch.testing.assert_close(model(x), expected)
    assert {n for n, _ in model.named_parameters()} == names
    assert not sparse_layers(model)
    sparsify(model, 0.1)
    assert model(x).shape == (2, 5)


def test_densify_leaves_a_dense_model_alone():
    model = mlp()
    layers = list(model)
    assert list(densify(model)) == layers


def test_a_module_registered_twice_stays_one():
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    sparsify(model, 0.5)
    assert model[0] is model[2]
    assert isinstance(model[0], SparseLinear)
    densify(model)
    assert model[0] is model[2]
    assert type(model[0]) is nn.Linear


def test_a_parameter_shared_by_two_modules_is_refused_unless_left_out():
    model = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 6)})
    model["b"].weight = model["a"].weight
    with pytest.raises(InputError, match="'a' and 'b' share one parameter: exclude both"):
        sparsify(model, 0.5)
    assert not sparse_layers(model)
    assert set(sparse_layers(sparsify(model, 0.5, exclude=["a", "b"]))) == {"c"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of density=, epsilon= and topology="),
        ({"density": 0.1, "epsilon": 20}, "exactly one of density=, epsilon= and topology="),
        ({"density": 0.0}, r"density is 0.0, but must be in \(0, 1\]"),
        ({"density": 1.5}, r"density is 1.5, but must be in \(0, 1\]"),
        ({"density": float("nan")}, r"density is nan, but must be in \(0, 1\]"),
        ({"epsilon": -1}, "epsilon is -1, but must be a positive number"),
        ({"density": 0.1, "allocate": "unifrom"}, "unknown allocation 'unifrom': did you mean 'uniform'"),
        ({"density": 0.1, "init": "kep"}, "init is 'kep', but must be 'keep' or 'rescale'"),
        (
            {"density": 0.1, "include": "conv*"},
            r"the pattern 'conv\*' matches no module; the modules are: '0'",
        ),
        ({"density": 0.1, "exclude": ["haed"]}, "the pattern 'haed' matches no module"),
        ({"density": 0.1, "exclude": "*"}, "no layer of the Sequential can be made sparse"),
        (
            {"density": 0.0005},
            r"layer '0' of shape \(30, 20\) would get no connection at density 0.0005: raise it",
        ),
        ({"epsilon": 0.001}, "layer '0' .* would get no connection at epsilon 0.001: raise it"),
        ({"density": 0.5, "allocate": lambda shapes, d: [1]}, "gave 1 counts for 2 layers"),
        (
            {"density": 0.5, "allocate": lambda shapes, d: [1, 301]},
            "layer '2' has 300 positions, too few for 301 connections",
        ),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_the_model_alone(options, message):
    model = mlp()
    layers = list(model)
    with pytest.raises(InputError, match=message):
        sparsify(model, **options)
    assert list(model) == layers


def test_a_topology_of_another_model_is_refused():
    with pytest.raises(MismatchError, match=r"'0.weight' has shape \(3, 4\), but the model's has \(30, 20\)"):
        sparsify(mlp(), topology=Topology({"0.weight": ((3, 4), torch.tensor([1]))}))
    with pytest.raises(MismatchError, match=r"the weight 'x.weight', but the model has no such dense layer"):
        sparsify(mlp(), topology=Topology({"x.weight": ((3, 4), torch.tensor([1]))}))


def test_a_layer_alone_cannot_be_swapped_in_place():
    with pytest.raises(InputError, match=r"wrap a single layer in nn\.Sequential"):
        sparsify(nn.Linear(4, 4), 0.5)
    with pytest.raises(InputError, match=r"to_dense\(\)"):
        densify(SparseLinear.from_dense(nn.Linear(4, 4), torch.tensor([0])))


def test_twice_is_refused_and_the_rest_may_follow():
    model = sparsify(mlp(), 0.5)
    with pytest.raises(InputError, match="no layer of the Sequential can be made sparse"):
        sparsify(model, 0.5)
    model = sparsify(mlp(), 0.5, include="0")
    sparsify(model, 0.1, include="2")
    assert counts(model) == {"0": 300, "2": 30}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.weight_norm,
        lambda m: prune.random_unstructured(m, "weight", 0.5),
    ],
)
def test_a_layer_that_computes_its_weight_is_refused(wrap):
    """Its weight is no Parameter but the work of a hook, which would break on a sparse layer."""
    model = mlp()
    wrap(model[0])
    with pytest.raises(InputError, match=r"layer '0' computes its weight.*exclude it"):
        sparsify(model, 0.5)


def test_without_dense_values_the_connections_are_drawn_in_memory():
    def model():
        return nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 30, bias=False))

    with torch.device("meta"):
        bare = model()
    g = torch.Generator().manual_seed(3)
    made = sparsify(bare, 0.2, generator=g)
    real = sparsify(model(), 0.2, generator=torch.Generator().manual_seed(3))
    assert Topology.of(made) == Topology.of(real)
    assert not any(t.is_meta for t in made.state_dict().values())
    largest = made[0].weight.values.abs().max().item()
    assert 0.9 / 60**0.5 < largest <= 1 / 60**0.5  # torch's rule for nn.Linear
    assert made[0].bias.abs().max() <= 1 / 60**0.5
    assert made[2].bias is None


def test_without_dense_values_a_convolution_keeps_its_options():
    with torch.device("meta"):
        bare = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, dtype=torch.float64))
    made = sparsify(bare, 0.5, init="rescale", generator=torch.Generator().manual_seed(0))
    assert (made[0].stride, made[0].padding, made[0].groups) == ((2, 2), (1, 1), 2)
    assert made[0].weight.values.dtype == torch.float64
    assert 0.8 < made[0].weight.values.abs().max() * 9**0.5 <= 1  # 18 inputs, half of them connected


def test_a_network_that_would_not_fit_dense():
    with torch.device("meta"):
        bare = nn.Sequential(nn.Linear(1000, 10**6), nn.ReLU(), nn.Linear(10**6, 10**6))  # dense: 4 TB
    g = torch.Generator().manual_seed(0)
    made = sparsify(bare, epsilon=0.05, generator=g)
    assert [m.weight.nnz for m in sparse_layers(made).values()] == [50_050, 100_000]
