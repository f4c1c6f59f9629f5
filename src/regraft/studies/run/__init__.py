"""Running studies: cells on disk, executors, and the loop that walks a study."""

from regraft.studies.run.folder import Folder
from regraft.studies.run.here import run_here
from regraft.studies.run.perform import perform
from regraft.studies.run.progress import Progress
from regraft.studies.run.runner import Ran, run

__all__ = ["Folder", "Progress", "Ran", "perform", "run", "run_here"]
