"""What a replay found: where it stands, what it counted, and the first difference."""

from dataclasses import dataclass, field

from tamiyo.audit.differences import Difference
from tamiyo.core.state import State

__all__ = ["Divergence", "Replay"]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where the record is not what follows from it."""

    lsn: int
    step_index: int
    what: str
    differences: tuple[Difference, ...] = ()
    state_digest_before: str = ""

    def __str__(self) -> str:
        """In words, the fields one a line."""
        lines = [f"LSN {self.lsn}, step {self.step_index}: {self.what}"]
        lines += [f"  {difference}" for difference in self.differences]
        return "\n".join(lines)


@dataclass(slots=True)
class Replay:
    """What a replay found. `decisions` counts those recomputed; `encoding_differs` those equal in other bytes.

    `begun_lsn` is that of the base it began with, 0 where it began with the log. `digests` counts recorded states that
    are the same here, `digests_skipped` those of another version or too far back to compare; `redacted` reports whose
    payload was taken out, and which follow from their decisions.
    """

    state: State = field(default_factory=State)
    decisions: int = 0
    late_commits: int = 0
    encoding_differs: int = 0
    fingerprints: dict[str, int] = field(default_factory=dict)
    divergence: Divergence | None = None
    begun_lsn: int = 0
    digests: int = 0
    digests_skipped: int = 0
    redacted: int = 0
