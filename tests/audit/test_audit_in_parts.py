"""An audit in parts finds what an audit in one piece finds, to the last count, or leaves it to that."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from audit.cutting import Here, checkpoints_every, in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import packet, proposal

import wal
from tamiyo.audit import Divergence, Replay, bases, reading
from tamiyo.audit.agreement import Reinference
from tamiyo.audit.bases import Cut
from tamiyo.audit.found import Counted
from tamiyo.audit.parts import Missing, Outcome, Part, Passed, Unfit, Unproven, checked, in_parts
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.draft import Standing
from tamiyo.core.events import KINDS, Event, decode, encode
from tamiyo.core.state import State
from tamiyo.testing.history import History
from tamiyo.testing.strategies.histories import DEEDS, STEPS

LOG = Path("log")
COUNTS = [one.name for one in fields(Counted)]


@pytest.fixture(autouse=True)
def every_step_is_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints_every(monkeypatch, 1)


def busy() -> History:
    """Steps and all that happens between them, with bases in all places, some of them late."""
    history = History(Settings(fr_obs_window_epochs=2))
    for number in range(24):
        history.step(
            packet(validation_loss=0.5 + 0.3 * (number % 5 == 4)), "failure" if number % 7 == 5 else proposal()
        )
        if number % 3 == 0:
            history.commit_is_late()
        if number % 4 == 1:
            history.base()
        if number % 8 == 5:
            history.base()
        if number % 5 == 2:
            history.undecided_step(packet())
        if number % 6 == 3:
            history.deliver("applied")
            history.look_back()
            history.base()
        if number % 4 == 3:
            history.publish(succeeded=number != 11)
            history.drain()
    return history


def serial(first_lsn: int = 1) -> Replay:
    return reading.replayed(LOG, first_lsn, None)


def same(one: Replay, other: Replay) -> None:
    assert [getattr(one, name) for name in COUNTS] == [getattr(other, name) for name in COUNTS]
    assert list(one.fingerprints) == list(other.fingerprints)
    assert (one.begun_lsn, one.divergence) == (other.begun_lsn, other.divergence)
    assert one.state.digest() == other.state.digest()
    assert (one.state.undecided, one.state.steps_unrecorded) == (other.state.undecided, other.state.steps_unrecorded)


def cut_up(entries: list[wal.Entry], first_lsn: int = 1, hands: Here | None = None) -> Replay | None:
    found = in_parts(LOG, first_lsn, entries[-1].lsn, hands or Here())
    return None if found is None else found[0]


def put_together(hands: Here) -> list[Part]:
    """The parts that were, in the end."""
    passed = {part.begin: part for part, outcome in hands.ran if isinstance(outcome, Passed)}
    chain = [next(part for part in reversed(passed.values()) if part.is_first)]
    while chain[-1].end is not None:
        chain.append(passed[chain[-1].end])
    return chain


def changed(
    entries: list[wal.Entry], kind: type[Event], change: Callable[[Event], object], place: int
) -> list[wal.Entry]:
    """The entries with one event of a kind changed."""
    index = [index for index, entry in enumerate(entries) if entry.kind == KINDS[kind]][place]
    event = decode(entries[index].kind, entries[index].payload)
    change(event)
    return [*entries[:index], wal.Entry(entries[index].lsn, *encode(event)), *entries[index + 1 :]]


def test_a_busy_history_is_cut_in_many_places_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, hands = busy().entries(), Here()
    in_memory(monkeypatch, entries)
    found = cut_up(entries, hands=hands)
    assert found is not None
    assert found.digests > 8
    assert found.late_commits > 3
    assert len(found.fingerprints) == 1
    assert sum(isinstance(outcome, Passed) for _, outcome in hands.ran) > 6
    same(found, serial())


@st.composite
def cuttable(draw: st.DrawFn) -> History:
    history = History(draw(st.sampled_from((Settings(), Settings(fr_obs_window_epochs=3)))))
    for _ in range(draw(st.integers(2, 30))):
        draw(STEPS if draw(st.booleans()) else DEEDS)(history)
        if draw(st.integers(0, 2)) == 0:
            history.base()
    return history


@given(history=cuttable(), reach=st.sampled_from((0, 10, 8_192)))
@settings(deadline=None)
def test_any_history_comes_to_the_same_in_parts(history: History, reach: int) -> None:
    entries, hands = history.entries(), Here()
    with pytest.MonkeyPatch.context() as patch:
        checkpoints_every(patch, 1)
        patch.setattr(bases, "REACH_MIN", reach)
        in_memory(patch, entries)
        found = cut_up(entries, hands=hands)
        assert all(isinstance(outcome, Passed | Unfit) for _, outcome in hands.ran)
        if found is None:
            return  # nowhere to cut it, in the end
        same(found, serial())


def change_report(event: Event) -> None:
    assert isinstance(event, journal.FieldReportIssued)
    event.report += b"\x00"


TAMPERED: dict[str, tuple[type[Event], Callable[[Event], object]]] = {
    "decision": (journal.DecisionMade, lambda event: setattr(event, "risk_reason", "x")),
    "proposal": (journal.InferenceObserved, lambda event: setattr(event, "value", event.value + 1)),
    "packet": (journal.StepReceived, lambda event: setattr(event, "packet", b"")),
    "report": (journal.FieldReportIssued, change_report),
    "base": (journal.StateBase, lambda event: setattr(event.state, "decisions", 77)),
    "digest": (journal.StateBase, lambda event: setattr(event, "digest", event.digest[:-1] + "g")),
    "opening": (journal.ServiceOpened, lambda event: event.thresholds.update({"blueprint_risk": 0.01})),
}


@pytest.mark.parametrize(("kind", "change"), TAMPERED.values(), ids=TAMPERED.keys())
def test_what_does_not_follow_in_any_part_is_left_to_one_piece(
    monkeypatch: pytest.MonkeyPatch, kind: type[Event], change: Callable[[Event], object]
) -> None:
    clean = busy().entries()
    places = sum(entry.kind == KINDS[kind] for entry in clean)
    failed = 0
    for place in range(places):
        entries = changed(clean, kind, change, place)
        in_memory(monkeypatch, entries)
        whole, found = serial(), cut_up(entries)
        failed += whole.divergence is not None
        assert (found is None) == (whole.divergence is not None), f"place {place}"
        if found is not None:
            same(found, whole)
    assert failed >= min(places, 3), "else it shows nothing"


def test_a_missing_consequence_is_found_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    history = busy()
    gone = [place for place, event in enumerate(history.events) if isinstance(event, journal.FieldReportIssued)]
    for place in gone[::4]:
        events = [*history.events[:place], *history.events[place + 1 :]]
        entries = [wal.Entry(lsn, *encode(event)) for lsn, event in enumerate(events, start=1)]
        in_memory(monkeypatch, entries)
        assert serial().divergence is not None
        assert cut_up(entries) is None


def test_a_log_that_ends_within_a_step_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    history = busy()
    last = max(place for place, event in enumerate(history.events) if isinstance(event, journal.DecisionMade))
    entries = history.entries()[:last]
    in_memory(monkeypatch, entries)
    assert "its decision is not in the log" in str(serial().divergence)
    assert cut_up(entries) is None


def test_a_log_without_a_base_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    history, hands = History(), Here()
    for _ in range(20):
        history.step(packet(), proposal())
    entries = history.entries()
    in_memory(monkeypatch, entries)
    assert cut_up(entries, hands=hands) is None
    assert not hands.ran


@pytest.mark.parametrize("kind", [journal.StepReceived, journal.FieldReportIssued, journal.DecisionMade])
def test_a_log_of_which_payloads_were_taken_out_is_begun_where_one_piece_begins(
    monkeypatch: pytest.MonkeyPatch, kind: type[Event]
) -> None:
    whole = busy().entries()
    begun = set()
    for upto in range(10, len(whole) * 2 // 3, 7):
        entries = [
            wal.Redacted(entry.lsn, entry.kind, b"") if entry.kind == KINDS[kind] and entry.lsn <= upto else entry
            for entry in whole
        ]
        in_memory(monkeypatch, entries)
        hands = Here()
        found = cut_up(entries, hands=hands)
        assert found is not None
        assert all(isinstance(outcome, Passed | Missing | Unfit) for _, outcome in hands.ran)
        same(found, serial())
        begun.add(found.begun_lsn)
    assert (len(begun) > 3) == (kind is not journal.FieldReportIssued)


def test_a_divergence_before_what_was_taken_out_is_left_to_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = changed(busy().entries(), *TAMPERED["decision"], place=1)
    place = [index for index, entry in enumerate(entries) if entry.kind == KINDS[journal.StepReceived]][12]
    entries[place] = wal.Redacted(entries[place].lsn, entries[place].kind, b"")
    in_memory(monkeypatch, entries)
    assert serial().divergence is not None
    assert cut_up(entries) is None


def test_a_pruned_log_is_begun_where_one_piece_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = busy().entries()
    for first_lsn in range(20, len(whole) // 2, 9):
        entries, hands = whole[first_lsn - 1 :], Here()
        in_memory(monkeypatch, entries)
        found = cut_up(entries, first_lsn, hands)
        assert found is not None
        assert len(hands.ran) > 3
        same(found, serial(first_lsn))
        assert found.begun_lsn >= first_lsn


def test_a_pruned_log_without_a_base_is_left_to_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = History().entries()[-1:]
    entries = [wal.Entry(7, entries[0].kind, entries[0].payload)]
    in_memory(monkeypatch, entries)
    assert cut_up(entries, 7) is None


def test_a_log_is_not_cut_within_a_retention_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its end says is said of the state where it began, and that is known in the part that saw it."""
    history, hands = busy(), Here(count=16)
    planned_lsn = history.state.last_lsn + 1
    history._fold(journal.RetentionPlanned(event_time_ns=history._now_ns()))
    digest = history.state.digest()
    for _ in range(6):
        history.step(packet(), proposal())
        history.base()
    history._fold(journal.RetentionCompleted(digest_lsn=planned_lsn, digest=digest, event_time_ns=history._now_ns()))
    completed_lsn = history.state.last_lsn
    for _ in range(6):
        history.step(packet(), proposal())
        history.base()
    entries = history.entries()
    in_memory(monkeypatch, entries)
    found = cut_up(entries, hands=hands)
    assert found is not None
    same(found, serial())
    assert any(isinstance(outcome, Unfit) for _, outcome in hands.ran)
    begun = [part.begun_lsn for part in put_together(hands)]
    assert not any(planned_lsn < lsn < completed_lsn for lsn in begun)
    assert any(lsn < planned_lsn for lsn in begun)
    assert any(lsn > completed_lsn for lsn in begun)
    forged = changed(entries, journal.RetentionCompleted, lambda event: setattr(event, "digest", digest[:-1] + "g"), 0)
    in_memory(monkeypatch, forged)
    assert serial().divergence is not None
    assert cut_up(forged) is None


def without_reports(entries: list[wal.Entry]) -> list[wal.Entry]:
    """The payloads of reports are taken out: an audit knows them from their decisions, where it saw these."""
    kind = KINDS[journal.FieldReportIssued]
    return [wal.Redacted(entry.lsn, kind, b"") if entry.kind == kind else entry for entry in entries]


@pytest.mark.parametrize(
    ("reach", "taken_out"), [(0, False), (8_192, False), (8_192, True)], ids=["far", "near", "taken out"]
)
def test_a_report_that_is_left_out_is_found_however_far_back_it_stands(
    monkeypatch: pytest.MonkeyPatch, reach: int, *, taken_out: bool
) -> None:
    """Nothing is published for a long while; a first attempt then leaves the oldest reports out."""
    history = History(Settings(fr_obs_window_epochs=1))
    for _ in range(12):
        history.step(packet(), proposal())
        history.base()
    clean, reports = list(history.events), 0
    history.publish(succeeded=True)
    attempt = history.events[len(clean)]
    assert isinstance(attempt, journal.PublishAttempted)
    reports = len(attempt.report_lsns)
    assert reports > 4

    def leave_out(event: Event) -> None:
        assert isinstance(event, journal.PublishAttempted)
        del event.report_lsns[: reports // 2], event.report_ids[: reports // 2]

    monkeypatch.setattr(bases, "REACH_MIN", reach)
    entries = without_reports(history.entries()) if taken_out else history.entries()
    in_memory(monkeypatch, entries)
    found = cut_up(entries)
    if found is not None:
        same(found, serial())
    assert (found is not None) == (reach > 0 and not taken_out), "else there is nowhere to cut it"
    entries = changed(entries, journal.PublishAttempted, leave_out, 0)
    in_memory(monkeypatch, entries)
    assert "came first" in str(serial().divergence)
    assert cut_up(entries) is None


def test_progress_goes_on_and_not_past_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamiyo.audit import parts

    monkeypatch.setattr(parts, "TELL_EVERY", 1)
    history, told = busy(), list[int]()
    digest_lsn = history.state.last_lsn
    digest = history.state.digest()
    history.step(packet(), proposal())
    history.base()
    history.step(packet(), proposal())
    taken = journal.SnapshotTaken(at_lsn=digest_lsn, digest=digest, event_time_ns=history._now_ns())
    history._fold(taken)
    entries, hands = history.entries(), Here(count=16)
    in_memory(monkeypatch, entries)
    assert in_parts(LOG, 1, entries[-1].lsn, hands, told.append) is not None
    assert any(isinstance(outcome, Unfit) for _, outcome in hands.ran), "some of it is gone through twice"
    assert told[-1] == entries[-1].lsn
    assert max(told) == entries[-1].lsn
    assert len(told) > len(entries) // 2


def with_a_base(history: History, state: State, digest: str = "") -> Cut:
    """A base of a state as the last record."""
    base = base_of(state, {}, history._now_ns())
    base.digest = digest or base.digest
    history._fold(base)
    return Cut(history.state.last_lsn, base.at_lsn, base.needs_lsn)


def first_part(monkeypatch: pytest.MonkeyPatch, history: History, end: Cut) -> Outcome:
    in_memory(monkeypatch, history.entries())
    return checked(LOG, Part(None, end, is_first=True), None, lambda _: True)


def test_a_state_that_is_not_compared_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    history.step(packet(), proposal())
    end = with_a_base(history, history._arrived)
    assert isinstance(first_part(monkeypatch, history, end), Passed)
    end = with_a_base(history, history._arrived, "1:" + "0" * 64)
    assert first_part(monkeypatch, history, end) == Unfit(end.at_lsn - 1, end.at_lsn)


def test_a_log_is_cut_where_a_packet_arrived_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    history.step(packet(), proposal())
    end = with_a_base(history, history.state)
    assert first_part(monkeypatch, history, end) == Unfit(end.at_lsn - 1, end.at_lsn)


def test_a_log_is_not_cut_where_a_step_is_half_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen of it would be forgotten, and that its decision is missing as well."""
    history = History()
    history.step(packet(), proposal())
    _, lsn, _ = history._receive(packet())
    history._fold(journal.MetadataFailed(step_lsn=lsn, error="no"))
    history.open()
    history.step(packet(), proposal())
    end = with_a_base(history, history._arrived)
    history.step(packet(), proposal())
    assert first_part(monkeypatch, history, end) == Unfit(end.at_lsn - 1, end.at_lsn)
    assert "its decision is not in the log" in str(serial().divergence)
    assert cut_up(history.entries()) is None


class Asked:
    """Level 3, with its finding made up."""

    def __init__(self, found: Reinference) -> None:
        self.found = found

    def begin(self, base: journal.StateBase | None) -> None:
        self.base = base

    def recall(self, lsn: int, event: Event, state: State) -> None: ...

    def take(self, lsn: int, event: Event, standing: Standing) -> None: ...

    def finish(self) -> Reinference:
        return self.found


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("wrong", [True, False])
def test_what_level_3_found_before_a_record_that_was_taken_out_counts(
    monkeypatch: pytest.MonkeyPatch, *, is_first: bool, wrong: bool
) -> None:
    history = History()
    history.step(packet(), proposal())
    begin = with_a_base(history, history._arrived)
    for _ in range(2):
        history.step(packet(), proposal())
    gone_lsn = history._arrived.last_lsn
    for _ in range(2):
        history.step(packet(), proposal())
    end = with_a_base(history, history._arrived)
    in_memory(monkeypatch, [
        wal.Redacted(*entry) if entry.lsn == gone_lsn else entry for entry in history.entries()
    ])  # fmt: skip
    found = Reinference(divergence=Divergence(begin.lsn + 2, 2, "wrong") if wrong else None)
    outcome = checked(LOG, Part(begin, end, is_first=is_first), Asked(found), lambda _: True)
    assert outcome == (Unproven() if wrong else Missing(gone_lsn))


@pytest.mark.parametrize(
    "found", [Reinference(divergence=Divergence(3, 1, "wrong")), Reinference(unknown={"no checkpoint": 1})]
)
def test_what_level_3_does_not_pass_is_left_to_one_piece(monkeypatch: pytest.MonkeyPatch, found: Reinference) -> None:
    entries = busy().entries()
    in_memory(monkeypatch, entries)
    assert in_parts(LOG, 1, entries[-1].lsn, Here(prepare=lambda: lambda: Asked(found))) is None
    assert in_parts(LOG, 1, entries[-1].lsn, Here(prepare=lambda: lambda: Asked(Reinference()))) is not None


class Scripted:
    """Says what it is told to, and keeps the parts that it was given."""

    count = 8

    def __init__(self, *outcomes: list[Outcome]) -> None:
        self.outcomes, self.given = list(outcomes), list[list[Part]]()

    def run(self, path: Path, parts: Sequence[Part], tell: Callable[[int], None]) -> Sequence[Outcome]:
        self.given.append(list(parts))
        found = self.outcomes.pop(0) if self.outcomes else [Unproven()]
        return [*found, *[Unproven()] * len(parts)][: len(parts)]


def test_the_first_that_did_not_pass_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = busy().entries()
    in_memory(monkeypatch, entries)
    passed = Passed(0, Counted(), None)
    found = Scripted([passed])
    assert in_parts(LOG, 1, entries[-1].lsn, found) is None
    first, second = found.given[0][:2]
    assert (first.begin, second.begin) == (None, first.end)
    assert second.end is not None
    unfit = Unfit(second.begun_lsn - 1, second.begun_lsn)

    found = Scripted([passed, Missing(second.begun_lsn + 1)])
    in_parts(LOG, 1, entries[-1].lsn, found)
    assert found.given[1][0].begun_lsn > second.begun_lsn
    assert found.given[1][0].is_first

    found = Scripted([passed, unfit, Missing(second.end.at_lsn + 1)])
    in_parts(LOG, 1, entries[-1].lsn, found)
    begun_anew = found.given[1][0]
    assert begun_anew == Part(None, second.end, is_first=True), "what was taken out later says nothing yet"


def test_of_the_bases_those_are_taken_that_can_be_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    history, arrived = History(), dict[int, int]()
    for number in range(1, 13):
        history.step(packet(), proposal())
        arrived[history._arrived.last_lsn] = number
        with_a_base(history, history._arrived, "1:" + "0" * 64 if number == 6 else "")
    entries = history.entries()
    in_memory(monkeypatch, entries)
    monkeypatch.setattr(bases, "CHECKPOINT_STEPS", 2)

    def steps(begun_lsn: int, needs_lsn: int, parts: int) -> list[int]:
        return [arrived[cut.at_lsn] for cut in bases.cuts(LOG, begun_lsn, needs_lsn, entries[-1].lsn, parts)]

    assert steps(0, 1, 400) == [2, 4, 8, 10, 12]
    begun_lsn = next(lsn for lsn, number in arrived.items() if number == 4)
    assert steps(begun_lsn, begun_lsn, 400) == [8, 10, 12]
    assert steps(0, begun_lsn + 1, 400) == [8, 10, 12]
    assert 1 < len(steps(0, 1, 4)) < 4
    assert steps(0, 1, 1) == []
