"""The order and the distribution of the test files over the workers of pytest-xdist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# These take longest and start first; the short files then fill the workers evenly.
_FIRST = ("tests/deploy", "tests/integration/test_databases.py", "tests/cookbook", "tests/integration", "tests/compatibility")
_WHOLE = ("tests/deploy",)  # each worker with a test of it would build the image


class FileScheduling(LoadScopeScheduling):
    """Gives each worker whole files, and whole folders whose fixtures are expensive."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in _WHOLE if nodeid.startswith(f"{folder}/")), nodeid.partition("::")[0])

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = min(self.workqueue, key=self._rank)
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def _rank(self, scope: str) -> tuple[int, int]:
        place = next((number for number, start in enumerate(_FIRST) if scope.startswith(start)), len(_FIRST))
        return place, -len(self.workqueue[scope])
