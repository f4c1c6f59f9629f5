"""One readable training loop with callbacks, and checkpoints from which it resumes bit for bit."""

from regraft.train.callbacks import (
    AfterStep,
    EarlyStopping,
    EvolveTopology,
    Hooks,
    ShowProgress,
    StopAfterAccuracy,
)
from regraft.train.checkpoints import Checkpoint
from regraft.train.distill import Teachers
from regraft.train.loop import fit
from regraft.train.optimizers import OPTIMIZERS, SCHEDULES, optimizer_by_name, rate_by_name, schedule_by_name
from regraft.train.recipe import Recipe, Trained, build_model, train_recipe
from regraft.train.run import Callback, Diverged, History, Run
from regraft.train.tensorboard import TensorBoard
from regraft.train.trainer import trainer

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "AfterStep",
    "Callback",
    "Checkpoint",
    "Diverged",
    "EarlyStopping",
    "EvolveTopology",
    "History",
    "Hooks",
    "Recipe",
    "Run",
    "ShowProgress",
    "StopAfterAccuracy",
    "Teachers",
    "TensorBoard",
    "Trained",
    "build_model",
    "fit",
    "optimizer_by_name",
    "rate_by_name",
    "schedule_by_name",
    "train_recipe",
    "trainer",
]
