"""Hugging Face: ``Evolution``, a callback of transformers' ``Trainer``, and sparse models on disk.

Needs transformers and, for the Trainer, accelerate (extra ``huggingface``).
"""

from regraft.integrations.huggingface.callback import Evolution
from regraft.integrations.huggingface.networks import densify, from_pretrained, use_linear

__all__ = ["Evolution", "densify", "from_pretrained", "use_linear"]
