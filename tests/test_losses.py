"""Losses against their formulas in plain numpy."""

import numpy as np
import pytest
import torch

from regraft import losses
from regraft.errors import InputError, MismatchError


def outputs() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    output, y = torch.randn(7, 4, dtype=torch.float64), torch.randint(4, (7,))
    return output, y, output.numpy(), np.eye(4)[y.numpy()]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    output, y, z, onehot = outputs()
    target = (1 - smoothing) * onehot + smoothing / 4
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -(target * log_p).sum(1).mean()
    assert losses.by_name("cross-entropy", smoothing)(output, y).item() == pytest.approx(expected)


def test_mse_and_bce_and_nll() -> None:
    output, y, z, onehot = outputs()
    assert losses.by_name("mse")(output, y).item() == pytest.approx(((z - onehot) ** 2).mean())
    p = 1 / (1 + np.exp(-z))
    bce = -(onehot * np.log(p) + (1 - onehot) * np.log(1 - p)).mean()
    assert losses.by_name("bce")(output, y).item() == pytest.approx(bce)
    assert losses.by_name("nll")(output, y).item() == pytest.approx(-(onehot * z).sum(1).mean())


def test_mse_of_numbers() -> None:
    output, y = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    expected = ((output.numpy() - y.numpy()) ** 2).mean()
    assert losses.by_name("mse")(output, y).item() == pytest.approx(expected)
    with pytest.raises(MismatchError, match=r"\(7, 1\), but the target \(7,\)"):
        losses.mse(output[:, :1], y[:, 0])


def test_errors() -> None:
    with pytest.raises(InputError, match="did you mean 'cross-entropy'"):
        losses.by_name("crossentropy")
    with pytest.raises(InputError, match="not with 'mse'"):
        losses.by_name("mse", 0.1)
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        losses.by_name("cross-entropy", 1.0)
