"""Controllers that are broken on purpose, each in one place: the machine must find every one of them.

`VARIANTS` names each fault, how it is put in, and the law that notices. A fault is put in with pytest's monkeypatch,
so that it is gone after its test.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import wal
from tamiyo import beginning, directives, line, outbox, signing, stages
from tamiyo.core import breakers, decide, evolve, risk, state
from tamiyo.core import journal_pb2 as pb_journal
from tamiyo.core.draft import Draft
from tamiyo.core.events import KINDS
from tamiyo.core.outbox import DueReport, FreshReports
from tamiyo.journal import Journal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.owed import Owed
from tamiyo.records import JournalUnavailable
from tamiyo.requests import RequestBox
from tamiyo.stages import Stages
from tamiyo.testing.machine import world
from wal.reader import Reader
from wal.tail import Tail


class Altered:
    """A state of which some fields read otherwise."""

    def __init__(self, given: object, **fields: object) -> None:
        self.__dict__.update(fields)
        self._given = given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._given, name)


@dataclass(frozen=True)
class Variant:
    """One fault: put in by `break_it`, noticed by a law whose name begins with one of `laws`.

    `among` are the rules of the machine that the default suite plays to find it, all where there are none: for one that
    takes longer than a few seconds to be found among all of them.
    """

    break_it: Callable[[pytest.MonkeyPatch], None]
    laws: tuple[str, ...]
    among: tuple[str, ...] = ()


def skip_half_open(patch: pytest.MonkeyPatch) -> None:
    """A breaker that has cooled down closes at once."""
    straight = {breakers.REQUEST: breakers.Transition(breakers.CLOSED, "cooled_down", "cooled_down")}
    patch.setattr(breakers, "TRANSITIONS", MappingProxyType({**breakers.TRANSITIONS, breakers.OPEN: straight}))


def never_open(patch: pytest.MonkeyPatch) -> None:
    """Failures are counted and lead to nothing."""
    deaf = {breakers.WRITER_FAILED: breakers.TRANSITIONS[breakers.CLOSED][breakers.WRITER_FAILED]}
    patch.setattr(breakers, "TRANSITIONS", MappingProxyType({**breakers.TRANSITIONS, breakers.CLOSED: deaf}))


def ignore_open_breakers(patch: pytest.MonkeyPatch) -> None:
    """The policy is asked while its breaker is open."""
    patch.setattr(stages, "admits", lambda *_: True)


def turn_a_sign(patch: pytest.MonkeyPatch) -> None:
    """The row of gradient variance triggers below its threshold."""
    turned = tuple(
        replace(row, when=((replace(row.when[0][0], comparison="<"),),)) if row.reason == "grad_variance_high" else row
        for row in risk.RISK_ROWS
    )
    patch.setattr(risk, "RISK_ROWS", turned)
    patch.setattr(risk, "_table", cache(risk._table.__wrapped__))  # else the rows of before are remembered


def lose_the_report(patch: pytest.MonkeyPatch) -> None:
    """Live and in the audit alike, a decision that paused issues no report."""
    original = decide.decide

    def forgetful(*arguments: Any) -> decide.Decision:
        decision = original(*arguments)
        paused = decision.command.command_type == pb.COMMAND_PAUSE
        return decision._replace(events=decision.events[:-1]) if paused else decision

    for module in (stages, import_module("tamiyo.audit.replay")):  # the package has a function of that name
        patch.setattr(module, "decide", forgetful)


def lose_a_record(patch: pytest.MonkeyPatch) -> None:
    """Whoever follows the log is not shown the moves of breakers."""
    original, moved = Reader.poll, KINDS[pb_journal.BreakerMoved]

    def skipping(reader: Reader, *arguments: Any) -> list[wal.Entry]:
        return [entry for entry in original(reader, *arguments) if entry.kind != moved]

    patch.setattr(Reader, "poll", skipping)


def lose_the_last_of_a_batch(patch: pytest.MonkeyPatch) -> None:
    """The log takes a batch without its last record, and numbers the next as if it had it."""
    original = wal.Log.submit

    def short(log: wal.Log, batch: Any, **options: Any) -> wal.Pending:
        return original(log, batch[:-1] if len(batch) > 4 else batch, **options)

    patch.setattr(wal.Log, "submit", short)


def read_a_clock(patch: pytest.MonkeyPatch) -> None:
    """`decide` looks at the time."""
    original = decide.unsigned_command

    def timed(*arguments: Any) -> pb.AdaptationCommand:
        command = original(*arguments)
        command.execution_deadline_ms = time.perf_counter_ns() % 1_000
        return command

    patch.setattr(decide, "unsigned_command", timed)


def forget_a_field(patch: pytest.MonkeyPatch) -> None:
    """A replay at opening leaves the registries as they were in the beginning."""

    class Forgetful(evolve.Fold):
        def state(self) -> state.State:
            return replace(super().state(), registries=state.State().registries)

    patch.setattr(beginning, "Fold", Forgetful)


def acknowledge_unsynced(patch: pytest.MonkeyPatch) -> None:
    """A commit is acknowledged once it is written."""
    patch.setattr(Tail, "sync", lambda tail: tail._mark_durable())


def retry_a_failed_sync(patch: pytest.MonkeyPatch) -> None:
    """A sync that failed is taken for one that did not."""
    original = Tail.sync

    def hopeful(tail: Tail) -> None:
        try:
            original(tail)
        except OSError:
            tail._mark_durable()

    patch.setattr(Tail, "sync", hopeful)


def keep_everything(patch: pytest.MonkeyPatch) -> None:
    """The list of undelivered commands grows without end, its cap lowered for the occasion."""
    patch.setattr(state, "UNDELIVERED_MAX", 4)


def release_unrecorded(patch: pytest.MonkeyPatch) -> None:
    """A command whose commit is late is given out all the same."""
    original = Stages.pause

    def eager(self: Stages, step: stages.Step, cause: str) -> pb.AdaptationCommand:
        if step.recorded is None:
            return original(self, step, cause)
        made = next(event for event in step.recorded.events if isinstance(event, pb_journal.DecisionMade))
        command = pb.AdaptationCommand.FromString(made.command)
        command.annotations["signature"] = signing.signature_of(command, self._key)
        return command

    patch.setattr(Stages, "pause", eager)


def change_after_signing(patch: pytest.MonkeyPatch) -> None:
    """A command is touched once more before it is given out."""
    original = signing.release

    def touched(*arguments: Any) -> pb.AdaptationCommand:
        command = original(*arguments)
        command.execution_deadline_ms += 1
        return command

    patch.setattr(signing, "release", touched)


def leave_conservative_mode_early(patch: pytest.MonkeyPatch) -> None:
    """One clean step is enough, whoever set it."""
    original = decide._conservative_change

    def early(given: state.State, *arguments: Any, clean: bool) -> Any:
        mode = given.conservative._replace(since_ns=0, clean_steps=10, operator="")
        return original(Altered(given, conservative=mode), *arguments, clean=clean)

    patch.setattr(decide, "_conservative_change", early)


def pause_no_more(patch: pytest.MonkeyPatch) -> None:
    """Rows that ask for a PAUSE get a downgrade."""
    original = decide.restrict

    def softened(intent: Any, rows: Any) -> Any:
        soft = [found._replace(row=replace(found.row, asks=risk.DOWNGRADE)) for found in rows]
        return original(intent, soft) if rows else intent

    patch.setattr(decide, "restrict", softened)


def leave_a_payload(patch: pytest.MonkeyPatch) -> None:
    """A PAUSE carries what the command was going to be."""
    original = decide.unsigned_command

    def cluttered(*arguments: Any) -> pb.AdaptationCommand:
        command = original(*arguments)
        if command.command_type == pb.COMMAND_PAUSE:
            command.optimizer_adjustment.hyperparameters["lr_delta"] = 0.5
        return command

    patch.setattr(decide, "unsigned_command", cluttered)


def count_no_lost_steps(patch: pytest.MonkeyPatch) -> None:
    """A step that no record was taken of is forgotten."""
    patch.setattr(Journal, "count_unrecorded", lambda *_: None)


def lose_refused_reports(patch: pytest.MonkeyPatch) -> None:
    """What the bus refuses is taken for published."""
    original = outbox.Outbox._deliver

    async def careless(self: outbox.Outbox, *arguments: Any) -> str:
        await original(self, *arguments)
        return ""

    patch.setattr(outbox.Outbox, "_deliver", careless)


def forget_riders(patch: pytest.MonkeyPatch) -> None:
    """What other threads have to say is said to be taken, and dropped."""
    patch.setattr(Journal, "ride", lambda *_: True)


def forget_the_owed(patch: pytest.MonkeyPatch) -> None:
    """The log is not told of a PAUSE that superseded a command."""
    patch.setattr(Journal, "note_pause", lambda *_: None)


def close_windows_late(patch: pytest.MonkeyPatch) -> None:
    """Live, an observation window closes a decision after its time; the audit knows better."""
    original = decide.decide

    def late(given: state.State, inputs: Any) -> decide.Decision:
        moved = tuple(replace(window, length=window.length + 1) for window in given.windows.open)
        return original(Altered(given, windows=given.windows._replace(open=moved)), inputs)

    patch.setattr(stages, "decide", late)


def say_yes_to_all(patch: pytest.MonkeyPatch) -> None:
    """What a busy log refuses is said to be taken."""
    original = Journal.record_aside

    def agreeable(self: Journal, *arguments: Any, **options: Any) -> Any:
        try:
            return original(self, *arguments, **options)
        except JournalUnavailable as unavailable:
            if unavailable.cause != "timeout_wal":
                raise
            return None

    patch.setattr(Journal, "record_aside", agreeable)


def blame_nobody(patch: pytest.MonkeyPatch) -> None:
    """Steps that a busy log refused are no failures of it."""
    original = Owed.unrecorded

    def lenient(self: Owed, *arguments: Any) -> pb_journal.StepsUnrecorded:
        told = original(self, *arguments)
        told.timed_out = 0
        return told

    patch.setattr(Owed, "unrecorded", lenient)


def take_up_again(patch: pytest.MonkeyPatch) -> None:
    """Nobody remembers which requests were taken up."""
    patch.setattr(Draft, "note_request", lambda *_: None)


def let_a_request_go_early(patch: pytest.MonkeyPatch) -> None:
    """A request's file goes as soon as its record is queued."""

    def hasty(self: directives.Directives, box: RequestBox, path: Path, _: float | None) -> None:
        self.direct(box.read(path))

    patch.setattr(directives.Directives, "_journal_request", hasty)


def publish_what_is_written(patch: pytest.MonkeyPatch) -> None:
    """What is written goes to the bus before it is durable."""

    def hasty(log: wal.Log, after: int | None = 0) -> Reader:
        return Reader(log.path, after, durable_lsn=lambda: log.next_lsn - 1, disk=log._disk)

    patch.setattr(wal.Log, "reader", hasty)
    patch.setattr(Journal, "certain_lsn", lambda self: self.log.next_lsn - 1)


def publish_before_it_is_certain(patch: pytest.MonkeyPatch) -> None:
    """The report of a command goes out although a PAUSE was released in its place."""
    patch.setattr(Journal, "certain_lsn", lambda self: self.log.durable_lsn)
    patch.setattr(FreshReports, "take", keep_every_report)


def keep_every_report(self: FreshReports, lsn: int, event: Any, report_id: str = "") -> None:
    """As `FreshReports.take`, and deaf to late commits."""
    if isinstance(event, pb_journal.FieldReportIssued):
        self._found.append((DueReport(lsn, report_id), 0))
        self._certain = len(self._found)


def move_the_cursor_first(patch: pytest.MonkeyPatch) -> None:
    """Telemetry is said to be drained, then handed over."""
    original = outbox.Outbox._send_telemetry

    async def early(self: outbox.Outbox, bus: Any, pieces: Any) -> bool:
        say, self._say_drained = self._say_drained, lambda *_: None
        try:
            say(pieces, ())
            return await original(self, bus, pieces)
        finally:
            del self._say_drained

    patch.setattr(outbox.Outbox, "_send_telemetry", early)


def drop_at_the_first_refusal(patch: pytest.MonkeyPatch) -> None:
    """A packet of telemetry is given up as soon as a bus refuses it, whatever else the bus takes."""
    original = line.Line.refused

    def hasty(self: line.Line, letter: Any, cause: str) -> None:
        original(self, letter, cause)
        for doubt in list(self._refused):
            self._strike(doubt, 0)

    patch.setattr(line, "STRIKES_MAX", 1)
    patch.setattr(line.Line, "refused", hasty)


def publish_under_the_lock(patch: pytest.MonkeyPatch) -> None:
    """The journal waits for the bus."""
    original = outbox.Outbox._deliver

    async def holding(self: outbox.Outbox, *arguments: Any) -> str:
        with self._journal._lock:
            return await original(self, *arguments)

    patch.setattr(outbox.Outbox, "_deliver", holding)
    patch.setattr(world, "GIVE_UP_S", 0.5)


def say_durable_of_what_is_queued(patch: pytest.MonkeyPatch) -> None:
    """A flush with nothing left to say does not wait for what was said before."""
    patch.setattr(Journal, "is_durable", lambda *_: True)


def tell_of_the_graph_before(patch: pytest.MonkeyPatch) -> None:
    """A step's graph is told to the journal with the inputs of the one before it."""
    original, before = stages.graph_observed, list[Any]()

    def late(graph: Any, blueprints: Any, **named: Any) -> Any:
        layout, event = original(graph, blueprints, **named)
        before.append((event.norms_present, list(event.norm_values)))
        event.norms_present, event.norm_values[:] = before[-2:][0]
        return layout, event

    patch.setattr(stages, "graph_observed", late)


BREAKERS = ("breakers move by their table", "a breaker moves", "while a breaker is open")
GOES = "a request goes only once"
SURVIVAL = ("what was acknowledged survives", "no step is recorded")
VARIANTS = {
    "a breaker that skips HALF_OPEN": Variant(skip_half_open, BREAKERS),
    "a breaker that never opens": Variant(never_open, BREAKERS),
    "an open breaker whose call is made": Variant(
        ignore_open_breakers,
        BREAKERS,
        among=("calm_steps", "policy_trouble", "library_trouble", "library_changes", "time_passes"),
    ),
    "a row with the wrong sign": Variant(turn_a_sign, ("more risk",)),
    "a decision without its report": Variant(lose_the_report, ("every decision has",)),
    "a record that readers are not shown": Variant(lose_a_record, ("the log's numbers", *BREAKERS)),
    "a batch cut short": Variant(lose_the_last_of_a_batch, ("every decision has",)),
    "a clock read inside decide": Variant(read_a_clock, ("every decision follows",)),
    "a field forgotten on replay": Variant(forget_a_field, ("a controller rebuilt",)),
    "a commit acknowledged before its sync": Variant(acknowledge_unsynced, (*SURVIVAL, "a log opens again")),
    "a failed sync taken for a good one": Variant(
        retry_a_failed_sync, SURVIVAL, among=("step", "disk_trouble", "dies", "restart")
    ),
    "a list without end": Variant(keep_everything, ("what the state keeps",)),
    "a command released without its record": Variant(release_unrecorded, ("nothing but a safe PAUSE",)),
    "a command changed after signing": Variant(change_after_signing, ("every command is signed",)),
    "conservative mode left early": Variant(leave_conservative_mode_early, ("conservative mode",)),
    "a PAUSE softened": Variant(pause_no_more, ("the most restrictive", "conservative mode")),
    "a payload left over": Variant(leave_a_payload, ("a command's payload",)),
    "unrecorded steps that nobody counts": Variant(count_no_lost_steps, ("every answered step",)),
    "refused reports taken for published": Variant(lose_refused_reports, ("what is issued", "a cursor moves")),
    "riders forgotten": Variant(
        forget_riders,
        (*SURVIVAL, "what is issued", "a request goes"),
        among=("step", "command_delivered", "operator_directs", "request_is_left", "restart"),
    ),
    "a superseding PAUSE never told": Variant(forget_the_owed, ("the log is told",)),
    "a busy log that says yes": Variant(say_yes_to_all, ("what waits for a disk", *SURVIVAL)),
    "a busy log that nobody blames": Variant(blame_nobody, ("a busy log",)),
    "a request taken up twice": Variant(take_up_again, ("a request counts once",)),
    "a request that goes before its record is durable": Variant(
        let_a_request_go_early, (GOES, *SURVIVAL), among=("step", "dies_beside_the_steps")
    ),
    "records published before they are durable": Variant(
        publish_what_is_written,
        ("nothing is published",),
        among=("step", "commits_are_late", "disk_trouble", "history_is_published"),
    ),
    "a report of a superseded command published": Variant(
        publish_before_it_is_certain, ("no report of", "every decision")
    ),
    "a cursor that moves before the bus has it": Variant(move_the_cursor_first, ("a cursor moves",)),
    "telemetry given up at its first refusal": Variant(drop_at_the_first_refusal, ("telemetry is dropped only",)),
    "a journal that waits for the bus": Variant(publish_under_the_lock, ("publishing holds up",)),
    "a flush that does not wait": Variant(say_durable_of_what_is_queued, ("a flush that says so",)),
    "a graph of the step before": Variant(tell_of_the_graph_before, ("every graph is",)),
    "windows that close late": Variant(close_windows_late, ("every decision follows",)),
}
