"""The compressed computation on a device: only where it is asked for, by torch's CSR, with equal numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.devices.features import batches, mlp, on, same, seeded
from torch import nn

from regraft import SparseWeight, doctor, kernels
from regraft.errors import InputError
from regraft.kernels import backends, compressed, csr_linear, dispatch, materialised, plan


@pytest.fixture
def gpu(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that counts as a GPU."""
    monkeypatch.setattr(backends, "GPU_DEVICES", [device.type])
    return device


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices of products that CSR tensors computed."""
    found: list[str] = []
    forward = csr_linear.forward

    def spy(x: torch.Tensor, *args: Any) -> torch.Tensor:
        found.append(x.device.type)
        return forward(x, *args)

    monkeypatch.setattr(csr_linear, "forward", spy)
    return found


def weight(device: torch.device, dtype: torch.dtype = torch.float32) -> SparseWeight:
    index = torch.randperm(20 * 30, generator=seeded())[:90].sort().values
    return SparseWeight((20, 30), index, torch.randn(90, generator=seeded(), dtype=dtype)).to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 30), (2, 3, 30), (30,), (0, 30)])
@pytest.mark.parametrize("bias", [False, True])
def test_csr_products_are_the_dense_ones(
    gpu: torch.device, seen: list[str], shape: tuple[int, ...], bias: bool, dtype: torch.dtype
) -> None:
    w = weight(gpu, dtype)
    x = torch.randn(shape, generator=seeded(), dtype=dtype).to(gpu).requires_grad_()
    b = torch.randn(20, generator=seeded(1), dtype=dtype).to(gpu).requires_grad_() if bias else None
    leaves = [x, w.values, *([] if b is None else [b])]
    wanted = materialised.linear(x, w, b)
    with kernels.use("compressed"):
        got = kernels.linear(x, w, b)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    for a, c in zip(
        torch.autograd.grad(got.square().sum(), leaves), torch.autograd.grad(wanted.square().sum(), leaves),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-4)
        assert a.device == gpu
    assert seen == ([] if 0 in shape else [gpu.type])


def test_a_plan_there_is_the_cpus(gpu: torch.device) -> None:
    here, there = plan.of(weight(torch.device("cpu"))), plan.of(weight(gpu))
    assert there.at == ()
    assert on(there.parts, gpu)
    for a, b in zip(
        (here.rowptr32, here.col, *here.by_column), (there.rowptr32, there.col, *there.by_column), strict=True
    ):
        assert torch.equal(a, b.cpu())


def test_nobody_has_measured_so_the_default_is_materialised(gpu: torch.device, seen: list[str]) -> None:
    model, (x, _) = mlp(gpu), batches(gpu)[0]
    model(x)
    with kernels.use("auto", backend="csr"):
        model(x)
    with kernels.use("materialised"):
        model(x)
    assert seen == []
    assert dispatch.GPU_CROSSOVER.keys() == backends.GPU.keys()


def test_a_measured_crossover_decides(
    gpu: torch.device, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3, 30, generator=seeded()).to(gpu)
    for crossover, times in ((0.1, 0), (0.2, 1)):  # the density is 0.15
        monkeypatch.setitem(dispatch.GPU_CROSSOVER, "csr", crossover)
        kernels.linear(x, weight(gpu), None)
        assert len(seen) == times


def test_a_choice_for_the_cpu_does_not_reach_a_gpu(gpu: torch.device) -> None:
    assert kernels.backend(gpu) == "csr"
    for name in backends.installed():
        with kernels.use("compressed", backend=name):
            assert (kernels.backend(), kernels.backend(gpu)) == (name, "csr")


def test_a_backend_that_does_not_serve_a_device_is_one_clear_error(gpu: torch.device) -> None:
    w, x = weight(gpu), torch.randn(3, 30).to(gpu)
    for name in set(backends.BACKENDS) - set(backends.GPU):
        with pytest.raises(InputError, match=rf"'{name}' does not compute on '{gpu.type}'.*choose 'csr'"):
            compressed.linear(x, w.values, None, plan.of(w), backend=name)


def test_other_types_autocast_second_derivatives_and_vmap(gpu: torch.device) -> None:
    w, x = weight(gpu), torch.randn(3, 30, generator=seeded()).to(gpu)
    with kernels.use("compressed"):
        half = kernels.linear(x.bfloat16(), weight(gpu).to(torch.bfloat16), None)
        each = torch.func.vmap(lambda row: kernels.linear(row, w, None))(x)
        (first,) = torch.autograd.grad(kernels.linear(x, w, None).pow(3).sum(), [w.values], create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), [w.values])
    dense = materialised.linear(x, w, None)
    (wanted,) = torch.autograd.grad(dense.pow(3).sum(), [w.values], create_graph=True)
    (again,) = torch.autograd.grad(wanted.sum(), [w.values])
    torch.testing.assert_close(each, dense)
    torch.testing.assert_close(half.float(), dense, rtol=0.05, atol=0.1)
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(second, again, rtol=1e-4, atol=1e-3)


def test_networks_train_by_csr(gpu: torch.device, seen: list[str]) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in batches(where):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model

    with kernels.use("compressed", backend="csr"):
        same(run, gpu)
    assert gpu.type in seen


def test_the_doctor_says_what_a_gpu_would_use() -> None:
    told = doctor.examine()["kernels"]["gpu"]
    assert (told["auto"], told["choices"]) == ("materialised", ["csr"])
    assert (told["agrees"] is True) == (told["name"] is not None) == torch.cuda.is_available()
