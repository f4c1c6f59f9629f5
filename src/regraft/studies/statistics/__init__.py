"""Statistics of studies: means with intervals, tests of differences, correction for many comparisons."""

from regraft.studies.statistics.compare import Comparison, compare, letters, marks, tell_apart
from regraft.studies.statistics.correct import CORRECTIONS, benjamini_hochberg, corrected, holm
from regraft.studies.statistics.describe import Samples, Summary, by_seed, summary
from regraft.studies.statistics.significance import Test, paired, welch
from regraft.studies.statistics.tabulate import table_of

__all__ = [
    "CORRECTIONS", "Comparison", "Samples", "Summary", "Test", "benjamini_hochberg", "by_seed", "compare",
    "corrected", "holm", "letters", "marks", "paired", "summary", "table_of", "tell_apart", "welch",
]  # fmt: skip
