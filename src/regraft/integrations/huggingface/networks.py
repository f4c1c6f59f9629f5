"""Sparse transformers models: GPT-2's Conv1D layers, and folders that ``save_pretrained`` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from regraft import layers
from regraft.errors import FileError, InputError, MismatchError
from regraft.integrations.huggingface.required import transformers
from regraft.integrations.sparse_like import sparsify_like

Conv1D: Any = transformers.pytorch_utils.Conv1D
M = TypeVar("M", bound=nn.Module)


def use_linear(model: M) -> M:
    """Replace transformers' ``Conv1D`` layers (GPT-2 and its kin) by equal ``nn.Linear``, in place, so that
    ``regraft.sparsify`` sees them. Returns the model.

    Call it before the optimizer is built. ``Conv1D`` is a linear layer whose weight is stored transposed.

    >>> from transformers import GPT2Config, GPT2Model
    >>> config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    >>> model = GPT2Model(config).eval()
    >>> tokens = torch.arange(4)[None]
    >>> before = model(tokens).last_hidden_state
    >>> torch.allclose(use_linear(model)(tokens).last_hidden_state, before, atol=1e-6)
    True
    >>> type(model.h[0].mlp.c_fc).__name__
    'Linear'
    """
    _exchange(model, {name: _linear_of(m) for name, m in model.named_modules() if isinstance(m, Conv1D)})
    return model


def densify(model: M) -> M:
    """``regraft.densify``, and ``use_linear`` taken back, in place. Returns the model.

    What ``save_pretrained`` writes then is an ordinary transformers model, for ``from_pretrained`` anywhere.
    """
    layers.densify(model)
    with torch.device("meta"):
        reference = type(model)(model.config)
    theirs = {name for name, m in reference.named_modules() if isinstance(m, Conv1D)}
    linear = {n: m for n, m in model.named_modules() if n in theirs and isinstance(m, nn.Linear)}
    _exchange(model, {name: _conv1d_of(m) for name, m in linear.items()})
    return model


def from_pretrained(kind: Any, folder: str | Path) -> Any:
    """A sparse model from a folder that its ``save_pretrained``, or a checkpoint of a ``Trainer``, wrote.

    transformers' own ``from_pretrained`` builds a dense model, knows nothing of positions, and leaves the
    layers that were sparse at random values, with a warning.

    Args:
        kind: the model's class, for example ``BertForSequenceClassification``, or an
            ``AutoModelFor...``.
        folder: with ``config.json`` and ``model.safetensors`` (or its shards) in it.

    Returns:
        the model, in evaluation mode, on the CPU; connections and values are the file's bit for bit.

    >>> import tempfile, regraft
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                              intermediate_size=16, max_position_embeddings=8))
    >>> _ = regraft.sparsify(model, density=0.2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_pretrained(folder)
    ...     back = from_pretrained(BertModel, folder)
    >>> regraft.Topology.of(back) == regraft.Topology.of(model)
    True

    Raises:
        FileError: no such folder, or files that cannot be read.
        MismatchError: the file holds another model than ``config.json`` says.
    """
    folder = Path(folder)
    state = _state_in(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    sparse = {k.removesuffix(".weight.index") for k in state if k.endswith(".weight.index")}
    found = {n: m for n, m in model.named_modules() if n in sparse and isinstance(m, Conv1D)}
    _exchange(model, {name: _linear_of(m) for name, m in found.items()})
    sparsify_like(model, state)
    dtype = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    if isinstance(dtype, torch.dtype):
        model.to(dtype)
    _load(model, state, folder)
    if model.can_generate() and (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model.eval()


def _load(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(dict(state), strict=False)
    except (RuntimeError, InputError) as error:
        raise MismatchError(f"'{folder}' does not fit the {type(model).__name__}: {error}") from error
    model.tie_weights()
    at = {id(t): name for name, t in model.named_parameters(remove_duplicate=False) if name in state}
    tied = {n for n, t in model.named_parameters(remove_duplicate=False) if id(t) in at}
    lost = sorted(set(missing) - tied)
    if lost or unexpected:
        raise MismatchError(
            f"'{folder}' does not fit the {type(model).__name__}: missing {lost[:5]}, unexpected "
            f"{sorted(unexpected)[:5]}; pass the class that was saved"
        )


def _state_in(folder: Path) -> dict[str, Tensor]:
    """All tensors of ``model.safetensors``, in one file or in shards."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    try:
        if whole.exists():
            return load_file(whole)
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return {k: t for name in names for k, t in load_file(folder / Path(name).name).items()}
    except FileNotFoundError as error:
        raise FileError(
            f"'{folder}' holds no model: config.json and model.safetensors are needed, as "
            f"model.save_pretrained writes them ({error})"
        ) from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"the model in '{folder}' cannot be read ({error}): copy or write it anew") from error


def _linear_of(layer: Any) -> nn.Linear:
    inside, outside = layer.weight.shape
    linear = nn.Linear(inside, outside, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach().t().contiguous(), layer.weight.requires_grad)
    linear.bias = layer.bias
    return linear.train(layer.training)


def _conv1d_of(layer: nn.Linear) -> nn.Module:
    with torch.device("meta"):
        conv: Any = Conv1D(layer.out_features, layer.in_features)
    conv.weight = nn.Parameter(layer.weight.detach().t().contiguous(), layer.weight.requires_grad)
    conv.bias = layer.bias
    done: nn.Module = conv.train(layer.training)
    return done


def _exchange(model: nn.Module, made: Mapping[str, nn.Module]) -> None:
    for name, module in made.items():
        parent, _, key = name.rpartition(".")
        setattr(model.get_submodule(parent), key, module)
