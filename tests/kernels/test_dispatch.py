"""Which computation a layer takes, and that it is right wherever torch can go."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from regraft import kernels, sparsify
from regraft.errors import InputError
from regraft.kernels import compressed, dispatch, layout, native, plan
from regraft.weight import SparseWeight

compiled = pytest.mark.skipif(not native.available(), reason="no compiled kernels here")


@pytest.fixture
def layer() -> nn.Module:
    torch.manual_seed(0)
    return sparsify(nn.Sequential(nn.Linear(12, 9)), density=0.3)[0]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was computed by the compiled kernels."""
    seen: list[str] = []
    true = compressed.linear

    def spy(*args: object, **kwargs: object) -> torch.Tensor:
        seen.append("compressed")
        return true(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(compressed, "linear", spy)
    return seen


@compiled
def test_auto_takes_the_compressed_way_at_low_density(layer: nn.Module, calls: list[str]) -> None:
    layer(torch.randn(4, 12))
    assert calls == ["compressed"]


@compiled
@pytest.mark.parametrize("batch", [1, 100])
def test_the_crossover_depends_on_threads(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    def crossover(mine: int, torchs: int) -> float:
        monkeypatch.setattr(native, "get_threads", lambda: mine)
        monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
        compressed = [d for d, w in weights.items() if dispatch.faster_compressed(w, batch)]
        assert compressed == list(weights)[: len(compressed)]
        return max(compressed)

    weights = {nnz / 100: SparseWeight((10, 10), torch.arange(nnz), torch.ones(nnz)) for nnz in range(1, 101)}
    monkeypatch.setattr(dispatch.backends, "current", lambda device: "native")
    alike = crossover(1, 1)
    assert alike == crossover(2, 2) == crossover(4, 2)
    assert alike > crossover(1, 2) > crossover(1, 16) > 0.1
    assert alike < dispatch.CROSSOVER["native"][batch <= 2] <= alike + 0.011


@pytest.mark.parametrize("mode", dispatch.MODES)
def test_all_modes_agree(layer: nn.Module, mode: str) -> None:
    x = torch.randn(33, 12)
    with kernels.use("materialised"):
        want = layer(x)
    with kernels.use(mode):
        torch.testing.assert_close(layer(x), want)


def test_use_nests_and_restores_after_an_error() -> None:
    with kernels.use("compressed"):
        with pytest.raises(ZeroDivisionError), kernels.use("materialised"):
            raise ZeroDivisionError
        assert kernels.current() == "compressed"
    assert kernels.current() == "auto"


def test_unknown_mode_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="materialised"):
        kernels.use("materialized")
    assert kernels.current() == "auto"


@pytest.mark.parametrize(
    "change",
    [
        lambda layer, x: layer.half()(x.half()),
        lambda layer, x: layer.to(torch.bfloat16)(x.to(torch.bfloat16)),
        lambda layer, x: layer.to("meta")(x.to("meta")),
        lambda layer, x: torch.func.vmap(layer)(x),
        lambda layer, x: torch.func.functional_call(layer, dict(layer.named_parameters()), (x[:0],)),
        lambda layer, x: torch.jit.trace(layer, x, check_trace=False)(x),
        lambda layer, x: layer(torch.complex(x, x).conj().imag),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_materialised_where_only_that_is_right(layer: nn.Module, calls: list[str], change: object) -> None:
    y = change(layer, torch.randn(4, 12))  # type: ignore[operator]
    assert calls == []
    assert y.shape[-1] == 9


def test_autocast_gives_its_type(layer: nn.Module, calls: list[str]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(4, 12)).dtype == torch.bfloat16
    assert calls == []


def test_per_sample_gradients(layer: nn.Module) -> None:
    x = torch.randn(5, 12)
    parameters = dict(layer.named_parameters())

    def loss(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, p, (x,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    layer(x).square().sum().backward()
    torch.testing.assert_close(each["weight.values"].sum(0), layer.weight.values.grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on the first use of forward mode
def test_forward_mode(layer: nn.Module) -> None:
    x, t = torch.randn(3, 12), torch.randn(3, 12)
    _, out = torch.func.jvp(layer, (x,), (t,))
    torch.testing.assert_close(out, t @ layer.weight.dense().t())
    with torch.autograd.forward_ad.dual_level():
        y = layer(torch.autograd.forward_ad.make_dual(x, t))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(y).tangent, out)


@compiled
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_twice_differentiable(density: float) -> None:
    torch.manual_seed(0)
    layer = sparsify(nn.Sequential(nn.Linear(6, 5)), density=density).double()[0]
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    p = plan.of(layer.weight)

    def f(x: torch.Tensor, v: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return compressed.linear(x, v, b, p).tanh()

    v, b = (t.detach().requires_grad_() for t in (layer.weight.values, layer.bias))
    assert torch.autograd.gradcheck(f, (x, v, b))
    assert torch.autograd.gradgradcheck(f, (x, v, b))


def test_hessian_vector_product_matches_dense(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(9, 3))
    x = torch.randn(8, 12)

    def product() -> torch.Tensor:
        (g,) = torch.autograd.grad(model(x).square().sum(), [layer.weight.values], create_graph=True)
        (h,) = torch.autograd.grad((g * g.detach()).sum(), [layer.weight.values])
        return h

    got = product()
    with kernels.use("materialised"):
        torch.testing.assert_close(got, product())


@compiled
def test_a_changed_topology_gets_a_new_plan() -> None:
    w = SparseWeight((2, 3), torch.tensor([0, 4]), torch.tensor([1.0, 2.0]))
    x = torch.eye(3)
    with kernels.use("compressed"):
        kernels.linear(x, w, None)
        w.replace(torch.tensor([2, 3]), torch.tensor([5.0, 7.0]))
        assert torch.equal(kernels.linear(x, w, None).t(), w.dense())
        w.index.copy_(torch.tensor([1, 5]))  # in place, behind everyone's back
        assert torch.equal(kernels.linear(x, w, None).t(), w.dense())
        swapped = {"index": torch.tensor([0, 1]), "values": w.values}
        w.index = swapped["index"]
        assert torch.equal(kernels.linear(x, w, None).t(), w.dense())
        assert torch.equal(kernels.linear(x, copy.deepcopy(w), None).t(), w.dense())


@compiled
@pytest.mark.parametrize("bad", [[-1, 2], [3, 2], [2, 2], [1, 6], [0, 2**62]])
def test_bad_positions_never_reach_a_kernel(bad: list[int]) -> None:
    w = SparseWeight((2, 3), torch.tensor([0, 4]), torch.tensor([1.0, 2.0]))
    w.index = torch.tensor(bad)
    with kernels.use("compressed"), pytest.raises(InputError, match="index"):
        kernels.linear(torch.eye(3), w, None)


@pytest.mark.slow
@pytest.mark.parametrize("isa", native.ISAS)
def test_each_instruction_set(isa: str) -> None:
    code = (
        "import torch, regraft; from regraft import kernels, sparsify\n"
        "torch.manual_seed(0); m = sparsify(torch.nn.Sequential(torch.nn.Linear(77, 55)), density=.2)[0]\n"
        "for dtype in (torch.float32, torch.float64):\n"
        "    m = m.to(dtype); kernels.set_threads(2)\n"
        "    for x in (torch.randn(203, 77, dtype=dtype), torch.randn(77, 9, dtype=dtype).t()):\n"
        "        x.requires_grad_(); g = []\n"
        "        for mode in ('compressed', 'materialised'):\n"
        "            with kernels.use(mode):\n"
        "                y = m(x); leaves = [x, *m.parameters()]\n"
        "                g.append([y, *torch.autograd.grad(y.square().sum(), leaves)])\n"
        "        for a, b in zip(*g): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)\n"
        "print(kernels.isa())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "REGRAFT_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    used = done.stdout.strip()
    assert used == "None" or native.ISAS.index(used) <= native.ISAS.index(isa)


@pytest.mark.slow
def test_a_fork_can_compute() -> None:
    code = (
        "import os, torch; from regraft import kernels, sparsify\n"
        "torch.set_num_threads(1)  # torch's own threads do not survive a fork\n"
        "m = sparsify(torch.nn.Sequential(torch.nn.Linear(900, 900)), density=.1)[0]\n"
        "x = torch.randn(64, 900)\n"
        "kernels.set_threads(2); y = m(x); pid = os.fork()\n"
        "same = torch.equal(m(x), y)\n"
        "if pid == 0: os._exit(0 if same else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0 and same"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_threads_are_checked() -> None:
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="positive integer"):
            kernels.set_threads(bad)  # type: ignore[arg-type]


@compiled
def test_a_chain_hands_on_feature_major() -> None:
    model = sparsify(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
        density=0.3,
        exclude=["4"],
    )
    x = torch.randn(16, 8)
    want = model(x)
    assert layout.chain(model) == 1
    assert model[0](x).stride() == (1, 16)
    assert model[2](model[1](model[0](x))).stride() == (8, 1)
    torch.testing.assert_close(model(x), want)
