"""What a replay found: where it stands, what it counted, and the first difference."""

from dataclasses import dataclass, field, fields

from tamiyo.audit.differences import Difference
from tamiyo.core.state import State

__all__ = ["Counted", "Divergence", "Replay"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where the record is not what follows from it; `step_index` is 0 where that is in no step."""

    lsn: int
    step_index: int
    what: str
    differences: tuple[Difference, ...] = ()
    state_digest_before: str = ""

    def __str__(self) -> str:
        """In words, the fields one a line."""
        step = f", step {self.step_index}" if self.step_index else ""
        lines = [f"LSN {self.lsn}{step}: {self.what}"]
        lines += [f"  {difference}" for difference in self.differences]
        return "\n".join(lines)


@dataclass(slots=True)
class Counted:
    """What was counted. `decisions` are those recomputed; `encoding_differs` those equal in other bytes.

    `digests` counts recorded states that are the same here, `digests_skipped` those of another version or too far back
    to compare; `redacted` reports whose payload was taken out, and which follow from their decisions. `fingerprints`
    are those of the code that wrote the log, each with the LSN where it was first named.
    """

    decisions: int = 0
    late_commits: int = 0
    encoding_differs: int = 0
    fingerprints: dict[str, int] = field(default_factory=dict)
    digests: int = 0
    digests_skipped: int = 0
    redacted: int = 0

    def counted(self) -> "Counted":
        """The counts as they are now."""
        counts = {one.name: getattr(self, one.name) for one in fields(Counted)}
        return Counted(**counts | {"fingerprints": dict(self.fingerprints)})

    def add(self, later: "Counted") -> None:
        """Count what was counted in a later part of the log."""
        for one in fields(Counted):
            if one.name != "fingerprints":
                setattr(self, one.name, getattr(self, one.name) + getattr(later, one.name))
        self.fingerprints = later.fingerprints | self.fingerprints


@dataclass(slots=True)
class Replay(Counted):
    """What a replay found. `begun_lsn` is that of the base it began with, 0 where it began with the log."""

    state: State = field(default_factory=State)
    divergence: Divergence | None = None
    begun_lsn: int = 0
