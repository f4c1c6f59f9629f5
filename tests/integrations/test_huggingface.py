"""The callback in transformers' own Trainer, and sparse transformers models on disk."""

from __future__ import annotations

import copy
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import regraft
from regraft.errors import FileError, InputError, MismatchError
from regraft.evolve import InnerProduct, Shrink
from regraft.integrations.huggingface import Evolution, callback, densify, from_pretrained, use_linear

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.* argument is set as true but no accelerator"),
]
WORDS, LENGTH, STEPS = 20, 6, 8


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Precision and processes are remembered by accelerate in the environment and in a global."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=LENGTH, num_labels=2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, classifier_dropout=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def sparse(seed: int = 0) -> BertForSequenceClassification:
    generator = torch.Generator().manual_seed(seed)
    return regraft.sparsify(bert(seed), 0.4, exclude="classifier", generator=generator)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def samples(n: int = 4 * STEPS) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(WORDS, (n, LENGTH), generator=generator)
    return [{"input_ids": w, "labels": int(w.sum()) % 2} for w in words]


class InOrder(Trainer):
    """The samples in their order, so that a loop of one's own can see the same."""

    def get_train_dataloader(self) -> DataLoader:
        self.accelerator.even_batches = False
        made = DataLoader(self.train_dataset, self._train_batch_size, collate_fn=default_data_collator)
        return self.accelerator.prepare(made)


def trainer(
    model: Any,
    folder: Path,
    *callbacks: Any,
    data: Any = None,
    given: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    usual: dict[str, Any] = {
        "use_cpu": True, "report_to": "none", "disable_tqdm": True, "num_train_epochs": 2,
        "per_device_train_batch_size": 4, "logging_strategy": "no", "save_strategy": "no",
        "learning_rate": 0.01, "lr_scheduler_type": "constant", "dataloader_pin_memory": False,
        "optim": "adamw_torch",
    }  # fmt: skip
    arguments = TrainingArguments(str(folder), **(usual | options))
    return InOrder(
        model, arguments, train_dataset=data or samples(), callbacks=list(callbacks), **(given or {})
    )


def updates(evolution: Evolution) -> list[int]:
    return [done.step for done in evolution.evolver.history]


def alike(a: nn.Module, b: nn.Module) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


@pytest.mark.parametrize(
    ("every", "accumulate", "steps"),
    [("epoch", 1, [8, 16]), ("epoch", 3, [3, 6]), ("2epochs", 3, [6]), (2, 3, [2, 4, 6, 8])],
)
def test_it_counts_optimizer_steps(every: Any, accumulate: int, steps: list[int], tmp_path: Path) -> None:
    evolution = Evolution(every=every)
    options = {"num_train_epochs": 3, "gradient_accumulation_steps": accumulate}
    trainer(sparse(), tmp_path, evolution, **options).train()
    assert updates(evolution) == steps


@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_it_does_what_a_loop_of_ones_own_does(grow: str, tmp_path: Path) -> None:
    """Bit for bit, with clipped gradients."""
    evolution = Evolution("cosine", drop="magnitude", grow=grow, every=5, seed=5)
    theirs, ours = sparse().train(), sparse().train()
    trainer(theirs, tmp_path, evolution, max_grad_norm=0.3).train()

    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.01, weight_decay=0.0)
    generator = Evolution(seed=5).evolver.generator
    evolver = regraft.Evolve("magnitude", grow, "cosine", every=5, total=16, generator=generator)
    evolver.attach(ours, optimizer)
    batches = list(DataLoader(samples(), 4, collate_fn=default_data_collator)) * 2
    for batch in batches:
        optimizer.zero_grad()
        with evolver.watch():
            ours(**batch).loss.backward()
        nn.utils.clip_grad_norm_(ours.parameters(), 0.3)
        optimizer.step()
        evolver.step()
    assert updates(evolution) == [5, 10, 15]
    assert regraft.Topology.of(ours) != regraft.Topology.of(sparse())
    alike(ours, theirs)


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    def mean_loss(output: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return nn.functional.cross_entropy(output.logits, labels, reduction="sum") / num_items_in_batch

    models = []
    for size, accumulate in ((8, 1), (2, 4)):
        evolution = Evolution(drop="magnitude", grow="gradient", every=2)
        models.append(sparse())
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate}
        given = {"compute_loss_func": mean_loss}
        trainer(models[-1], tmp_path, evolution, given=given, optim="sgd", **options).train()
        assert updates(evolution) == [2, 4, 6]
    assert regraft.Topology.of(models[0]) == regraft.Topology.of(models[1])
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grow", ["random", InnerProduct(batches=3)], ids=["random", "inner-product"])
def test_a_resumed_training_is_one_that_was_never_interrupted(grow: Any, tmp_path: Path) -> None:
    """Updates follow steps 6, 12, ...: the checkpoint after step 11 holds what the rule has seen so far."""
    evolutions, models, runs = [], [sparse(), sparse(seed=9)], []
    for model, checkpoint in zip(models, (None, str(tmp_path / "0" / "checkpoint-11")), strict=True):
        evolutions.append(Evolution("cosine", drop="magnitude", grow=grow, every=6, explore=True))
        options = {"save_strategy": "steps", "save_steps": 11, "num_train_epochs": 3}
        runs.append(trainer(model, tmp_path / str(len(runs)), evolutions[-1], **options))
        runs[-1].train(resume_from_checkpoint=checkpoint)
    assert updates(evolutions[0]) == updates(evolutions[1]) == [6, 12, 18]
    assert evolutions[0].evolver.history == evolutions[1].evolver.history
    alike(*models)
    one, other = (run.optimizer.optimizer.state_dict() for run in runs)
    torch.testing.assert_close(one["state"], other["state"], rtol=0, atol=0)
    assert callback.KEPT_AS not in one["param_groups"][0], "only while it trains"


def test_a_checkpoint_made_without_it_keeps_the_count(tmp_path: Path) -> None:
    trainer(sparse(), tmp_path, save_strategy="epoch", num_train_epochs=1).train()
    evolution = Evolution(every=6)
    trainer(sparse(), tmp_path, evolution, num_train_epochs=3).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-8")
    )
    assert updates(evolution) == [12, 18]


@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_autocast_in_bfloat16(grow: str, tmp_path: Path) -> None:
    evolution, model = Evolution(drop="magnitude", grow=grow, every=3), sparse()
    trainer(model, tmp_path, evolution, bf16=True, num_train_epochs=1).train()
    assert updates(evolution) == [3, 6]
    assert all(bool(p.isfinite().all()) and p.dtype == torch.float32 for p in model.parameters())


def test_figures_are_in_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evolution = Evolution(0.25, every=4)
    run = trainer(sparse(), tmp_path, evolution, logging_strategy="steps", logging_steps=5)
    run.train()
    rows = [row for row in run.state.log_history if "evolve_rate" in row]
    assert [row["step"] for row in rows] == [4, 8, 12]
    for row, change in zip(rows, evolution.evolver.history, strict=True):
        assert row["evolve_rate"] == 0.25
        assert row["evolve_dropped"] == row["evolve_grown"] == change.total > 0
        assert row["evolve_density"] == pytest.approx(0.4, abs=0.01)
    shown = [line for line in capsys.readouterr().out.splitlines() if "evolve_rate" in line]
    assert len(shown) == 3, "with the losses of steps 5, 10 and 15"


def test_it_makes_the_model_sparse(tmp_path: Path) -> None:
    model = bert()
    evolution = Evolution(sparsify={"density": 0.3, "exclude": ["classifier", "*.pooler.dense"]})
    trainer(model, tmp_path, evolution).train()
    assert updates(evolution) == [8]
    assert len(regraft.Topology.of(model)) == 6
    assert isinstance(model.bert.pooler.dense, nn.Linear)


def test_an_evolver_of_ones_own_and_a_second_training(tmp_path: Path) -> None:
    model = regraft.sparsify(bert(), 1.0, exclude="classifier")
    shrinking = Evolution(evolver=Shrink(0.25, every=4, total=12))
    trainer(model, tmp_path, shrinking).train()
    assert updates(shrinking) == [4, 8, 12]
    evolution = Evolution(every=6)
    run = trainer(model, tmp_path, evolution)
    for _ in range(2):
        run.train()
        assert updates(evolution) == [6, 12]
    assert not run.optimizer.optimizer._optimizer_step_post_hooks


class TestFolders:
    @pytest.mark.parametrize("kind", [BertForSequenceClassification, AutoModelForSequenceClassification])
    @pytest.mark.parametrize("shard", ["5GB", "2KB"])
    def test_there_and_back(self, kind: Any, shard: str, tmp_path: Path) -> None:
        model = sparse().eval()
        model.save_pretrained(tmp_path, max_shard_size=shard)
        assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "2KB")
        back = from_pretrained(kind, tmp_path)
        alike(model, back)
        assert not back.training
        words = torch.stack([s["input_ids"] for s in samples(3)])
        assert torch.equal(model(words).logits, back(words).logits)

    def test_a_checkpoint_of_a_trainer(self, tmp_path: Path) -> None:
        model = sparse()
        trainer(model, tmp_path, Evolution(every=3), save_strategy="steps", save_steps=8).train()
        alike(model, from_pretrained(BertForSequenceClassification, tmp_path / "checkpoint-16"))

    def test_the_best_model_comes_back_with_its_topology(self, tmp_path: Path) -> None:
        model = sparse()
        options = {
            "save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True,
            "num_train_epochs": 3, "learning_rate": 1.0, "metric_for_best_model": "loss",
        }  # fmt: skip
        run = trainer(model, tmp_path, Evolution(every=3), given={"eval_dataset": samples(8)}, **options)
        run.train()
        best = from_pretrained(BertForSequenceClassification, run.state.best_model_checkpoint)
        alike(model, best)
        assert not run.state.best_model_checkpoint.endswith("-24"), "a rate of 1 harms"

    def test_bfloat16_stays(self, tmp_path: Path) -> None:
        model = sparse().to(torch.bfloat16)
        model.save_pretrained(tmp_path)
        alike(model, from_pretrained(BertForSequenceClassification, tmp_path))

    def test_a_model_of_linear_layers_that_generates(self, tmp_path: Path) -> None:
        config = LlamaConfig(
            vocab_size=WORDS, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=LENGTH, pad_token_id=1,
        )  # fmt: skip
        model = regraft.sparsify(LlamaForCausalLM(config), 0.3, exclude="lm_head").eval()
        model.save_pretrained(tmp_path)
        back = from_pretrained(AutoModelForCausalLM, tmp_path)
        words = torch.tensor([[2, 3]])
        mask = torch.ones_like(words)
        expected = model.generate(words, attention_mask=mask, max_new_tokens=3, do_sample=False)
        assert torch.equal(
            back.generate(words, attention_mask=mask, max_new_tokens=3, do_sample=False), expected
        )

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match=r"holds no model: config.json and model.safetensors are needed"):
            from_pretrained(BertForSequenceClassification, tmp_path)

    @pytest.mark.parametrize("damage", ["truncated", "list"])
    def test_damaged_files(self, damage: str, tmp_path: Path) -> None:
        sparse().save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        if damage == "truncated":
            file.write_bytes(file.read_bytes()[:-100])
        else:
            file.unlink()
            (tmp_path / "model.safetensors.index.json").write_text("[1]")
        with pytest.raises(FileError, match="cannot be read"):
            from_pretrained(BertForSequenceClassification, tmp_path)

    def test_another_model(self, tmp_path: Path) -> None:
        sparse().save_pretrained(tmp_path)
        with pytest.raises(
            MismatchError, match="is sparse in the state, but the BertModel has no such layer"
        ):
            from_pretrained(BertModel, tmp_path)
        for changed, value, match in (
            ("num_hidden_layers", 2, r"missing .*layer\.1.*pass the class that was saved"),
            ("vocab_size", WORDS + 1, "does not fit the BertForSequenceClassification: .*size mismatch"),
            ("intermediate_size", 4, "intermediate.dense"),
        ):
            config = bert().config
            setattr(config, changed, value)
            config.save_pretrained(tmp_path)
            with pytest.raises((MismatchError, InputError), match=re.compile(match, re.DOTALL)):
                from_pretrained(BertForSequenceClassification, tmp_path)


class TestConv1D:
    """GPT-2's layers, whose weights are transposed."""

    words = torch.tensor([[2, 3, 4]])

    def test_linear_layers_in_their_place_compute_the_same(self) -> None:
        model = gpt2().eval()
        model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
        expected = model(self.words).logits
        torch.testing.assert_close(use_linear(model)(self.words).logits, expected)
        assert not model.transformer.h[0].mlp.c_fc.weight.requires_grad
        assert model.transformer.h[0].mlp.c_proj.weight.requires_grad

    def test_without_them_a_sentence(self) -> None:
        with pytest.raises(InputError, match="no layer of the GPT2LMHeadModel can be made sparse"):
            regraft.sparsify(gpt2(), 0.3, exclude="lm_head")

    def test_trained_saved_and_dense_again(self, tmp_path: Path) -> None:
        data = [{"input_ids": s["input_ids"], "labels": s["input_ids"]} for s in samples()]
        model = use_linear(gpt2())
        evolution = Evolution(
            drop="magnitude", grow="gradient", every=4, sparsify={"density": 0.3, "exclude": "lm_head"}
        )
        trainer(model, tmp_path / "run", evolution, data=data, num_train_epochs=1).train()
        assert updates(evolution) == [4]
        model.eval()
        model.save_pretrained(tmp_path / "sparse")
        back = from_pretrained(GPT2LMHeadModel, tmp_path / "sparse")
        alike(model, back)
        assert back.lm_head.weight is back.transformer.wte.weight, "tied again"

        expected = model(self.words).logits
        densify(copy.deepcopy(model)).save_pretrained(tmp_path / "dense")
        dense = GPT2LMHeadModel.from_pretrained(tmp_path / "dense").eval()
        assert type(dense.transformer.h[0].attn.c_proj).__name__ == "Conv1D"
        torch.testing.assert_close(dense(self.words).logits, expected)


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(samples())


class TestSentences:
    def refused(self, model: nn.Module, match: str, folder: Path, **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            trainer(model, folder, Evolution(), **options).train()

    def test_a_dense_model(self, tmp_path: Path) -> None:
        self.refused(bert(), "has no sparse weight: call regraft.sparsify", tmp_path)

    def test_data_of_unknown_length(self, tmp_path: Path) -> None:
        self.refused(sparse(), "give every=1000", tmp_path, data=Endless(), max_steps=6)
        evolution = Evolution(every=4)
        trainer(sparse(), tmp_path, evolution, data=Endless(), max_steps=6).train()
        assert (updates(evolution), evolution.evolver.total) == ([4], 6)

    def test_an_optimizer_made_before(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = trainer(model, tmp_path, Evolution(sparsify={"density": 0.3, "exclude": "classifier"}))
        run.optimizer = optimizer
        with pytest.raises(InputError, match="the SGD optimizer holds none of the sparse weights"):
            run.train()

    @pytest.mark.parametrize("name", ["deepspeed", "fsdp"])
    def test_weights_that_are_split(self, name: str) -> None:
        with pytest.raises(InputError, match=f"{name} splits or rearranges weights"):
            callback._check_arguments(SimpleNamespace(**{name: "full_shard", "n_gpu": 1}))

    def test_copies_on_several_gpus(self) -> None:
        with pytest.raises(InputError, match="torchrun --nproc-per-node=4"):
            callback._check_arguments(SimpleNamespace(n_gpu=4))


def _rank(rank: int, port: int, grow: str, folder: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    evolution, model = Evolution(drop="magnitude", grow=grow, every=2, seed=rank), sparse(seed=rank)
    run = trainer(model, folder, evolution, ddp_backend="gloo", ddp_find_unused_parameters=False)
    assert run.args.world_size == 2
    run.train()
    assert updates(evolution) == [2, 4, 6], updates(evolution)
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which CUDA does not survive")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("grow", ["random", "gradient", "inner-product"])
def test_two_processes_end_alike(grow: str, tmp_path: Path) -> None:
    """From other starts and seeds, on other samples."""
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(_rank, (port, grow, tmp_path), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    name = "bert.pooler.dense.weight.index"
    assert not torch.equal(first[name], sparse().state_dict()[name])
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
