"""Retention of a directory whose log nobody has open, and the dry run of any."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import wal
from tamiyo.beginning import beginning, folded
from tamiyo.clock import Clock, SystemClock
from tamiyo.config import Settings, given_or_loaded
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.events import KINDS, Event
from tamiyo.core.paced import Pace, without_rest
from tamiyo.core.retention import Windows
from tamiyo.core.state import State
from tamiyo.errors import NotRecorded, PacketRejected
from tamiyo.fingerprint import code_fingerprint
from tamiyo.journal import Journal
from tamiyo.records import JournalUnavailable
from tamiyo.retention.preview import preview_of, untrimmed
from tamiyo.retention.prove import base_at, confirm, prove, state_before
from tamiyo.retention.report import Preview, Report
from tamiyo.retention.run import Order, Retention, Tell, silently
from tamiyo.retention.source import Files, Source
from tamiyo.retention.survey import entries_backwards, state_of_log, survey
from tamiyo.snapshots import Snapshots
from tamiyo.stored import event_of

__all__ = ["preview", "prune_unrecorded", "retain_directory"]

ARRIVALS_KEPT = 60
"""How many of the last packets an audit remembers the state of, at least: a base of another could not be compared."""
CONTENTS_MAX_BYTES = 1 << 20
LOOKED_AT = frozenset(KINDS[kind] for kind in (journal.StepPaused, journal.CommitLate, journal.StateBase))


def preview(
    directory: Path, settings: Settings | None = None, *, clock: Clock | None = None, pace: Pace = without_rest
) -> Preview:
    """What a retention run of a directory would take now; reads only, also beside a live service.

    Raises:
        FileNotFoundError: there is no log.
        JournalUnreadable: the log cannot be read by this version.
        wal.LogError, OSError: the log is damaged, or cannot be read.
    """
    windows = given_or_loaded(settings).windows()
    return untrimmed(lambda: _previewed(directory, windows, clock or SystemClock(), pace))


def _previewed(directory: Path, windows: Windows, clock: Clock, pace: Pace) -> Preview:
    files = Files(_log_of(directory))
    state = state_of_log(files, pace)
    now_ns = max(state.event_time_ns + 1, clock.wall_ns())
    return preview_of(files, state, windows, now_ns, pace)


def retain_directory(
    directory: Path,
    order: Order,
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    disk: wal.Disk | None = None,
    pace: Pace = without_rest,
    tell: Tell = silently,
) -> Report:
    """Open the log of a directory, take what is due, and close it.

    Where a base of the state is missing that would let more go, it is written first.

    Raises:
        FileNotFoundError: there is no log.
        wal.LogLocked: a live service has it; `TamiyoService.retain` is its own call for this.
        TamiyoError, wal.LogError, OSError: as `Retention.run`, and what opening a log raises.
    """
    windows = given_or_loaded(settings).windows()
    with opened(directory, clock, disk) as journal_:
        retention = Retention(journal_, windows)
        report = retention.run(order, pace=pace, tell=tell)
        if report.wants_base and write_base(journal_, pace):
            more = retention.run(replace(order, run_id=f"{order.run_id}-based"), pace=pace, tell=tell)
            report = replace(more, outcomes=(*report.outcomes, *more.outcomes))
        return report


def prune_unrecorded(
    directory: Path,
    settings: Settings | None = None,
    *,
    keep_heads: tuple[wal.Head, ...] = (),
    clock: Clock | None = None,
    pace: Pace = without_rest,
) -> tuple[Preview, wal.Pruned]:
    """Prune what is due without opening the log, for a disk on which not even the plan can be written.

    What goes is what a run would prune, proven in the same way; payloads stay. The log says nothing of it but that it
    begins later, so keep what this returns.

    Raises:
        FileNotFoundError: there is no log.
        RetentionUnproven: what would be left does not come to the same state; nothing was pruned.
        wal.LogLocked: a live service has the log.
        JournalUnreadable, wal.LogError, OSError: the log cannot be read or pruned.
    """
    path = _log_of(directory)
    files = Files(path)
    found = preview(directory, settings, clock=clock, pace=pace)
    drafted = found.plan
    if drafted.base is not None and drafted.segments:
        state = state_of_log(files, pace)
        windows = given_or_loaded(settings).windows()
        held = survey(files, state.outbox, windows, drafted.now_ns, pace).holdings
        base, before = base_at(files, drafted.base.lsn, pace), state_before(files, drafted, held, pace)
        if before is not None:
            confirm(files, base, before, pace)
        prove(files, base, drafted.prune_before_lsn - 1, 0, state, pace)
    return found, wal.prune(path, drafted.prune_before_lsn, keep_heads=keep_heads)


@contextmanager
def opened(directory: Path, clock: Clock | None, disk: wal.Disk | None) -> Iterator[Journal]:
    """The journal of a directory, opened as a service would, and closed after."""
    path = directory / "wal" if disk is not None else _log_of(directory)
    snapshots = None if disk is not None else Snapshots(directory, code_fingerprint())
    segments = wal.segments(path, disk=disk)
    segment_bytes = segments[-1].size_bytes  # as the service has it: another length begins a new segment
    journal_ = Journal(
        lambda: wal.Log.open(path, segment_bytes=segment_bytes, disk=disk), clock or SystemClock(), snapshots
    )
    try:
        yield journal_
    except BaseException:  # whatever it was, an interrupt too, the lock of the log must not stay behind
        with suppress(wal.LogError):  # what went wrong comes first; closing may fail for the same reason
            journal_.abandon()
        raise
    journal_.close()


def write_base(journal_: Journal, pace: Pace) -> bool:
    """Write a base of the state as it was at a packet's arrival that telemetry has come past.

    Returns:
        Whether one was written: not where there is no such packet among those that an audit can compare.

    Raises what reading the log raises.
    """
    log = journal_.log
    at_lsn = _arrival(log, journal_.state.outbox.telemetry_lsn, pace)
    if at_lsn is None:
        return False
    begun = beginning(log, journal_.snapshots, upto_lsn=at_lsn, pace=pace)
    state, contents = folded(log, begun, upto_lsn=at_lsn, pace=pace)
    room = min(CONTENTS_MAX_BYTES, log.limits.max_record_bytes // 2)
    base = base_of(state, contents, 0, contents_max_bytes=room, pace=pace)

    def make(_: State, now_ns: int) -> tuple[Event, ...]:
        base.event_time_ns = now_ns
        return (base,)

    try:
        recorded = journal_.record_aside(make, log=log)
    except PacketRejected:  # a state that no segment of this length holds
        return False
    except JournalUnavailable as unavailable:
        raise NotRecorded(f"no base of the state was written ({unavailable.cause}): run again") from unavailable
    if recorded is not None:
        recorded.result()
    return True


def _arrival(source: Source, telemetry_lsn: int, pace: Pace) -> int | None:
    """The last packet's arrival up to `telemetry_lsn` that nothing later reaches back across.

    None where a base of it is there already, or an audit could not compare it any more.
    """
    across: list[tuple[int, int]] = []  # a step, and the record that tells only then what became of it
    arrivals = based_lsn = 0
    for entry in entries_backwards(source, pace):
        if entry.kind in LOOKED_AT:
            event = event_of(entry)
            if isinstance(event, journal.StepPaused | journal.CommitLate):
                across.append((event.step_lsn, entry.lsn))
            elif isinstance(event, journal.StateBase):
                based_lsn = max(based_lsn, event.at_lsn if event.at_lsn <= telemetry_lsn else 0)
        elif entry.kind == KINDS[journal.StepReceived]:
            arrivals += 1
            if entry.lsn <= based_lsn or arrivals > ARRIVALS_KEPT:
                return None
            if entry.lsn <= telemetry_lsn and not any(step_lsn < entry.lsn < lsn for step_lsn, lsn in across):
                return entry.lsn
    return None


def _log_of(directory: Path) -> Path:
    path = directory / "wal"
    try:
        names = [entry.name for entry in path.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    if not any(name.endswith(".wal") for name in names):
        raise FileNotFoundError(f"there is no log at {path}; give the directory that the service was opened with")
    return path
