"""What happens between steps is recomputed too: directives, deliveries, windows, publishing, telemetry."""

from collections.abc import Callable, Sequence

import pytest
from live import Live
from rig import packet

import wal
from tamiyo.audit import replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.directives import CONSERVATIVE_OFF, CONSERVATIVE_ON, command_delivered, operator_directed
from tamiyo.core.events import Event, decode, encode
from tamiyo.core.outbox import DueReport, publish_attempted, retries_due, telemetry_drained
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy


def say(live: Live, make: Callable[[State, int], Sequence[Event]]) -> None:
    live.service.journal.record(make).pending.result()


def reports(live: Live) -> list[DueReport]:
    found = [(entry.lsn, decode(entry.kind, entry.payload)) for entry in live.entries()]
    return [
        DueReport(lsn, pb.FieldReport.FromString(event.report).report_id)
        for lsn, event in found
        if isinstance(event, journal.FieldReportIssued) and lsn > live.service.state.outbox.reports_lsn
    ]


def publish(live: Live, *, succeeded: bool) -> None:
    due = reports(live)
    say(live, lambda state, now_ns: publish_attempted(state, due, succeeded=succeeded, cause="no", now_ns=now_ns))


@pytest.fixture(scope="module")
def history() -> list[wal.Entry]:
    """A service with windows of two decisions, an operator, deliveries, a bus that fails and comes back, a restart."""
    live = Live(policy=FixedPolicy(action=0), fr_obs_window_epochs=2, field_report_max_retries=1)
    for index in range(10):
        command = live.step(packet(validation_loss=0.5 - 0.01 * index, current_epoch=index))
        live.clock.advance(1.5)
        if index == 1:
            say(live, lambda state, now_ns: operator_directed(
                state, CONSERVATIVE_ON, operator="ada", reason="test", now_ns=now_ns, request_id="r"))  # fmt: skip
        if index == 3:
            say(live, lambda state, now_ns: operator_directed(
                state, CONSERVATIVE_OFF, operator="ada", reason="test", now_ns=now_ns))  # fmt: skip
            live.reopen()
        say(live, lambda _, now_ns, id_=command.command_id: command_delivered(id_, "applied", "", now_ns=now_ns))
        publish(live, succeeded=index not in (4, 5, 6))
    live.clock.advance(100.0)
    while live.service.state.outbox.retries:
        due = retries_due(live.service.state, live.service.journal.now_ns())[:1]
        say(live, lambda state, now_ns, due=due: publish_attempted(
            state, due, succeeded=False, cause="no", now_ns=now_ns))  # fmt: skip
        live.clock.advance(100.0)
    say(live, lambda state, now_ns: telemetry_drained(
        state, through_lsn=state.last_lsn, packets=10, now_ns=now_ns))  # fmt: skip
    live.step(packet())
    live.check()
    assert live.service.state.outbox.dropped >= 3
    entries = live.entries()
    live.close()
    return entries


def test_a_history_with_all_of_it_passes(history: list[wal.Entry]) -> None:
    found = replay(history)
    assert found.divergence is None, str(found.divergence)
    kinds = {type(decode(entry.kind, entry.payload)) for entry in history}
    assert kinds >= {
        journal.OperatorDirected, journal.CommandDelivered, journal.WindowClosed, journal.PublishAttempted,
        journal.FieldReportsDropped, journal.TelemetryDrained, journal.BreakerMoved,
    }  # fmt: skip


def changed(history: list[wal.Entry], kind: type[Event], change: Callable[[Event], object]) -> list[wal.Entry]:
    """The history with its first event of a kind changed (the last, for a service's opening)."""
    events = [decode(entry.kind, entry.payload) for entry in history]
    places = [index for index, event in enumerate(events) if isinstance(event, kind)]
    place = places[-1] if kind is journal.ServiceOpened else places[0]
    change(events[place])
    record_kind, payload = encode(events[place])
    return [*history[:place], wal.Entry(history[place].lsn, record_kind, payload), *history[place + 1 :]]


CHANGES: dict[str, tuple[type[Event], Callable[[Event], object]]] = {
    "directive": (journal.OperatorDirected, lambda e: setattr(e, "directive", "conservative_off")),
    "unknown directive": (journal.OperatorDirected, lambda e: setattr(e, "directive", "x")),
    "window outcome": (journal.WindowClosed, lambda e: setattr(e, "outcome", 3)),
    "window command": (journal.WindowClosed, lambda e: setattr(e, "command_id", "x")),
    "window count": (journal.WindowClosed, lambda e: setattr(e, "observed", 9)),
    "published report": (journal.PublishAttempted, lambda e: e.report_ids.__setitem__(0, "x")),
    "published place": (journal.PublishAttempted, lambda e: e.report_lsns.__setitem__(0, 1)),
    "published attempt": (journal.PublishAttempted, lambda e: setattr(e, "attempt", 2)),
    "dropped attempts": (journal.FieldReportsDropped, lambda e: setattr(e, "attempts", 1)),
    "dropped report": (journal.FieldReportsDropped, lambda e: e.report_ids.__setitem__(0, "x")),
    "telemetry of the future": (journal.TelemetryDrained, lambda e: setattr(e, "through_lsn", 10**9)),
    "edge": (journal.DecisionMade, lambda e: e.edges.add(reason="x", edge="started")),
    "loss delta": (journal.DecisionMade, lambda e: setattr(e, "loss_delta", 1.0)),
    "window setting": (journal.ServiceOpened, lambda e: setattr(e.options, "observation_window", 3)),
    "retries setting": (journal.ServiceOpened, lambda e: setattr(e.options, "report_retries_max", 9)),
    "options that cannot be": (journal.ServiceOpened, lambda e: setattr(e.options, "blend_mode_default", "x")),
}


@pytest.mark.parametrize(("kind", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_it_is_found(
    history: list[wal.Entry], kind: type[Event], change: Callable[[Event], object]
) -> None:
    assert replay(changed(history, kind, change)).divergence is not None


FORGED = {
    "window": journal.WindowClosed(step_lsn=3, command_id="x"),
    "drop": journal.FieldReportsDropped(report_lsns=[3], report_ids=["x"]),
    "attempt": journal.PublishAttempted(report_lsns=[4], report_ids=["x"], attempt=1, succeeded=True),
    "retry": journal.PublishAttempted(report_lsns=[4], report_ids=["x"], attempt=2),
    "drained twice": journal.TelemetryDrained(through_lsn=3),
    "request twice": journal.OperatorDirected(directive=CONSERVATIVE_ON, operator="eve", request_id="r"),
    "mode that should follow": journal.OperatorDirected(directive=CONSERVATIVE_ON, operator="eve"),
}


@pytest.mark.parametrize("event", FORGED.values(), ids=FORGED.keys())
def test_what_nothing_brought_about_is_found(history: list[wal.Entry], event: Event) -> None:
    kind, payload = encode(event)
    assert replay([*history, wal.Entry(len(history) + 1, kind, payload)]).divergence is not None


def without(history: list[wal.Entry], kind: type[Event]) -> list[wal.Entry]:
    places = [i for i, entry in enumerate(history) if isinstance(decode(entry.kind, entry.payload), kind)]
    kept = [entry for index, entry in enumerate(history) if index != places[-1]]
    return [wal.Entry(index, entry.kind, entry.payload) for index, entry in enumerate(kept, start=1)]


@pytest.mark.parametrize("kind", [journal.WindowClosed, journal.FieldReportsDropped])
def test_what_is_missing_is_found(history: list[wal.Entry], kind: type[Event]) -> None:
    assert replay(without(history, kind)).divergence is not None


def test_a_report_that_an_attempt_leaves_out_is_found(history: list[wal.Entry]) -> None:
    def leave_out(event: Event) -> None:
        del event.report_lsns[0], event.report_ids[0]

    events = [decode(entry.kind, entry.payload) for entry in history]
    place = next(i for i, e in enumerate(events) if isinstance(e, journal.PublishAttempted) and len(e.report_lsns) > 1)
    leave_out(events[place])
    kind, payload = encode(events[place])
    forged = [*history[:place], wal.Entry(history[place].lsn, kind, payload), *history[place + 1 :]]
    found = replay(forged).divergence
    assert found is not None
    assert "came first" in found.what
