"""The audit of a directory, and how it reads."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import wal
from tamiyo.audit.agreement import Reinference
from tamiyo.audit.follower import Asked
from tamiyo.audit.parts import in_parts
from tamiyo.audit.reading import replayed
from tamiyo.audit.replay import Divergence, Replay
from tamiyo.audit.workers import Workers
from tamiyo.errors import JournalUnreadable
from tamiyo.words import counted

if TYPE_CHECKING:
    from tamiyo.policy import Policy

__all__ = ["FAIL", "PASS", "UNVERIFIABLE", "AuditReport", "Level", "audit"]

PASS, FAIL, UNVERIFIABLE = "PASS", "FAIL", "UNVERIFIABLE"
LEVEL_DEFAULT, LEVEL_MAX = 2, 3


@dataclass(frozen=True, slots=True)
class Level:
    """One level's verdict and why."""

    level: int
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The verdicts, the first divergence if there is one, and the digest of the state at the end.

    `begun_lsn` is the horizon of level 2: decisions past it were recomputed, from the state that a base holds of it; 0
    where that was all of them. `inferences` are level 3 in numbers, None where it was not asked for or saw no end.
    """

    directory: str
    levels: tuple[Level, ...]
    divergence: Divergence | None = None
    state_digest: str = ""
    begun_lsn: int = 0
    inferences: Reinference | None = None

    @property
    def verdict(self) -> str:
        """The worst of the levels: FAIL before UNVERIFIABLE before PASS."""
        verdicts = [level.verdict for level in self.levels]
        return next(verdict for verdict in (FAIL, UNVERIFIABLE, PASS) if verdict in verdicts)

    @property
    def passed(self) -> bool:
        """Whether every level passed."""
        return self.verdict == PASS

    @property
    def text(self) -> str:
        """The report in words; its last line is the verdict."""
        lines = [f"audit of {self.directory}"]
        lines += [f"  level {level.level}: {level.verdict}  {level.detail}" for level in self.levels]
        if self.divergence is not None:
            lines += ["first difference:", *(f"  {line}" for line in str(self.divergence).splitlines())]
        if self.state_digest:
            lines.append(f"  state digest {self.state_digest}")
        return "\n".join([*lines, self.verdict_line])

    @property
    def verdict_line(self) -> str:
        """`audit: PASS (levels 1, 2)`, or the verdict with the levels that have it."""
        named = [str(level.level) for level in self.levels if level.verdict == self.verdict]
        return f"audit: {self.verdict} (level{'s' if len(named) > 1 else ''} {', '.join(named)})"

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def audit(
    directory: Path | str,
    level: int = LEVEL_DEFAULT,
    progress: Callable[[int], None] | None = None,
    *,
    head: wal.Head | None = None,
    checkpoints: Iterable[Path] = (),
    policies: "Iterable[Policy]" = (),
    workers: int = 1,
) -> AuditReport:
    """Audit the log of a service's directory; reads only, also beside a live writer.

    Level 3 loads networks and computes with as many threads as torch has in this process: not beside a trainer.

    With `workers` that many processes share levels 2 and 3, and the report is the same. They take as many cores, and at
    level 3 a network each; torch has its share of the cores in each. A log that does not pass, or that holds no
    StateBase to begin with, is audited by this process as without them, in the end. A script that asks for them is
    imported by them: what it does itself stands under `if __name__ == "__main__":`.

    Args:
        directory: what was given to `TamiyoService.open`.
        level: 1 for the log's integrity, 2 for every decision as well, 3 for every graph and inference, too.
        progress: called with the LSN now and then.
        head: the head of this log that was kept elsewhere: the log must reach it and must have been what it says.
        checkpoints: for level 3, files of policies that the directory does not keep: those that the host gave.
        policies: for level 3, policies of the host that are no checkpoint; they cannot be handed to other processes.
        workers: processes to share the work.

    Raises:
        FileNotFoundError: there is no log in the directory.
        OSError: what is there, or a checkpoint, cannot be read.
        ValueError: there is no such level, fewer than one worker, or several and policies that are objects.
    """
    if level not in range(1, LEVEL_MAX + 1):
        raise ValueError(f"there is no audit level {level}; levels 1 to {LEVEL_MAX} are known")
    if workers < 1:
        raise ValueError(f"an audit takes one worker or more, not {workers}")
    checkpoints, policies = tuple(checkpoints), tuple(policies)
    if policies and workers > 1:
        raise ValueError("policies of the host cannot be handed to other processes: audit with workers=1")
    path = Path(directory) / "wal"
    if not _holds_anything(path):
        raise FileNotFoundError(f"there is no log at {path}; give the directory that the service was opened with")
    found_of_log = wal.verify(path, head)
    integrity = _integrity(found_of_log)
    if level == 1 or integrity.verdict != PASS:
        return AuditReport(str(directory), (integrity,))
    onwards = None if progress is None else _onwards(progress)
    asked = _asked(Path(directory), checkpoints, policies) if level == LEVEL_MAX else None
    passed = None
    if workers > 1:
        prepare = None if asked is None else _prepared(Path(directory), checkpoints, workers)
        with Workers(workers, prepare) as hands:
            passed = in_parts(path, found_of_log.first_lsn, found_of_log.last_lsn, hands, onwards)
    found: Replay | None
    if passed is not None:
        found, again = passed
        levels = [integrity, Level(2, PASS, _decisions_detail(found))]
    else:
        found, second = _decisions(path, found_of_log.first_lsn, onwards, asked)
        again = None if asked is None else asked.finish()
        levels = [integrity, second]
    divergence = None if found is None else found.divergence
    if again is not None and found is None and again.divergence is None:
        again = None  # it saw no end
    if again is not None:
        levels.append(Level(3, _inferences_verdict(again), _inferences_detail(again, found)))
        divergence = divergence or again.divergence
    digest, begun_lsn = ("", 0) if found is None else (found.state.digest(), found.begun_lsn)
    return AuditReport(str(directory), tuple(levels), divergence, digest, begun_lsn, again)


def _holds_anything(path: Path) -> bool:
    """One that may not be looked into is another matter, and raises OSError."""
    try:
        return any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _onwards(progress: Callable[[int], None]) -> Callable[[int], None]:
    """The same, and never told of an LSN before one that it was told of: a log may be gone through twice."""
    furthest = 0

    def tell(lsn: int) -> None:
        nonlocal furthest
        if lsn > furthest:
            furthest = lsn
            progress(lsn)

    return tell


def _decisions(
    path: Path, first_lsn: int, progress: Callable[[int], None] | None, asked: Asked | None
) -> tuple[Replay | None, Level]:
    """Level 2 in this process; None for a log that could not be read to its end."""
    try:
        found = replayed(path, first_lsn, progress, asked)
    except JournalUnreadable as error:
        return None, Level(2, UNVERIFIABLE, str(error))
    except wal.LogError as error:
        return None, Level(2, FAIL, f"the log could not be read to its end: {error}")
    return found, Level(2, PASS if found.divergence is None else FAIL, _decisions_detail(found))


def _asked(directory: Path, checkpoints: Iterable[Path], policies: "Iterable[Policy]") -> Asked:
    from tamiyo.audit.inference import Inferences, past_policies  # noqa: PLC0415  levels 1 and 2 know no graph

    return Inferences(past_policies(directory, checkpoints, policies))


def _prepared(directory: Path, checkpoints: Sequence[Path], workers: int) -> Callable[[], Callable[[], Asked]]:
    from tamiyo.audit.inference import asking_alone  # noqa: PLC0415  levels 1 and 2 know no graph

    return partial(asking_alone, directory, checkpoints, max(1, (os.cpu_count() or 1) // workers))


INTEGRITY: Mapping[str, str] = MappingProxyType(
    {
        "intact": PASS,
        "torn": PASS,  # what is torn was never acknowledged; opening the log sets it aside
        "redacted": PASS,  # its owner took payloads out, and their digests prove that nothing else changed
        "pruned": PASS,
        "truncated": FAIL,
        "tampered": FAIL,
        "corrupt": FAIL,
        "empty": UNVERIFIABLE,
        "unsupported": UNVERIFIABLE,
    }
)
"""What each status of `wal.verify` means for level 1."""


def _integrity(found: wal.Verdict) -> Level:
    detail = f"{counted(found.records, 'record')} in {counted(found.segments, 'segment')}"
    if found.status in ("pruned", "redacted"):
        detail += f"; {found.status}: from LSN {found.first_lsn} on, {counted(found.redacted, 'payload')} taken out"
    elif found.status != "intact":
        detail += f"; {found.status}: {found.problem or 'no segment'}"
    if found.segment is not None:
        detail += f", at byte {found.offset_bytes} of segment {found.segment}, after LSN {found.last_lsn}"
    if found.expected is not None:
        detail += f"; the expected head is {found.expected}"
    verdict = UNVERIFIABLE if found.expected == "unprovable" else INTEGRITY[found.status]
    return Level(1, verdict, detail)


def _decisions_detail(found: Replay) -> str:
    parts = [f"{counted(found.decisions, 'decision')} recomputed"]
    if found.begun_lsn:
        parts[0] += f" from LSN {found.begun_lsn + 1} on, from the base of what was before"
    if found.redacted:
        reports = counted(found.redacted, "report whose", "reports whose")
        parts.append(f"{reports} payload was taken out, following from decisions")
    if found.digests:
        parts.append(f"{counted(found.digests, 'recorded state')} compared")
    if found.digests_skipped:
        skipped = counted(found.digests_skipped, "recorded state")
        parts.append(f"{skipped} of another version or too far back, not compared")
    if found.late_commits:
        parts.append(counted(found.late_commits, "late commit"))
    if found.state.steps_unrecorded:
        parts.append(f"{counted(found.state.steps_unrecorded, 'step')} unrecorded while the log took none")
    if found.state.undecided and found.divergence is None:  # else one may be the step that differs
        parts.append(f"{counted(len(found.state.undecided), 'packet')} received and never decided")
    if found.encoding_differs:
        parts.append(f"{counted(found.encoding_differs, 'event')} equal in other bytes (encoding differs)")
    if len(found.fingerprints) > 1:
        parts.append(f"written by {len(found.fingerprints)} versions of the code")
    return ", ".join(parts)


def _inferences_verdict(found: Reinference) -> str:
    if found.divergence is not None:
        return FAIL
    return UNVERIFIABLE if found.unknown else PASS


def _inferences_detail(found: Reinference, decisions: Replay | None) -> str:
    parts = [
        f"{counted(found.graphs, 'graph')} built again", f"{counted(found.inferences, 'inference')} run again",
    ]  # fmt: skip
    if found.equal:
        parts.append(f"{found.equal:,} of them equal to the last bit")
    if found.close:
        parts.append(
            f"{found.close:,} within {found.tolerance:.0e} (largest difference {found.largest_error:.1e}, at LSN "
            f"{found.largest_error_lsn})"
        )
    if found.ties:
        parts.append(f"{found.ties} of these a tie that goes the other way here")
    if found.same_choice:
        parts.append(f"{found.same_choice} of an engine that is not exact, with every choice the same")
    if found.skipped:
        parts.append(f"{counted(found.skipped, 'step')} rightly asked no policy")
    if found.unanswered:
        parts.append(f"{counted(found.unanswered, 'step')} had no answer to compare")
    if decisions is not None and decisions.divergence is not None:
        parts.append(f"up to LSN {decisions.divergence.lsn}, where level 2 ends")
    parts += [f"{count} steps not comparable: {reason}" for reason, count in found.unknown.items()]
    return ", ".join(parts)
