"""Running studies: cells on disk, executors, and the loop that walks a study."""

from regraft.studies.run.folder import Folder
from regraft.studies.run.perform import perform

__all__ = ["Folder", "perform"]
