"""The studies that regraft brings: one module for each group of tables and figures of a thesis."""

MODULES: dict[str, str] = {
    "merging-phase-1": "regraft.studies.papers.merging_phase1",
    "merging-phase-2": "regraft.studies.papers.merging_phase2",
    "merging-normalised": "regraft.studies.papers.merging_normalised",
    "merging-aligned": "regraft.studies.papers.merging_aligned",
    "gates-sine": "regraft.studies.papers.gates_sine",
    "gates-lenet": "regraft.studies.papers.gates_images",
    "gates-resnet": "regraft.studies.papers.gates_images",
    "rewiring-datasets": "regraft.studies.papers.rewiring_datasets",
    "rewiring-speed": "regraft.studies.papers.rewiring_speed",
    "rewiring-deep": "regraft.studies.papers.rewiring_deep",
    "growth-search": "regraft.studies.papers.growth",
    "pruning-baselines": "regraft.studies.papers.pruning.baselines",
    "pruning-schedules": "regraft.studies.papers.pruning.schedules",
    "pruning-learned": "regraft.studies.papers.pruning.learned",
    "pruning-stacked": "regraft.studies.papers.pruning.stacked",
    "pruning-scores-as-weights": "regraft.studies.papers.pruning.initial",
    "pruning-combined": "regraft.studies.papers.pruning.combined",
}
"""Name of a study to the module that holds it as a member of its ``STUDIES``; in reading order."""
