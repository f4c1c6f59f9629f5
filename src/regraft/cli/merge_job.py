"""What ``regraft merge`` does with networks in memory: align, merge, repair, fine-tune, and evaluate."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft import checkpoint, gates, graph, losses, measure, positions
from regraft.cli.common import progress_bar
from regraft.cli.merge_options import Plan
from regraft.data import Data
from regraft.errors import InputError
from regraft.merging import MergedLayer, merge, reestimate_norms, repair
from regraft.merging.align import ActivationMatching, WeightMatching
from regraft.merging.networks import layers_of, opened
from regraft.merging.neurons import select_neurons
from regraft.probe import Probe
from regraft.train import Recipe, ShowProgress, Teachers, seeds, train_recipe
from regraft.weight import SparseWeight

AT_ONCE = 200  # samples of one batch that is looked at


@dataclass(eq=False)
class Job:
    """One merge of networks in memory.

    Attributes:
        data: None where nothing looks at samples and nothing is evaluated.
        evaluation: accuracy and loss of each network on the way, by what it is called.
        notes: what is said of the outcome.
    """

    plan: Plan
    paths: Sequence[Path]
    data: Data | None
    device: torch.device
    evaluation: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> tuple[nn.Module, list[MergedLayer]]:
        """The merged network, on the CPU, and what became of each sparse weight.

        Raises:
            InputError: networks or options that cannot be used, or training that diverged.
            MismatchError: networks of different architectures, or that do not fit the data.
            FileError: a file that cannot be read.
        """
        plan = self.plan
        with opened(self.paths) as files:
            stored = {layer.name: layer.stored for layer in layers_of(files)}
        parents = [checkpoint.load(path) for path in self.paths]
        if plan.finetune:  # what is wrong there is said before any work is done
            tuning_recipe(plan, dense=False)
            Teachers(parents, plan.teacher_weight, plan.temperature)
        for path, parent in zip(self.paths, parents, strict=True):
            self._look(str(path), parent)
        together = parents
        if plan.gates:
            merged = self._by_gates(parents)
        elif plan.select == "neurons":
            merged = self._by_neurons(parents)
        else:
            together = self._aligned(parents)
            merged = self._by_rules(together)
        if plan.finetune and not plan.gates:
            merged = self._tuned(merged, parents)
        return merged, layers_between(stored, together, merged, overlap="rules" in plan.made_of)

    def _by_rules(self, parents: list[nn.Module]) -> nn.Module:
        plan = self.plan
        with progress_bar("merging", None):
            merged = merge(
                parents, plan.weights, plan.biases, plan.density, scope=plan.scope, score=plan.score,
                probe=self._probe(parents[0]), over=plan.over, bias_density=plan.bias_density,
                generator=torch.Generator().manual_seed(plan.seed),
            )  # fmt: skip
        self._look("merged", merged)
        return self._repaired(merged, parents)

    def _by_neurons(self, parents: list[nn.Module]) -> nn.Module:
        plan = self.plan
        with progress_bar("selecting neurons", None):
            merged = select_neurons(
                parents, self._probe(parents[0]), score=plan.unit_score, share=plan.share,
                density=plan.density, scope=plan.scope, generator=self._stream("select"),
            )  # fmt: skip
        self._look("merged", merged)
        return self._repaired(merged, parents)

    def _by_gates(self, parents: list[nn.Module]) -> nn.Module:
        plan = self.plan
        assert self.data is not None
        evolves = plan.finetune_evolve != "none"
        epochs = plan.merge_epochs + plan.finetune
        with progress_bar("training gates", epochs) as advance, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", gates.GatesWarning)
            student = gates.merge(
                [parent.to(self.device) for parent in parents], self.data, plan.loss,
                merge_epochs=plan.merge_epochs, finetune_epochs=plan.finetune, lr=plan.lr,
                momentum=plan.momentum, weight_decay=plan.weight_decay, gate_lr=plan.gate_lr,
                lambda_start=plan.lambda_start, lambda_rate=plan.lambda_rate,
                finetune_schedule=plan.lr_schedule, evolve=gates.set_evolution if evolves else None,
                batch_size=plan.batch_size, seed=plan.seed,
                on_epoch=lambda phase, row: advance(1, f"{phase}, loss {row['train_loss']:.4f}"),
            )  # fmt: skip
        self.notes += [str(w.message) for w in seen if issubclass(w.category, gates.GatesWarning)]
        self.evaluation += [{"network": stage, **row} for stage, row in student.evaluation.items()]
        return student.model.cpu()

    def _aligned(self, parents: list[nn.Module]) -> list[nn.Module]:
        """The parents with their hidden units numbered alike, if the plan says so."""
        to: Any = self.plan.align_to
        if self.plan.align == "none":
            return parents
        rule = WeightMatching(to=to) if self.plan.align == "weights" else ActivationMatching(to=to)
        with progress_bar("aligning", None):
            return rule(parents, probe=self._probe(parents[0]), generator=self._stream("align"))

    def _repaired(self, merged: nn.Module, parents: list[nn.Module]) -> nn.Module:
        if self.plan.repair == "none":
            return merged
        with progress_bar("repairing", None):
            if self.plan.repair == "bn":
                merged = reestimate_norms(merged, self._batches)
            else:
                merged = repair(merged, parents, self._batches)
        self._look("repaired", merged)
        return merged

    def _tuned(self, merged: nn.Module, parents: list[nn.Module]) -> nn.Module:
        plan, data = self.plan, self.data
        assert data is not None
        teachers = None
        if plan.teacher_weight:
            on_device = [parent.to(self.device) for parent in parents]
            teachers = Teachers(on_device, plan.teacher_weight, plan.temperature)
        steps = plan.finetune * -(-len(data.train) // min(plan.batch_size, len(data.train)))
        with progress_bar("fine-tuning", steps) as advance:
            done = train_recipe(
                tuning_recipe(plan, dense=is_dense(merged)), data, model=merged, teachers=teachers,
                device=self.device, callbacks=[ShowProgress(advance)],
            )  # fmt: skip
        self._look("fine-tuned", done.model)
        return done.model.cpu()

    def _look(self, name: str, model: nn.Module) -> None:
        """Accuracy and loss on the test samples, where there are any."""
        if self.data is not None:
            row = measure.evaluate(model, self.data.test, loss=self._loss)
            self.evaluation.append({"network": name, **row})

    @property
    def _loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        return losses.by_name(self.plan.loss)

    @cached_property
    def _batches(self) -> list[tuple[Tensor, Tensor]]:
        """Some training samples to look at, drawn by the seed."""
        assert self.data is not None
        part = self.data.train
        order = torch.randperm(len(part), generator=self._stream("samples"))[: self.plan.samples]
        return [part[index] for index in torch.split(order, AT_ONCE)]

    def _probe(self, model: nn.Module) -> Probe:
        """What alignment, selection and scores may look at."""
        generator = self._stream("scores")
        if self.data is None:
            return Probe(generator=generator, input_shape=graph.trace(model).input_shape)
        return Probe(self._loss, self._batches, generator, self.data.input_shape)

    def _stream(self, purpose: str) -> torch.Generator:
        return seeds.stream(self.plan.seed, f"merge: {purpose}")


def is_dense(model: nn.Module) -> bool:
    """Whether no weight of it is sparse."""
    return not any(isinstance(m, SparseWeight) for m in model.modules())


def layers_between(
    stored: Mapping[str, tuple[int, ...]], together: Sequence[nn.Module], merged: nn.Module, overlap: bool
) -> list[MergedLayer]:
    """What became of each sparse weight of the merged network.

    Args:
        stored: connections of each parent, by weight.
        together: the parents as they were merged.
        overlap: whether they were merged position by position; otherwise they stood side by side, where no
            two connections meet.
    """
    found = []
    for name, weight in merged.named_modules():
        if isinstance(weight, SparseWeight):
            union = _union(together, name, weight.size) if overlap else sum(stored[name])
            found.append(MergedLayer(name, tuple(weight.shape), stored[name], union, weight.nnz))
    return found


def _union(models: Sequence[nn.Module], name: str, size: int) -> int:
    """Positions at which the weight has a connection in any model."""
    weights = [dict(model.named_modules()).get(name) for model in models]
    sparse = [weight.index for weight in weights if isinstance(weight, SparseWeight)]
    return functools.reduce(positions.union, sparse).numel() if len(sparse) == len(models) else size


def tuning_recipe(plan: Plan, *, dense: bool) -> Recipe:
    """The training after the merge.

    Raises:
        InputError: an option that cannot be used.
    """
    evolution = plan.finetune_evolve or "none"
    if dense and evolution != "none":
        raise InputError(
            f"--finetune-evolve is {evolution!r}, but the merged network is dense: no topology can evolve"
        )
    return Recipe(
        dense=dense, evolve=evolution, rate=plan.rate, lr=plan.lr, momentum=plan.momentum,
        weight_decay=plan.weight_decay, lr_schedule=plan.lr_schedule or "constant", loss=plan.loss,
        epochs=plan.finetune, batch_size=plan.batch_size, seed=plan.seed,
    )  # fmt: skip
