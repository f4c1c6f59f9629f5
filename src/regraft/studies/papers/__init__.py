"""The studies that regraft brings: one module for each group of tables and figures of a thesis."""

MODULES: dict[str, str] = {
    "gates-sine": "regraft.studies.papers.gates_sine",
    "gates-lenet": "regraft.studies.papers.gates_images",
    "gates-resnet": "regraft.studies.papers.gates_images",
    "rewiring-datasets": "regraft.studies.papers.rewiring_datasets",
}
"""Name of a study to the module that holds it as a member of its ``STUDIES``; in reading order."""
