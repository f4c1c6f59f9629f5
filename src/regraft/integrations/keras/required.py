"""Keras itself on the torch backend, or one sentence that says what to do; all else takes Keras from here."""

import os
import sys

from regraft.errors import InputError, MissingDependency

# Keras reads it once, when it is first imported, and would take TensorFlow without it
if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

try:
    import keras
except ModuleNotFoundError as error:
    backend = os.environ.get("KERAS_BACKEND", "")
    if error.name == "keras":
        raise MissingDependency("keras", "keras", "the Keras integration") from error
    raise InputError(
        f"Keras cannot start its backend '{backend}' ({error}), but regraft computes with torch: set the "
        "environment variable KERAS_BACKEND=torch before Keras is imported"
    ) from error

if keras.backend.backend() != "torch":
    raise InputError(
        f"the backend of Keras is '{keras.backend.backend()}', but regraft computes with torch: set the "
        "environment variable KERAS_BACKEND=torch before Keras is imported, or import "
        "regraft.integrations.keras first"
    )

__all__ = ["keras"]
