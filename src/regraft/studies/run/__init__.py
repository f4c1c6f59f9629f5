"""Running studies: cells on disk, executors, and the loop that walks a study."""

from regraft.studies.folder import Folder
from regraft.studies.run.perform import perform
from regraft.studies.run.progress import Progress
from regraft.studies.run.runner import Ran, run

__all__ = ["Folder", "Progress", "Ran", "perform", "run"]
