"""Models by a short name: ``mlp:784-300-10``, ``lenet-300-100``, ``lenet-5``, ``resnet-20``, ``wrn-16-2``,
``gpt:2-64-4``, ``vit:2-64-4-4``."""

from regraft.models.build import MODELS, build, resolve
from regraft.models.parts import ACTIVATIONS, INITS, initialise

__all__ = ["ACTIVATIONS", "INITS", "MODELS", "build", "initialise", "resolve"]
