"""What is made from the log for others to read: exported files and the projection. It may fail without harm.

Rule: nothing here is on a step's way, and nothing here is needed to go on; it is made again when next asked for.
"""

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import wal
from tamiyo.core.norms import Norm
from tamiyo.core.registries import Registries
from tamiyo.core.state import State
from tamiyo.errors import JournalError

if TYPE_CHECKING:
    from tamiyo.projections import Projection

__all__ = ["Derived"]

logger = logging.getLogger(__name__)

CATCH_UP_S = 10.0
"""How long closing waits for the projection: the rows of minutes of steps, and no reason to be killed for."""
CATCH_UP_ENTRIES = 20_000


def _caught_up(projection: "Projection", log: Path) -> bool:
    """Apply what there is, for a while; whether that was all."""
    deadline_s = time.monotonic() + CATCH_UP_S
    while projection.catch_up(log, CATCH_UP_ENTRIES) == CATCH_UP_ENTRIES:
        if time.monotonic() >= deadline_s:
            return False
    return True


class Derived:
    """The derived files of one directory; of none where that is None."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._writing = threading.Lock()
        self._norms: tuple[Norm, ...] | None = None
        self._registries: Registries | None = None

    def export(self, state: State) -> None:
        """Rewrite the exported files where they have changed or are gone; one call at a time, another does nothing."""
        if self._directory is None or not self._writing.acquire(blocking=False):
            return
        try:
            self._export(self._directory, state)
        except OSError as error:
            logger.warning("norms and registries in %s are not up to date: %s", self._directory, str(error))
        finally:
            self._writing.release()

    def finish(self, state: State) -> None:
        """After the last step: the exported files, and the projection, as far as it comes in `CATCH_UP_S`."""
        if self._directory is None:
            return
        from tamiyo.projections import Projection  # noqa: PLC0415  slow to import, and no step needs it

        self._norms = self._registries = None  # for the last time, whatever somebody made of them meanwhile
        self.export(state)
        try:
            with Projection.open(self._directory) as projection:
                if not _caught_up(projection, self._directory / "wal"):
                    logger.warning(
                        "the projection of %s has come to LSN %d of %d: what is left is applied when it is next opened;"
                        " a ProjectionFollower beside the service keeps it current",
                        self._directory, projection.applied_lsn, state.last_lsn,
                    )  # fmt: skip
        except (OSError, JournalError, wal.LogError) as error:
            logger.warning("the log is closed, but its projection is not up to date: %s", str(error))

    def _export(self, directory: Path, state: State) -> None:
        from tamiyo.projections import export_norms, export_registries  # noqa: PLC0415  as above
        from tamiyo.projections.exports import NORMS_NAME, registry_name  # noqa: PLC0415

        if state.norms != self._norms or not (directory / NORMS_NAME).exists():
            export_norms(directory, state.norms)
            self._norms = state.norms
        stand = all((directory / registry_name(kind)).exists() for kind in state.registries)
        if state.registries is not self._registries or not stand:
            export_registries(directory, state.registries)
            self._registries = state.registries
