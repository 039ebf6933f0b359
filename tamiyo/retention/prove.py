"""The proof that nothing is lost: what is left of a log, from the base that stays, comes to the state that there is."""

from itertools import takewhile

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import contents_of, read_base
from tamiyo.core.events import KINDS
from tamiyo.core.evolve import Fold
from tamiyo.core.paced import Pace
from tamiyo.core.retention import Holdings, Plan
from tamiyo.core.state import State
from tamiyo.errors import InvariantViolation, JournalUnreadable, RecordRedacted, RetentionUnproven
from tamiyo.retention.source import Source, entries_past, entry_at
from tamiyo.stored import event_of

__all__ = ["base_at", "confirm", "prove", "state_before"]


def base_at(source: Source, lsn: int, pace: Pace) -> journal.StateBase:
    """The base that stands at an LSN.

    Raises:
        RetentionUnproven: there is none, or it cannot be read.
    """
    try:
        entry = entry_at(source, lsn, pace)
        base = None if entry is None or entry.kind != KINDS[journal.StateBase] else event_of(entry)
    except (wal.Trimmed, JournalUnreadable) as error:
        raise _unproven(f"the base of LSN {lsn} cannot be read: {error}") from error
    if not isinstance(base, journal.StateBase):
        raise _unproven(f"no base stands at LSN {lsn}")
    return base


def state_before(source: Source, drafted: Plan, held: Holdings, pace: Pace) -> State | None:
    """A state that a plan's base can be folded from: that of the base before it, or of an empty log.

    None where neither is there any more, or nothing is planned. Raises as `base_at`.
    """
    if drafted.base is None:
        return None
    before = held.before(drafted.base)
    if before is not None:
        return read_base(base_at(source, before.lsn, pace), pace)
    return State() if held.segments[0].first_lsn == 1 else None


def confirm(source: Source, base: journal.StateBase, begun: State, pace: Pace) -> None:
    """Fold up to a base from a state before it, and compare: the base will stand alone for what goes.

    Where a report on the way has lost its payload, the run that took it has done this.

    Raises:
        RetentionUnproven: the base is not what the log comes to there.
        wal.LogError: the log cannot be read.
    """
    fold = Fold(begun)
    try:
        for entry in takewhile(lambda entry: entry.lsn <= base.at_lsn, entries_past(source, begun.last_lsn, pace)):
            fold.take(entry.lsn, event_of(entry))
    except RecordRedacted:
        return
    except (JournalUnreadable, InvariantViolation) as error:
        raise _unproven(str(error)) from error
    found = fold.state().digest(pace)
    comparable = base.digest.partition(":")[0] == found.partition(":")[0]
    if fold.last_lsn != base.at_lsn or (comparable and base.digest != found):
        raise _unproven(f"the log comes to {found} at LSN {fold.last_lsn}, and the base of it says {base.digest}")


def prove(source: Source, base: journal.StateBase, gone_lsn: int, planned_lsn: int, state: State, pace: Pace) -> str:
    """Fold what is left, from a base on, and compare.

    Args:
        source: the log.
        base: the one that stays.
        gone_lsn: the last LSN of which anything goes: nothing up to it is read.
        planned_lsn: the LSN of the run's plan.
        state: what the log comes to at `state.last_lsn`, which is the plan's or a later one and durable.
        pace: called all along.

    Returns:
        The digest at `planned_lsn`.

    Raises:
        RetentionUnproven: what is left comes to another state, or cannot be read.
        wal.LogError: the log cannot be read.
    """
    if base.needs_lsn <= gone_lsn:
        raise _unproven(
            f"the base of LSN {base.at_lsn} needs LSN {base.needs_lsn}, and what goes reaches LSN {gone_lsn}"
        )
    try:
        begun = read_base(base, pace)
        _require_contents(source, base, begun, pace)
        fold = Fold(begun)
        digest = ""
        for entry in takewhile(lambda entry: entry.lsn <= state.last_lsn, entries_past(source, base.at_lsn, pace)):
            fold.take(entry.lsn, event_of(entry))
            if entry.lsn == planned_lsn:
                digest = fold.state().digest(pace)
        found = fold.state().digest(pace)
    except (JournalUnreadable, InvariantViolation) as error:
        raise _unproven(str(error)) from error
    if fold.last_lsn != state.last_lsn or found != state.digest(pace):
        raise _unproven(
            f"from the base of LSN {base.at_lsn} on the log comes to {found} at LSN {fold.last_lsn}, and the state is "
            f"{state.digest(pace)} at LSN {state.last_lsn}"
        )
    return digest


def _require_contents(source: Source, base: journal.StateBase, begun: State, pace: Pace) -> None:
    """The contents of blueprints that the base has left out are where it says, past what goes."""
    kept = contents_of(base)
    for blueprint_id, seen in begun.blueprints.items():
        if seen.blueprint is None or seen.blueprint.digest in kept:
            continue
        entry = entry_at(source, seen.content_lsn, pace)
        observed = None if entry is None else event_of(entry)
        if not isinstance(observed, journal.BlueprintObserved) or observed.digest != seen.blueprint.digest:
            raise _unproven(f"the content of blueprint {blueprint_id!r} is not at LSN {seen.content_lsn}")


def _unproven(what: str) -> RetentionUnproven:
    return RetentionUnproven(
        f"{what}: nothing more is taken away. Audit the directory (`tamiyo audit`), and keep it as it is until that is "
        "explained"
    )
