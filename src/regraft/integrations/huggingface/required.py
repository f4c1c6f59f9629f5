"""transformers itself, or one sentence that says what to install."""

from regraft.errors import MissingDependency

try:
    import transformers
except ModuleNotFoundError as error:
    raise MissingDependency("transformers", "huggingface", "the Hugging Face integration") from error

__all__ = ["transformers"]
