"""Sparse networks as scikit-learn estimators: in pipelines, grid searches and data frames."""

from regraft.estimators.classifier import SparseMLPClassifier
from regraft.estimators.regressor import SparseMLPRegressor

__all__ = ["SparseMLPClassifier", "SparseMLPRegressor"]
