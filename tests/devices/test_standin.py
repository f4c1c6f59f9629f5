"""The stand-in refuses what CUDA refuses, and else computes what the CPU computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.devices.conftest import MISSING
from torch import Tensor, nn

from regraft.kernels import native

Mistake = Callable[[Tensor], object]
pytestmark = pytest.mark.filterwarnings("error")


def vector(device: torch.device) -> Tensor:
    return torch.tensor([3.0, -1.0, 2.0, 0.5]).to(device)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a sum over two devices": (lambda x: x + torch.ones(4), "device"),
    "in place": (lambda x: x.add_(torch.ones(4)), "device"),
    "into the CPU": (lambda x: torch.ones(4).add_(x), "device"),
    "a scalar into the CPU's vector": (lambda x: torch.ones(4) * x[0], "device"),
    "side by side": (lambda x: torch.cat([x, torch.ones(4)]), "device"),
    "a comparison": (lambda x: torch.equal(x, torch.ones(4)), "device"),
    "a product": (lambda x: x @ torch.ones(4), "device"),
    "a layer on the CPU": (lambda x: nn.Linear(4, 2)(x), "device"),
    "a search among positions": (lambda x: torch.searchsorted(torch.arange(4.0), x), "device"),
    "entries taken by index_select": (lambda x: x.index_select(0, torch.tensor([1])), "device"),
    "entries gathered": (lambda x: x.gather(0, torch.tensor([1])), "device"),
    "values put": (lambda x: x.__setitem__(torch.tensor([1, 2]), torch.ones(2)), "device"),
    "the CPU's tensor at positions elsewhere": (lambda x: torch.ones(4)[x.argsort()], "device"),
    "a random fill": (lambda x: x.uniform_(generator=torch.Generator()), "generator"),
    "random numbers": (lambda x: torch.rand(2, generator=torch.Generator(), device=x.device), "generator"),
    "a random order": (lambda x: torch.randperm(4, generator=torch.Generator(), device=x.device), "gene"),
    "numpy": (lambda x: x.numpy(), "numpy"),
    "numpy by way of detach": (lambda x: x.detach().numpy(), "numpy"),
    "a product of integers": (lambda x: x.long()[None] @ x.long(), "not implemented for"),
    "a histogram": (lambda x: torch.histogram(x, 3), "Could not run"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused(device: torch.device, name: str) -> None:
    """On CUDA, too: there the same tests show that the stand-in tells the truth about it."""
    mistake, message = MISTAKES[name]
    with pytest.raises((RuntimeError, TypeError), match=message):
        mistake(vector(device))


ALLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "a scalar of the CPU": lambda x: x * torch.tensor(2.0) + 1,
    "a scalar put": lambda x: x.masked_fill(x < 0, torch.tensor(7.0)),
    "positions on the CPU": lambda x: x[torch.tensor([2, 0])],
    "a mask on the CPU": lambda x: x[torch.tensor([True, False, True, True])],
    "a copy between devices": lambda x: x.clone().copy_(torch.arange(4.0)),
    "views share memory": lambda x: (lambda y: (y.view(2, 2).t()[0].mul_(10), y)[1])(x.clone()),
    "views of views": lambda x: x.view(2, 2)[:, 1:].expand(2, 3).flatten(),
    "wrapped numbers": lambda x: torch.arange(4, device=x.device) * 0.5 + x.double() * 0.1,
    "an output that is resized": lambda x: torch.mul(x, 2, out=torch.empty(0, device=x.device)),
    "outputs in a tuple": lambda x: torch.cat([t.double() for t in torch.sort(x, stable=True)]),
    "a strange type": lambda x: (x.bfloat16() @ x.bfloat16()).float(),
    "data-dependent shapes": lambda x: x[x > 0].unique(),
    "linear algebra": lambda x: torch.linalg.eigvalsh(torch.outer(x, x) + torch.eye(4, device=x.device)),
    "a tensor without elements": lambda x: torch.cat([x[:0], x[:0] + 1]),
    "a constant": lambda x: torch.full_like(x, 3).to(torch.float64),
    "a deep copy": lambda x: copy.deepcopy({"x": x[1:]})["x"],
    "in place on a detached alias": lambda x: (lambda y: (y.detach().zero_(), y)[1])(x.clone()),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_gives_the_cpus_numbers(device: torch.device, name: str) -> None:
    wanted, got = ALLOWED[name](vector(torch.device("cpu"))), ALLOWED[name](vector(device))
    assert got.device.type == device.type
    torch.testing.assert_close(got.cpu(), wanted, rtol=1e-5, atol=1e-6)
    assert got.dtype == wanted.dtype


def test_tensors_are_ordinary_ones(device: torch.device) -> None:
    p = nn.Parameter(vector(device))
    assert type(p) is nn.Parameter
    assert type(p.data) is Tensor
    p.data = torch.zeros(7, device=device)
    assert p.shape == (7,)
    assert "device=" in repr(p)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("convolution", [False, True])
def test_networks_train_as_on_the_cpu(device: torch.device, optimizer: type, convolution: bool) -> None:
    cpu: nn.Module = nn.Sequential(nn.Linear(36, 9), nn.ReLU(), nn.Linear(9, 2))
    if convolution:
        cpu = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)
        )
    there, (x, y) = copy.deepcopy(cpu).to(device), (torch.randn(5, 36), torch.tensor([0, 1, 0, 1, 1]))
    x = x.view(5, 1, 6, 6) if convolution else x
    for model, where in ((cpu, "cpu"), (there, device)):
        made = optimizer(model.parameters(), lr=0.05)
        for _ in range(3):
            made.zero_grad()
            nn.functional.cross_entropy(model(x.to(where)), y.to(where)).backward()
            made.step()
    for a, b in zip(cpu.state_dict().values(), there.state_dict().values(), strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-4, atol=1e-5)


@pytest.fixture
def stand_in(device: torch.device) -> torch.device:
    if device.type == "cuda":
        pytest.skip("about the stand-in alone")
    return device


def test_addresses_do_not_leave_the_device(stand_in: torch.device) -> None:
    """Compiled code of the CPU is handed addresses; on CUDA it would read memory that is not its own."""
    if not native.available():
        pytest.skip("no compiled kernels here")
    values, out = vector(stand_in), torch.empty(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="address of a tensor on standin"):
        native.module().smallest(False, values.data_ptr(), 4, 1, out.data_ptr())


def test_outside_the_tests_of_devices_torch_sees_no_accelerator() -> None:
    if MISSING:
        pytest.skip(MISSING)
    assert torch.cuda.is_available() or not torch.accelerator.is_available()
    assert torch.zeros(3).data_ptr() != 0
    x = torch.ones(2, requires_grad=True)
    x.square().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
