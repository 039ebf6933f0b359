"""Replay of a log: the state at its end, and the first decision that does not follow from its record."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, get_args

import wal
from tamiyo.audit.differences import Difference, differences
from tamiyo.audit.follower import Follower
from tamiyo.audit.found import Divergence, Replay
from tamiyo.audit.memory import REPORTS_OR_THEIR_END, UNWRITTEN, OpenStep, States, Unpublished, observation_of
from tamiyo.audit.outside import Idle, following
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of, read_base
from tamiyo.core.behaviour import retired
from tamiyo.core.blueprint import content_digest
from tamiyo.core.decide import decide, pause_released
from tamiyo.core.events import KINDS, MESSAGES, Event, encode
from tamiyo.core.evolve import Fold
from tamiyo.core.inputs import Inference, Inputs, MetadataFault, require_fit, step_inputs
from tamiyo.core.state import State
from tamiyo.errors import InvariantViolation, JournalUnreadable
from tamiyo.stored import event_of

__all__ = ["Auditor", "Divergence", "Replay", "begun_with", "replay"]

Observed = journal.GraphObserved | Inference | MetadataFault
LookedBack = journal.StateBase | journal.SnapshotTaken | journal.RetentionCompleted
"""What is said of a state that was."""
Derived = (
    journal.ConservativeModeChanged | journal.FieldReportIssued | journal.WindowClosed | journal.FieldReportsDropped
)
"""What only ever follows from something else."""
PROGRESS_EVERY = 1_000
SINCE_MAX = 512


class Auditor:
    """Folds the log and, at each decision, decides again: event by event, for whoever follows a log that still grows.

    `found` is what it found so far; after a divergence its state stands still.
    """

    def __init__(self, begun: State | None = None, follower: Follower | None = None) -> None:
        """Begin after a state that a base holds, or with the first record of the log; `follower` is told of each."""
        state = begun or State()
        self._found = Replay(state=state, begun_lsn=state.last_lsn)
        self._follower = follower
        self._fold = Fold(state)
        self._since: list[Event] = []  # what was folded after `_found.state`
        self._open: dict[int, OpenStep] = {}
        self._decided: dict[int, OpenStep] = {}
        self._awaited: deque[Event] = deque()
        self._idle_moves: list[tuple[int, journal.BreakerMoved]] = []  # moves that no step brought about
        self._idle_state = state
        self._versions = {
            (blueprint_id, seen.blueprint.digest)
            for blueprint_id, seen in state.blueprints.items()
            if seen.blueprint is not None
        }
        self._reports = Unpublished(state.last_lsn + 1)
        self._states = States(state)
        self._stored_lsn, self._stored = 0, b""  # the bytes of the record that is looked at, where they are known

    @property
    def found(self) -> Replay:
        """What was found so far, with the state after the last event that was in order."""
        self._state()
        return self._found

    @property
    def diverged(self) -> bool:
        """Whether a divergence was found; asked after every event, it costs next to nothing, and `found` does not."""
        return self._found.divergence is not None

    @property
    def between_steps(self) -> bool:
        """Whether nothing is under way but steps of which only the packet was seen: all else is in the state."""
        return not (self._awaited or self._idle_moves or any(one.observed or one.early for one in self._open.values()))

    def _state(self) -> State:
        """The state as it is now: asked for where it has to last, because that costs as much as folding an event."""
        if self._since:
            self._found.state = self._fold.state()
            self._since.clear()
        return self._found.state

    def advance(self, entry: wal.Entry) -> None:
        """Take the next record: those up to the base's own are recalled, those after it checked and folded.

        Raises:
            JournalUnreadable: as `read`.
            RecordRedacted: a record that nothing else tells of was taken out.
        """
        if entry.lsn > self._found.begun_lsn:
            if isinstance(entry, wal.Redacted):
                self.take_redacted(entry)
            else:
                self.read(entry)
        elif isinstance(entry, wal.Redacted):
            self.recall_redacted(entry)
        else:
            self.recall(entry.lsn, event_of(entry))

    def recall(self, lsn: int, event: Event) -> None:
        """Take note of a record up to the base's own: nothing is checked, but later ones may speak of it."""
        state = self._found.state
        if self._follower is not None:
            self._follower.recall(lsn, event, state)
        self._reports.known_from_lsn = min(self._reports.known_from_lsn, lsn)
        unsettled = 0 if state.unsettled is None else state.unsettled.step_lsn
        if isinstance(event, journal.StepReceived) and lsn == state.last_lsn:
            self._open[lsn] = OpenStep(event, state.policy_version)
        elif isinstance(event, journal.StepReceived) and lsn == unsettled:
            self._decided = {lsn: OpenStep(event, state.policy_version)}
        elif isinstance(event, journal.DecisionMade) and event.step_lsn in self._decided:
            self._decided[event.step_lsn].decision_lsn = lsn
        if lsn > state.outbox.reports_lsn and isinstance(event, journal.FieldReportIssued | journal.CommitLate):
            self._reports.take(lsn, event)

    def recall_redacted(self, entry: wal.Redacted) -> None:
        """The same of a record whose payload was taken out; what a report said is not needed to go on.

        Raises:
            RecordRedacted: it is no report.
        """
        if MESSAGES.get(entry.kind) is not journal.FieldReportIssued:
            event_of(entry)
        self._reports.forget_upto(entry.lsn)

    def read(self, entry: wal.Entry) -> None:
        """Take the event of a record. Where its bytes are those that were recomputed, there is nothing to parse.

        Raises:
            JournalUnreadable: the record does not parse, or is of a newer version.
            RecordRedacted: it was taken out; see `take_redacted`.
        """
        lsn, kind, payload = entry
        if self._awaited and not isinstance(entry, wal.Redacted) and encode(self._awaited[0]) == (kind, payload):
            self._follow(lsn, self._awaited.popleft())
            return
        self._stored_lsn, self._stored = lsn, payload
        self.take(lsn, event_of(entry))

    def take(self, lsn: int, event: Event) -> None:
        """Check one event against what was recomputed, then fold it."""
        try:
            self._check(lsn, event)
        except UNWRITTEN as error:
            self._diverge(lsn, self._step_index, f"no service writes such a {event.DESCRIPTOR.name}: {error}")
        if self._found.divergence is None:
            self._follow(lsn, event)

    def take_redacted(self, entry: wal.Redacted) -> None:
        """Fold a record whose payload was taken out: a field report follows from its decision, whatever it was.

        Raises:
            RecordRedacted: what the record was is known from nothing else.
        """
        expected = self._awaited[0] if self._awaited else None
        if MESSAGES.get(entry.kind) is not journal.FieldReportIssued or not isinstance(
            expected, journal.FieldReportIssued
        ):
            event_of(entry)
            return
        self._found.redacted += 1
        self.take(entry.lsn, expected)

    def finish(self) -> None:
        """The log must not end in the middle of what followed from a decision."""
        if self._found.divergence is not None:
            return
        if self._awaited or self._idle_moves:
            self._missing(self._fold.last_lsn)
        elif begun := [step.received.step_index for step in self._open.values() if step.observed]:
            self._diverge(self._fold.last_lsn, begun[0], "a step was observed, and its decision is not in the log")

    def _follow(self, lsn: int, event: Event) -> None:
        if self._follower is not None:
            self._follower.take(lsn, event, self._fold.standing)
        try:
            self._fold.take(lsn, event)
        except InvariantViolation as violation:
            self._fold = Fold(self._found.state)  # that fold is of no more use: to where it stood before the event
            self._fold.follow(self._since)
            self._diverge(lsn, 0, str(violation))
            return
        self._since.append(event)
        self._states.take(event, self._state)
        if type(event) in REPORTS_OR_THEIR_END:
            self._reports.take(lsn, event)
        if len(self._since) >= SINCE_MAX:
            self._state()

    def _check(self, lsn: int, event: Event) -> None:
        if self._awaited:  # a batch is one run of LSNs: what follows from a decision comes next
            self._compare(lsn, self._awaited.popleft(), event)
        elif self._idle_moves and not isinstance(event, journal.BreakerMoved | Idle):
            self._diverge(lsn, 0, "a breaker moved before this, and nothing brought that about")
        else:
            check = self._CHECKS.get(type(event))
            if check is not None:
                check(self, lsn, event)

    def _check_arrival(self, lsn: int, event: journal.StepReceived) -> None:
        self._open[lsn] = OpenStep(event, self._fold.standing.policy_version)

    def _check_names(self, lsn: int, _: journal.RegistryAssigned) -> None:
        if not any(step.observed for step in self._open.values()):
            self._diverge(lsn, 0, "names were numbered outside of any step")

    def _check_derived(self, lsn: int, event: Derived) -> None:
        self._diverge(lsn, 0, f"nothing brought about this {event.DESCRIPTOR.name}")

    def _check_opening(self, lsn: int, event: journal.ServiceOpened) -> None:
        _require_recomputable(event.behaviour_flags)
        self._found.fingerprints.setdefault(event.code_fingerprint, lsn)

    def _check_state(self, lsn: int, event: LookedBack) -> None:
        """What is said of a state must be what the log comes to there."""
        at_lsn = event.digest_lsn if isinstance(event, journal.RetentionCompleted) else event.at_lsn
        state = self._state() if at_lsn == self._fold.last_lsn else self._states.at(at_lsn)
        if state is None:
            self._found.digests_skipped += 1
            return
        expected = state.digest()
        if event.digest.partition(":")[0] != expected.partition(":")[0]:
            self._found.digests_skipped += 1
        elif event.digest != expected:
            self._diverge(lsn, 0, f"the state of LSN {at_lsn} has digest {expected}, and {event.digest} is recorded")
        else:
            self._found.digests += 1
            if isinstance(event, journal.StateBase):
                self._check_base(lsn, event, state)

    def _check_base(self, lsn: int, event: journal.StateBase, state: State) -> None:
        parse = journal.BlueprintContent.FromString
        spoilt = (kept.digest for kept in event.contents if kept.digest != content_digest(parse(kept.content)))
        wrong = next(spoilt, None)
        if wrong is not None:
            self._diverge(lsn, 0, f"the content kept for digest {wrong} is another")
            return
        contents = {kept.digest: kept.content for kept in event.contents}
        expected = base_of(state, contents, event.event_time_ns, digest=event.digest)
        self._compare(lsn, expected, event)

    def _check_observed(self, lsn: int, event: Observed) -> None:
        step = self._open.get(event.step_lsn)
        if step is not None:
            step.observed.append(event)
        else:
            self._diverge(
                lsn, 0, f"{event.DESCRIPTOR.name} of step LSN {event.step_lsn}, which is not awaiting a decision"
            )

    def _check_move(self, lsn: int, event: journal.BreakerMoved) -> None:
        """A move that stands before what brings it about: kept until that comes."""
        step = self._open.get(event.step_lsn)
        if step is not None:
            step.state_before = step.state_before or self._state()
            step.early.append((lsn, event))
        elif event.step_lsn == 0:
            self._idle_state = self._state() if not self._idle_moves else self._idle_state
            self._idle_moves.append((lsn, event))
        else:
            self._diverge(lsn, 0, "nothing brought about this BreakerMoved")

    def _check_idle(self, lsn: int, event: Idle) -> None:
        """Something from outside: recompute the moves around it, and what it brings about."""
        before = self._idle_state if self._idle_moves else self._fold.standing
        wrong = self._fault_of(event)
        if wrong is not None:
            self._diverge(lsn, 0, wrong)
            return
        expected = following(before, event, self._idle_moves)
        actual = [*self._idle_moves, (lsn, event)]
        self._idle_moves = []
        self._awaited.extend(expected)
        for place, found in actual:
            if self._awaited and self._found.divergence is None:
                self._compare(place, self._awaited.popleft(), found)

    def _fault_of(self, event: Idle) -> str | None:
        """What the log itself says against such an event, or None."""
        check = self._FAULTS.get(type(event))
        return None if check is None else check(self, event)

    def _fault_of_blueprint(self, event: journal.BlueprintObserved) -> str | None:
        self._versions.add((event.blueprint_id, event.digest))
        if not event.content:
            return None
        digest = content_digest(journal.BlueprintContent.FromString(event.content))
        if digest == event.digest:
            return None
        return f"the content of blueprint {event.blueprint_id!r} has digest {digest}"

    def _fault_of_attempt(self, event: journal.PublishAttempted) -> str | None:
        return self._reports.fault_of(event)

    def _check_decision(self, lsn: int, event: journal.DecisionMade) -> None:
        step = self._open.pop(event.step_lsn, None)
        if step is None:
            self._diverge(lsn, 0, f"a decision on step LSN {event.step_lsn}, which is not awaiting one")
            return
        try:
            inputs = step_inputs(
                event.step_lsn, step.received, step.observed, event_time_ns=event.event_time_ns, timings=event.timings,
                observation=observation_of(step.received.packet),
            )  # fmt: skip
            require_fit(inputs)
            self._require_known(inputs, step.policy_version)
        except UNWRITTEN as error:
            self._diverge(lsn, step.received.step_index, f"the decision cannot be recomputed: {error}")
            return
        self._awaited.extend(decide(step.state_before or self._fold.standing, inputs).events)
        step.decision_lsn = lsn
        self._decided = {event.step_lsn: step}
        self._found.decisions += 1
        for early_lsn, early in (*step.early, (lsn, event)):
            if self._awaited and self._found.divergence is None:
                self._compare(early_lsn, self._awaited.popleft(), early)

    def _require_known(self, inputs: Inputs, in_force: str) -> None:
        """What the step says it used must be what the log holds. Raises ValueError."""
        strange = [
            used.blueprint_id
            for used in inputs.graph.blueprints
            if used.digest and (used.blueprint_id, used.digest) not in self._versions
        ]
        if strange:
            raise ValueError(f"the graph used versions that were never observed, of {', '.join(strange)}")
        version = inputs.policy_version
        if version != in_force:
            raise ValueError(f"policy {version!r} answered, and {in_force!r} is in force")

    def _check_late(self, lsn: int, event: journal.CommitLate | journal.StepPaused) -> None:
        """The safe PAUSE that was released is a pure function of the packet and the cause."""
        paused = isinstance(event, journal.StepPaused)
        step = self._open.pop(event.step_lsn, None) if paused else self._decided.get(event.step_lsn)
        if step is None:
            self._diverge(lsn, 0, f"{event.DESCRIPTOR.name} of step LSN {event.step_lsn}, which is not waiting for one")
            return
        self._found.late_commits += not paused
        expected = pause_released(
            self._fold.standing,
            observation_of(step.received.packet),
            step.received,
            step_lsn=event.step_lsn,
            decision_lsn=step.decision_lsn,
            cause=event.cause,
            event_time_ns=event.event_time_ns,
        )
        self._awaited = deque(expected[1:])
        self._compare(lsn, expected[0], event)

    def _compare(self, lsn: int, expected: Event, actual: Event) -> None:
        kind, payload = encode(expected)
        stored = self._stored if lsn == self._stored_lsn else encode(actual)[1]
        if KINDS[type(actual)] == kind and stored == payload:
            return
        found = tuple(differences(expected, actual))
        if not found:
            self._found.encoding_differs += 1
            return
        self._diverge(lsn, self._step_index, f"{expected.DESCRIPTOR.name} is not what follows from the record", found)

    def _missing(self, lsn: int) -> None:
        expected = self._awaited[0].DESCRIPTOR.name if self._awaited else "what moved a breaker"
        self._diverge(
            lsn, self._step_index, f"{expected} should follow from what is recorded and does not stand in the log"
        )

    @property
    def _step_index(self) -> int:
        return next((step.received.step_index for step in self._decided.values()), 0)

    def _diverge(self, lsn: int, step_index: int, what: str, found: tuple[Difference, ...] = ()) -> None:
        self._found.divergence = Divergence(lsn, step_index, what, found, self._state().digest())

    _CHECKS: ClassVar[Mapping[type[Event], Callable[[Any, int, Any], None]]] = MappingProxyType(
        {
            journal.ServiceOpened: _check_opening,
            journal.StepReceived: _check_arrival,
            **dict.fromkeys(get_args(Observed), _check_observed),
            journal.RegistryAssigned: _check_names,
            journal.DecisionMade: _check_decision,
            journal.BreakerMoved: _check_move,
            **dict.fromkeys((journal.CommitLate, journal.StepPaused), _check_late),
            **dict.fromkeys(get_args(Idle), _check_idle),
            **dict.fromkeys(get_args(LookedBack), _check_state),
            **dict.fromkeys(get_args(Derived), _check_derived),
        }
    )
    """What is asked of each event that nothing announced; of the others nothing: they say what was, and are folded."""

    _FAULTS: ClassVar[Mapping[type[Event], Callable[[Any, Any], str | None]]] = MappingProxyType(
        {journal.BlueprintObserved: _fault_of_blueprint, journal.PublishAttempted: _fault_of_attempt}
    )
    """Of what happens outside a step, what the log itself may speak against."""


def _require_recomputable(flags: Iterable[str]) -> None:
    gone = retired(flags)
    if gone:
        raise JournalUnreadable(
            f"decisions of before {', '.join(gone)} can be read here, but no longer recomputed: "
            "audit the log with the major version that wrote it"
        )


def begun_with(base: journal.StateBase | None, follower: Follower | None = None) -> Auditor:
    """An auditor that goes on from a base, or begins with the log. Raises JournalUnreadable, as `replay`."""
    begun = None if base is None else read_base(base)
    if begun is not None:
        _require_recomputable(begun.behaviour_flags)
    return Auditor(begun, follower)


def replay(
    entries: Iterable[wal.Entry],
    progress: Callable[[int], None] | None = None,
    *,
    base: journal.StateBase | None = None,
    follower: Follower | None = None,
) -> Replay:
    """Fold and check entries, up to the first divergence.

    Args:
        entries: the log in order: from LSN 1 on, or from the first record that `base` needs.
        progress: called with the LSN now and then.
        base: where to begin; None for a log that is there from its first record on.
        follower: told of every event that is in order.

    Raises:
        JournalUnreadable: a record does not parse, or is of a newer version or of one whose decisions are no longer
            recomputed.
        RecordRedacted: a record that nothing else tells of was taken out.
    """
    auditor = begun_with(base, follower)
    for entry in entries:
        auditor.advance(entry)
        if auditor.diverged:
            break
        if progress is not None and entry.lsn % PROGRESS_EVERY == 0:
            progress(entry.lsn)
    auditor.finish()
    return auditor.found
