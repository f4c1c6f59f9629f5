"""All targets, by name."""

from . import arguments, datasets, messages, networks, studies, texts
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (networks, messages, datasets, studies, texts, arguments)
    for target in module.TARGETS
}
