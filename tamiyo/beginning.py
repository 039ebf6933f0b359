"""Where a fold of a log begins: at a snapshot, at the last base that the log holds, or with its first record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import contents_of, read_base
from tamiyo.core.events import KINDS, Event
from tamiyo.core.evolve import Fold
from tamiyo.core.paced import Pace, without_rest
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.snapshots import Snapshots
from tamiyo.stored import event_of

__all__ = ["Beginning", "begin_with", "beginning", "folded", "reopened", "with_content"]

_BASE, _BLUEPRINT = KINDS[journal.StateBase], KINDS[journal.BlueprintObserved]
_EVER = 2**63


@dataclass(frozen=True, slots=True)
class Beginning:
    """A state of the log's own history, to fold on from.

    `contents` are the `BlueprintContent`s of its blueprints, by digest. `received` is the packet that was received with
    the state's last record, where that is one.
    """

    state: State = field(default_factory=State)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    received: journal.StepReceived | None = None


def reopened(lost: wal.Log, open_log: Callable[[], wal.Log]) -> wal.Log:
    """Close a log that failed and open it again: that very one, and none in the place of one that has gone.

    Raises:
        wal.LogError: it cannot be opened, or another one lies there now.
        OSError: it is not there.
    """
    lost.close()
    if not lost.segments():  # opening would begin a new one, without its history
        raise FileNotFoundError(f"there is no log at {lost.path} any more")
    log = open_log()
    if log.head().log_id == lost.head().log_id:
        return log
    log.close()
    raise wal.LogError(f"another log lies at {lost.path} than the one that was in use")


def beginning(
    log: wal.Log, snapshots: Snapshots | None, *, upto_lsn: int = _EVER, pace: Pace = without_rest
) -> Beginning:
    """The latest place to begin that speaks of no record past `upto_lsn`.

    Without a snapshot the log is read through for its last base; that is ten times as fast as folding it.

    Raises:
        JournalUnreadable: the log's first records were pruned, and it holds no base that can be read in their place.
        wal.LogError: the log cannot be read.
    """
    snapshot = None if snapshots is None else snapshots.newest(log, upto_lsn)
    if snapshot is not None:
        return Beginning(snapshot.state, snapshot.contents, _received(snapshot.last))
    first_lsn, base = _last_base(log, upto_lsn, pace)
    if base is not None:
        return begin_with(log, base)
    if first_lsn > 1:
        before = "" if upto_lsn == _EVER else f" LSN {upto_lsn}"
        raise JournalUnreadable(
            f"the log begins with LSN {first_lsn}, and no StateBase in it speaks of the records before{before}: what "
            "was pruned was needed. Restore the pruned segments from the archive of the run that took them"
        )
    return Beginning()


def folded(
    log: wal.Log, begun: Beginning, *, upto_lsn: int = _EVER, pace: Pace = without_rest
) -> tuple[State, dict[str, bytes]]:
    """The state at the end of a log, or at `upto_lsn`, and the contents of its blueprints by digest.

    Raises what reading and folding raise.
    """
    fold, contents = Fold(begun.state), dict(begun.contents)
    take = fold.take
    for entry in log.read(begun.state.last_lsn) if begun.state.last_lsn < upto_lsn else ():
        lsn, kind, _ = entry
        event = event_of(entry)
        take(lsn, event)
        if kind == _BLUEPRINT:
            contents = with_content(contents, event, fold.state())
        if lsn == upto_lsn:
            break
        pace()
    return fold.state(), contents


def with_content(contents: dict[str, bytes], event: Event, after: State) -> dict[str, bytes]:
    """The content of each blueprint's last version, no more: it is there before the state names it."""
    if not isinstance(event, journal.BlueprintObserved) or not event.content:
        return contents
    live = {seen.blueprint.digest for seen in after.blueprints.values() if seen.blueprint is not None}
    return {digest: kept for digest, kept in contents.items() if digest in live} | {event.digest: event.content}


def _last_base(log: wal.Log, upto_lsn: int, pace: Pace) -> tuple[int, journal.StateBase | None]:
    """The log's first LSN, 1 for an empty one, and the last base that speaks of nothing past `upto_lsn`."""
    first_lsn, last = 0, None
    for entry in log.read(None):
        first_lsn = first_lsn or entry.lsn
        if entry.kind == _BASE:
            base = event_of(entry)
            if isinstance(base, journal.StateBase) and base.at_lsn <= upto_lsn:
                last = base if last is None or base.at_lsn >= last.at_lsn else last
        pace()
    return first_lsn or 1, last


def begin_with(log: wal.Log, base: journal.StateBase) -> Beginning:
    """Begin with one base of the log. Raises as `beginning`."""
    state, contents = read_base(base), contents_of(base)
    for seen in state.blueprints.values():
        if seen.blueprint is not None and seen.blueprint.digest not in contents:
            observed = _event_at(log, seen.content_lsn)
            if isinstance(observed, journal.BlueprintObserved):
                contents[seen.blueprint.digest] = observed.content
    received = _event_at(log, base.at_lsn)
    return Beginning(state, contents, received if isinstance(received, journal.StepReceived) else None)


def _event_at(log: wal.Log, lsn: int) -> object:
    """The event at an LSN, None where it was pruned: then nothing that is left needs it."""
    try:
        entry = next(log.read(lsn - 1), None)
    except wal.Trimmed:
        return None
    return None if entry is None or isinstance(entry, wal.Redacted) else event_of(entry)


def _received(entry: wal.Entry) -> journal.StepReceived | None:
    event = event_of(entry)
    return event if isinstance(event, journal.StepReceived) else None
