"""Projections: tables made from the log, for people and programs that would rather ask than replay.

    log ──▶ Tail (reads on, checks that rows and log belong together) ──▶ Projection (rows + applied LSN, one
            transaction) ──▶ summary(), norms(), registries()

Rule 1: the log is the truth; a projection is disposable. What cannot be used is made again, and that is reported.
Rule 2: rows and the applied LSN change in one transaction, so there is never a row without its place in the log.
Rule 3: the step path never waits for a projection: `ProjectionFollower` works on a thread of its own.
Rule 4: plain SQLAlchemy in models, projectors and queries; what only SQLite needs is in `database`.

Rule 5: a log may have lost its beginning, or payloads. Past the plan of the run that took them the rows are the same,
        whoever read the log when: `forgetting`.

Reading order: `models` (the tables), `projectors` (event to rows; `rows` has them by family), `standing` (what is
folded), `forgetting`, `tail`, `projection`, `follower`.
"""

from tamiyo.projections.doctor import Diagnosis, Difference, diagnose
from tamiyo.projections.exports import export_norms, export_registries
from tamiyo.projections.follower import ProjectionFollower
from tamiyo.projections.projection import DATABASE_NAME, Projection
from tamiyo.projections.queries import Summary

__all__ = [
    "DATABASE_NAME",
    "Diagnosis",
    "Difference",
    "Projection",
    "ProjectionFollower",
    "Summary",
    "diagnose",
    "export_norms",
    "export_registries",
]
