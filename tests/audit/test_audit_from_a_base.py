"""An audit of a log whose beginning is gone: from a base on it finds what an audit of the whole log finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import packet, proposal

import wal
from tamiyo.audit import reading, replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode, encode
from tamiyo.errors import RecordRedacted
from tamiyo.testing.history import History
from tamiyo.testing.strategies import histories


def bases(entries: list[wal.Entry]) -> list[journal.StateBase]:
    found = [decode(entry.kind, entry.payload) for entry in entries if entry.kind == KINDS[journal.StateBase]]
    return [base for base in found if isinstance(base, journal.StateBase)]


def without(entries: list[wal.Entry], *kinds: int) -> list[wal.Entry]:
    """The entries, the payloads of some kinds taken out."""
    return [wal.Redacted(entry.lsn, entry.kind, b"") if entry.kind in kinds else entry for entry in entries]


@given(history=histories(max_deeds=30), more=st.integers(0, 3))
@settings(deadline=None)
def test_the_tail_past_any_base_comes_to_what_the_whole_log_comes_to(history: History, more: int) -> None:
    for _ in range(more):
        history.base()
    entries = history.entries()
    whole = replay(entries)
    assert whole.divergence is None, str(whole.divergence)
    assert whole.digests_skipped == 0
    for base in bases(entries):
        found = replay(entries[base.needs_lsn - 1 :], base=base)
        assert found.divergence is None, str(found.divergence)
        assert found.state.digest() == whole.state.digest()
        assert found.begun_lsn == base.at_lsn


@given(history=histories(max_deeds=30))
@settings(deadline=None)
def test_reports_that_were_taken_out_follow_from_their_decisions(history: History) -> None:
    entries = history.entries()
    found = replay(without(entries, KINDS[journal.FieldReportIssued]))
    assert found.divergence is None, str(found.divergence)
    assert found.state.digest() == history.state.digest()
    assert found.redacted == sum(entry.kind == KINDS[journal.FieldReportIssued] for entry in entries)


def one_step() -> History:
    history = History()
    history.step(packet(), proposal())
    return history


@pytest.mark.parametrize("kind", [journal.StepReceived, journal.InferenceObserved, journal.DecisionMade])
def test_a_decision_whose_record_was_taken_out_cannot_be_recomputed(kind: type) -> None:
    entries = one_step().entries()
    place = next(entry.lsn for entry in entries if entry.kind == KINDS[kind])
    with pytest.raises(RecordRedacted, match=f"LSN {place}, a {kind.__name__}") as caught:
        replay(without(entries, KINDS[kind]))
    assert caught.value.lsn == place


def spoiled(history: History, event: journal.StateBase | journal.SnapshotTaken) -> list[wal.Entry]:
    """The history with other words in the place of its last record."""
    return [*history.entries()[:-1], wal.Entry(len(history.events), *encode(event))]


def test_a_digest_that_is_not_the_state_s_is_named() -> None:
    history = one_step()
    history.look_back()
    taken = history.events[-1]
    assert isinstance(taken, journal.SnapshotTaken)
    taken.digest = "3:" + "0" * 64
    found = replay(spoiled(history, taken))
    assert found.divergence is not None
    assert found.divergence.lsn == len(history.events)
    assert "3:0000" in str(found.divergence)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda base: setattr(base.state, "decisions", 77),
        lambda base: setattr(base, "needs_lsn", 1),
        lambda base: base.contents.add(digest="0" * 64, content=b"\x0a\x00"),
        lambda base: base.state.undelivered.add(command_id="forged", lsn=1),
    ],
)
def test_a_base_that_is_not_the_state_is_named(spoil: object) -> None:
    history = one_step()
    history.base()
    base = history.events[-1]
    assert isinstance(base, journal.StateBase)
    spoil(base)  # type: ignore[operator]
    found = replay(spoiled(history, base))
    assert found.divergence is not None
    assert found.divergence.lsn == len(history.events)


def test_a_digest_of_another_version_is_passed_over_and_counted() -> None:
    history = one_step()
    history.look_back()
    taken = history.events[-1]
    assert isinstance(taken, journal.SnapshotTaken)
    taken.digest = "1:" + "0" * 64
    found = replay(spoiled(history, taken))
    assert (found.divergence, found.digests, found.digests_skipped) == (None, 0, 1)


def test_however_many_bases_are_passed_over_the_log_is_read_about_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    history = one_step()
    for _ in range(40):
        history.base()
        history.step(packet(), proposal())
    entries = history.entries()
    gone = without(entries[: len(entries) * 3 // 4], KINDS[journal.StepReceived])
    left, served = [*gone, *entries[len(gone) :]], list[int]()

    def read(_: Path, after: int | None = 0) -> Iterator[wal.Entry]:
        for entry in left[after or 0 :]:
            served.append(entry.lsn)
            yield entry

    monkeypatch.setattr(wal, "read", read)
    found = reading.replayed(Path("log"), 1, None)
    assert found.divergence is None, str(found.divergence)
    assert found.state.digest() == history.state.digest()
    assert found.begun_lsn > len(gone), "it began with the first base past what is gone"
    assert len(served) < 3 * len(left)
