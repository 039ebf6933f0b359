"""What is known of the library's blueprints, kept current in the background.

Rule 1: lookups run on a thread of their own, one at a time; a step waits for an unknown blueprint within its
        metadata budget and never longer, and a late answer counts from the step after it has arrived.
Rule 2: a blueprint exists for graphs and decisions once its `BlueprintObserved` is in the log; that record is a
        batch of its own, off the step's path.
Rule 3: each lookup has one outcome. One that is over its budget is a fault even if it answers later; its
        thread is left to it and replaced, 4 at most.
Rule 4: nothing is asked while the metadata breaker is open. It moves with the journal, and faults are journaled with
        the next step; until then the breaker is read as it will be once they are.
Rule 5: an answer that cannot be used is a fault once, and is asked for again when a good one would be: at every step
        it would keep the breaker open, and with it every other blueprint out.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import Message

from tamiyo.clock import Clock
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import Blueprint, content_digest, read_blueprint, unobserved
from tamiyo.core.breakers import FAILURE, REQUEST, Breaker, admits, after, heeds_success
from tamiyo.core.decide import blueprint_observed
from tamiyo.core.limits import BLUEPRINT_CANDIDATES_MAX
from tamiyo.core.observation import Observation
from tamiyo.core.state import State
from tamiyo.graph import BlueprintInput, MetadataRules, parse_metadata
from tamiyo.graph.metadata import METADATA_BYTES_MAX
from tamiyo.journal import Journal
from tamiyo.library import Library, LibraryRecord, checked_id, content_of
from tamiyo.records import JournalUnavailable
from tamiyo.workers import in_words

__all__ = ["Blueprints", "Fault"]

logger = logging.getLogger(__name__)

REFRESH_S = 300.0
ABANDONED_MAX = 4
FRESH_MAX = 1_024
FAULTS_MAX = 64
PARSED_METADATA_MAX = 4 * BLUEPRINT_CANDIDATES_MAX
NO_METADATA = (b"", b"{}")
CATALOGUE = ""
"""Stands for the list of ids among the lookups."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A lookup that missed its budget (`error` is empty) or failed."""

    blueprint_id: str
    elapsed_ns: int
    error: str = ""
    attempted: bool = True


class _Answer(NamedTuple):
    """A record once the library's own code has run."""

    descriptor: Message
    extras: Mapping[str, Any]


@dataclass(slots=True)
class _Lookup:
    blueprint_id: str
    started_ns: int = 0
    overdue: bool = field(default=False)


class Blueprints:
    """The lookups of one service. Without a library nothing is ever looked up."""

    def __init__(
        self,
        library: Library | None,
        journal_: Journal,
        clock: Clock,
        *,
        budget_ms: int,
        prepare: Callable[[BlueprintInput], None] = lambda _: None,
        foresee: Callable[[int, Sequence[BlueprintInput]], None] = lambda _, __: None,
    ) -> None:
        """`prepare` is given each version before it is journaled, off the step's path, and all known ones here.

        `foresee` is given, at the same time, what the next step's graph will be made of: seeds, and blueprints.
        """
        self._library = library
        self._prepare = prepare
        self._foresee = foresee
        self._last: Observation | None = None
        self._journal = journal_
        self._clock = clock
        self._budget_s = budget_ms / 1e3
        self._changed = threading.Condition()
        self._queue: deque[_Lookup] = deque()
        self._running: _Lookup | None = None
        self._asked: set[str] = set()  # ids that a thread is out for
        self._out = 0
        self._fresh_until_ns: dict[str, int] = {}
        self._faults: list[Fault] = []  # since the last step
        self._reported: list[Fault] = []  # to the last step, whose decision journals them
        self._decisions_before = 0
        self._catalogue: tuple[str, ...] = ()  # the best candidates
        self._listed: frozenset[str] = frozenset()  # every id
        self._metadata: dict[str, Mapping[str, object]] = {}
        self._closed = False
        self._rules = MetadataRules.under(journal_.state.behaviour_flags)  # what the service just opened with
        self._prepare_known()

    def host_id(self, observation: Observation) -> str:
        """The blueprint that the host trains: the packet's id where the library lists it, else the run's."""
        listed = observation.packet_id in self._listed
        return observation.packet_id if listed else observation.training_run_id

    def refresh(self, observation: Observation) -> None:
        """Start the lookups that are due for this packet; returns at once."""
        if self._library is None:
            return
        self._last = observation
        with self._changed:
            for blueprint_id in self._wanted(observation):
                self._enqueue(blueprint_id)
            self._ensure_thread()

    def candidates(self, observation: Observation) -> tuple[list[str], list[Fault]]:
        """The ids that this step may use, the host's own first, after waiting for unknown ones within the budget.

        With them come the lookups that went wrong since the last decision.
        """
        if self._library is None:
            return [self.host_id(observation)] if self.host_id(observation) else [], []
        self._await_unknown(observation)
        with self._changed:
            self._mark_overdue()
            self._reported = [*self._unjournaled(), *self._faults][-FAULTS_MAX:]
            self._decisions_before, self._faults = self._journal.state.decisions, []
            faults = list(self._reported)
        return self._known(self._journal.state, observation), faults

    def close(self) -> None:
        """Start nothing more. A lookup that is out ends with its call."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()

    def _wanted(self, observation: Observation) -> list[str]:
        host_id = self.host_id(observation)
        others = [other for other in self._catalogue if other != host_id]
        ids = ([host_id] if host_id else []) + others
        return [CATALOGUE, *ids[:BLUEPRINT_CANDIDATES_MAX]]

    def _known(self, state: State, observation: Observation) -> list[str]:
        return [blueprint_id for blueprint_id in self._wanted(observation)[1:] if _is_known(state, blueprint_id)]

    def _enqueue(self, blueprint_id: str) -> None:
        """Queue a lookup, unless the id is queued, out with a thread (hung ones too), or fresh."""
        fresh = self._fresh_until_ns.get(blueprint_id, 0) > self._clock.monotonic_ns()
        queued = any(lookup.blueprint_id == blueprint_id for lookup in self._queue)
        if not fresh and not queued and blueprint_id not in self._asked:
            self._queue.append(_Lookup(blueprint_id))

    def _ensure_thread(self) -> None:
        """A thread works the queue; one whose lookup is overdue is left to it, and the next takes over."""
        if not self._queue or self._closed or (self._running is not None and not self._running.overdue):
            return
        if not self._may_ask():
            self._queue.clear()
            return
        if self._out >= ABANDONED_MAX:
            self._faults.append(
                Fault(self._queue.popleft().blueprint_id, 0, "every lookup thread is out", attempted=False)
            )
            return
        lookup = self._begin(self._queue.popleft())
        self._out += 1
        thread = threading.Thread(target=self._serve, args=(lookup,), name="tamiyo-lookups", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had
            self._faults.append(Fault(lookup.blueprint_id, 0, in_words(error), attempted=False))
        finally:
            if not thread.ident:  # never began, whether refused or interrupted
                self._asked.discard(lookup.blueprint_id)
                self._running, self._out = None, self._out - 1

    def _may_ask(self) -> bool:
        """Whether the breaker lets a lookup through, as it will stand once the faults so far are journaled."""
        state, now_ns = self._journal.state, self._journal.now_ns()
        breaker: Breaker = state.breakers["metadata"]
        for _ in (*self._unjournaled(), *self._faults):
            for event in (REQUEST, FAILURE):
                breaker = after(breaker, event, now_ns, state.thresholds)
        return admits(breaker, now_ns, state.thresholds)

    def _unjournaled(self) -> list[Fault]:
        """What the last step was told, as long as no decision has taken it into the journal."""
        return self._reported if self._journal.state.decisions == self._decisions_before else []

    def _await_unknown(self, observation: Observation) -> None:
        deadline_ns = time.perf_counter_ns() + self._patience_ns()
        with self._changed:
            while self._is_waiting_worthwhile(observation):
                left_ns = deadline_ns - time.perf_counter_ns()
                if left_ns <= 0 or not self._changed.wait(left_ns / 1e9):
                    return

    def _patience_ns(self) -> int:
        return int(self._clock.patience_s("library", self._budget_s) * 1e9)

    def _is_waiting_worthwhile(self, observation: Observation) -> bool:
        if self._running is None or self._running.overdue:
            return False
        outstanding = {self._running.blueprint_id, *(lookup.blueprint_id for lookup in self._queue)}
        state = self._journal.state
        if CATALOGUE in outstanding and not self._catalogue:
            return True
        return any(_is_unknown(state, id_) for id_ in self._wanted(observation)[1:] if id_ in outstanding)

    def _mark_overdue(self) -> None:
        lookup = self._running
        if lookup is None or lookup.overdue:
            return
        elapsed_ns = time.perf_counter_ns() - lookup.started_ns
        if elapsed_ns >= self._patience_ns():
            lookup.overdue = True
            self._faults.append(Fault(lookup.blueprint_id, elapsed_ns))
            self._ensure_thread()

    def _serve(self, lookup: _Lookup) -> None:
        while True:
            error, kept = self._attempt(lookup)
            with self._changed:
                self._asked.discard(lookup.blueprint_id)
                self._forget_stale()
                if kept:
                    self._fresh_until_ns[lookup.blueprint_id] = self._clock.monotonic_ns() + int(REFRESH_S * 1e9)
                if error and not lookup.overdue:
                    elapsed_ns = time.perf_counter_ns() - lookup.started_ns
                    self._faults.append(Fault(lookup.blueprint_id, elapsed_ns, error))
                following = self._following(lookup)
                self._changed.notify_all()
                if following is None:
                    self._out -= 1
                    return
                lookup = following

    def _following(self, lookup: _Lookup) -> _Lookup | None:
        """The next lookup for this thread, or None when it was replaced or there is no more to do."""
        if self._running is not lookup:
            return None
        if not self._queue or self._closed or not self._may_ask():
            self._queue.clear()
            self._running = None
            return None
        return self._begin(self._queue.popleft())

    def _begin(self, lookup: _Lookup) -> _Lookup:
        lookup.started_ns = time.perf_counter_ns()
        self._asked.add(lookup.blueprint_id)
        self._running = lookup
        return lookup

    def _forget_stale(self) -> None:
        """Run ids come and go; what is no longer fresh says nothing."""
        if len(self._fresh_until_ns) > FRESH_MAX:
            now_ns = self._clock.monotonic_ns()
            self._fresh_until_ns = {id_: until for id_, until in self._fresh_until_ns.items() if until > now_ns}

    def _attempt(self, lookup: _Lookup) -> tuple[str, bool]:
        """Ask the library and journal what it says: (the error in words, whether the answer was kept)."""
        assert self._library is not None  # noqa: S101  without one nothing is enqueued
        try:
            if lookup.blueprint_id == CATALOGUE:
                self._take_catalogue(self._library.list())
                self._tell_of_a_list(late=lookup.overdue)
            else:
                record = self._library.get(lookup.blueprint_id)
                found = None if record is None else _Answer(record.descriptor, record.extras)
                unusable = self._observe(lookup, found)
                return unusable, True
        except JournalUnavailable:
            return "", False  # the log's fault, not the library's: it is asked again once the log is back
        except BaseException as error:  # noqa: BLE001  whatever a library raises is the outcome of its lookup
            return in_words(error), False
        return "", True

    def _take_catalogue(self, ids: Sequence[str]) -> None:
        listed = [blueprint_id for blueprint_id in ids if checked_id(blueprint_id)]
        with self._changed:
            self._listed = frozenset(listed)
            self._catalogue = tuple(dict.fromkeys(listed[: 2 * BLUEPRINT_CANDIDATES_MAX]))[:BLUEPRINT_CANDIDATES_MAX]
            for blueprint_id in self._catalogue:
                self._enqueue(blueprint_id)

    def _tell_of_a_list(self, *, late: bool) -> None:
        """The list of ids is a success of the library, too; a record says so where the breaker has to hear of it."""
        if late or not heeds_success(self._journal.state.breakers["metadata"]):
            return
        self._journal.record_aside(
            lambda state, now_ns: blueprint_observed(state, journal.BlueprintObserved(event_time_ns=now_ns))
        )

    def metadata(self, digest: str) -> Mapping[str, object] | None:
        """The parsed graph metadata of a version that the state names; parsed here only after a restart.

        None where a newer version took its place meanwhile.
        """
        known = self._metadata.get(digest)
        if known is not None:
            return known
        stored = self._journal.content(digest)
        if stored is None:
            return None
        return self._keep_metadata(digest, journal.BlueprintContent.FromString(stored))

    def known(self) -> list[BlueprintInput]:
        """What the log knows from before, as far as one graph takes them."""
        seen = [each.blueprint for each in self._journal.state.blueprints.values() if each.blueprint is not None]
        found = ((one, self.metadata(one.digest)) for one in seen[-BLUEPRINT_CANDIDATES_MAX:])
        return [BlueprintInput(one, metadata, self._rules) for one, metadata in found if metadata is not None]

    def input_of(self, state: State, blueprint_id: str) -> BlueprintInput:
        """A blueprint as a graph takes it; of an unknown one no more than its id.

        Where a newer version has taken its place since `state`, that one: its digest stands for its metadata too, in a
        builder's plans and in an audit, so it is never given with others.
        """
        for is_current in (False, True):
            looked_at = self._journal.state if is_current else state
            observed = looked_at.blueprints.get(blueprint_id)
            if observed is None or observed.blueprint is None:
                break
            metadata = self.metadata(observed.blueprint.digest)
            if metadata is not None:
                return BlueprintInput(observed.blueprint, metadata, self._rules)
        return BlueprintInput(unobserved(blueprint_id), {}, self._rules)

    def _prepare_known(self) -> None:
        """A service that opens may take its time, and a step may not."""
        for given in self.known():
            self._prepare(given)

    def _look_ahead(self, coming: BlueprintInput) -> None:
        """Say what the next step sees once this is journaled, if its packet is like the last one."""
        if self._last is None:
            return
        state = self._journal.state
        ids = [id_ for id_ in self._wanted(self._last)[1:] if _is_known(state, id_)]
        inputs = {id_: self.input_of(state, id_) for id_ in ids} | {coming.blueprint.blueprint_id: coming}
        self._foresee(len(self._last.seeds), list(inputs.values()))

    def _keep_metadata(self, digest: str, content: journal.BlueprintContent) -> Mapping[str, object]:
        parsed = parse_metadata(content.graph_metadata)
        with self._changed:
            while len(self._metadata) >= PARSED_METADATA_MAX:
                del self._metadata[next(iter(self._metadata))]
            self._metadata[digest] = parsed
        return parsed

    def _observe(self, lookup: _Lookup, record: LibraryRecord | None) -> str:
        """Journal an answer; what is wrong with one that cannot be used, "" else."""
        try:
            content, blueprint = _read(lookup.blueprint_id, record)
        except Exception as error:  # noqa: BLE001  somebody else's content
            return in_words(error)
        digest = "" if blueprint is None else blueprint.digest
        if content is not None and blueprint is not None:
            is_new = digest not in self._metadata
            coming = BlueprintInput(blueprint, self._keep_metadata(digest, content), self._rules)
            if is_new and not coming.metadata and content.graph_metadata not in NO_METADATA:
                logger.warning(
                    "the graph metadata of blueprint %r is left out, and with it all of its layers: "
                    "its %d bytes are no JSON object, or more than %d",
                    lookup.blueprint_id, len(content.graph_metadata), METADATA_BYTES_MAX,
                )  # fmt: skip
            self._prepare(coming)
            self._look_ahead(coming)
        self._journal.record_aside(
            lambda state, now_ns: _observation(state, lookup.blueprint_id, digest, content, now_ns, late=lookup.overdue)
        )
        return ""


def _read(blueprint_id: str, record: LibraryRecord | None) -> tuple[journal.BlueprintContent | None, Blueprint | None]:
    """What is journaled of a record, and read back; raises where either cannot be."""
    if record is None:
        return None, None
    content = content_of(record)
    return content, read_blueprint(blueprint_id, content_digest(content), content)


def _observation(
    state: State, blueprint_id: str, digest: str, content: journal.BlueprintContent | None, now_ns: int, *, late: bool
) -> tuple[Message, ...]:
    known = state.blueprints.get(blueprint_id)
    same = known is not None and known.blueprint is not None and known.blueprint.digest == digest
    observed = journal.BlueprintObserved(blueprint_id=blueprint_id, digest=digest, event_time_ns=now_ns, late=late)
    if content is not None and not same:
        observed.content = content.SerializeToString(deterministic=True)
    return blueprint_observed(state, observed)


def _is_known(state: State, blueprint_id: str) -> bool:
    observed = state.blueprints.get(blueprint_id)
    return observed is not None and observed.blueprint is not None and not observed.withdrawn


def _is_unknown(state: State, blueprint_id: str) -> bool:
    return blueprint_id not in state.blueprints
