"""Hostile input for every reader of regraft: files, messages, texts, arguments.

``python -m benchmarks.fuzz`` runs it; see ``docs/results/fuzzing.md``.
"""
