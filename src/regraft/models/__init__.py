"""Models by a short name: ``mlp:784-300-100-10``, ``lenet-300-100``, ``lenet-5``."""

from regraft.models.build import MODELS, build, resolve
from regraft.models.parts import ACTIVATIONS, INITS, initialise

__all__ = ["ACTIVATIONS", "INITS", "MODELS", "build", "initialise", "resolve"]
