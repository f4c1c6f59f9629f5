"""What the tests of single studies share: the results of a module's study at preset smoke."""

from __future__ import annotations

import pytest

from regraft.studies.folder import Folder
from regraft.studies.run import run
from regraft.studies.study import Rows
from regraft.studies.tables import table


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The table of the ``STUDY`` of the test's module, run once."""
    folder = Folder(tmp_path_factory.mktemp("study") / "results", create=True)
    run(request.module.STUDY, "smoke", folder, executor="inline")
    return table(request.module.STUDY, "smoke", folder)
