"""The results of studies as a SQLite database: made from the cells, read without regraft too."""

from regraft.studies.store.database import FILE, Store
from regraft.studies.store.export import to_csv, to_json, to_parquet, to_tensorboard
from regraft.studies.store.frames import frame, records
from regraft.studies.store.query import Answer, Shown, contents, query
from regraft.studies.store.refresh import rebuild, synchronise
from regraft.studies.store.schema import FORMAT

__all__ = [
    "FILE", "FORMAT", "Answer", "Shown", "Store", "contents", "frame", "query", "rebuild", "records",
    "synchronise", "to_csv", "to_json", "to_parquet", "to_tensorboard",
]  # fmt: skip
