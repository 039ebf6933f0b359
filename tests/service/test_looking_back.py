"""A running service looks back at its state: digests and bases in the log, snapshots beside it, and their use."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
from live import PATIENT, library
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit
from tamiyo.beginning import beginning
from tamiyo.bus import NORMAL
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, Event, decode
from tamiyo.core.state import DIGEST_VERSION
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.errors import JournalUnreadable
from tamiyo.fingerprint import code_fingerprint
from tamiyo.journal import Journal
from tamiyo.snapshots import Snapshots
from tamiyo.testing import FixedPolicy, ManualClock, MemoryBus

EVERY = 4


class Run:
    """One directory on the real disk, and the service on it, whose upkeep is done by hand."""

    def __init__(self, directory: Path, segment_bytes: int = 2**16) -> None:
        self.directory = directory
        self.segment_bytes = segment_bytes
        self.clock = ManualClock()
        self.open()

    def open(self) -> None:
        self.service = TamiyoService.open(
            self.directory,
            policy=FixedPolicy(),
            urza=library(risk=0.6),
            secret=SECRET,
            settings=Settings(**{**PATIENT, "segment_bytes": self.segment_bytes}),
            clock=self.clock,
        )
        self.service.journal.checkpoint_steps = EVERY
        self.service._upkeep.stop()
        self.service._upkeep._thread.join()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.clock.advance(0.3)
            self.service.evaluate_step(packet(validation_loss=0.5))
            self.service._keeper.keep()

    def reopen(self) -> None:
        self.service.close()
        self.open()

    def events(self, kind: type[Event]) -> list[Event]:
        return [decode(e.kind, e.payload) for e in self.service.log.read(None) if e.kind == KINDS[kind]]

    def snapshots(self) -> list[Path]:
        return sorted((self.directory / "snapshots").glob("*.snapshot"))

    def loaded(self, caplog: pytest.LogCaptureFixture) -> int:
        """The LSN that an opening begins to fold at, 0 for the log's first record."""
        with caplog.at_level(logging.WARNING):
            return beginning(self.service.log, Snapshots(self.directory, code_fingerprint())).state.last_lsn


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    yield made
    made.service.close()


def test_every_few_steps_the_log_names_its_state_and_an_audit_compares(run: Run) -> None:
    run.steps(3 * EVERY + 1)
    run.service.close()
    base, *taken = run.events(journal.StateBase) + run.events(journal.SnapshotTaken)
    assert isinstance(base, journal.StateBase)
    assert [event.stored for event in taken] == [True, True]  # type: ignore[attr-defined]
    report = audit(run.directory)
    assert report.passed, report.text
    assert "3 recorded states compared" in report.text


def test_a_flush_looks_back_where_no_upkeep_does_and_not_beside_another_thread_that_does(run: Run) -> None:
    for _ in range(EVERY + 1):
        run.service.evaluate_step(packet(validation_loss=0.5))
    with run.service._keeper._keeping:
        assert run.service.flush()
        assert not run.events(journal.StateBase)
    assert run.service.flush()
    assert len(run.events(journal.StateBase)) == 1


def test_each_new_segment_brings_a_base(run: Run) -> None:
    while len(list((run.directory / "wal").glob("*.wal"))) < 4:
        run.steps(EVERY)
    run.steps(EVERY)
    assert len(run.events(journal.StateBase)) >= 4
    assert len(run.events(journal.StateBase)) < len(run.events(journal.SnapshotTaken))


def test_a_log_that_was_pruned_and_is_as_long_as_before_brings_a_base_all_the_same(run: Run) -> None:
    while len(list((run.directory / "wal").glob("*.wal"))) < 3:
        run.steps(EVERY)
    run.steps(EVERY)
    bases, size_bytes = len(run.events(journal.StateBase)), run.service.log.size_bytes
    run.service.journal.checkpoint_steps = 10**6
    assert run.service.log.prune(run.service.log.segments()[-1].first_lsn).segments == 2
    while run.service.log.size_bytes < size_bytes:
        run.steps(1)
    left = len(run.events(journal.StateBase))
    assert left <= bases
    run.service.journal.checkpoint_steps = 1
    run.steps(EVERY)  # the log may be busy with the next segment at the first
    assert run.service.log.size_bytes == size_bytes
    assert len(run.events(journal.StateBase)) == left + 1


def test_an_opening_goes_on_from_the_snapshot_and_comes_to_the_same(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.steps(2 * EVERY + 1)
    contents = dict(run.service.journal._contents)
    last_lsn, digest = run.service.state.last_lsn, run.service.state.digest()
    run.service.close()
    assert run.loaded(caplog) == last_lsn  # closing takes one of the very end
    journal_ = Journal(
        lambda: wal.Log.open(run.directory / "wal", segment_bytes=2**16),
        run.clock,
        Snapshots(run.directory, code_fingerprint()),
    )
    assert journal_.state.digest() == digest
    assert journal_._contents == contents
    journal_.close()
    run.open()
    run.steps(EVERY)
    run.service.close()
    assert audit(run.directory).passed
    assert len(run.snapshots()) == 2


def header(path: Path, **changed: object) -> None:
    line, payload = path.read_bytes().split(b"\n", 1)
    path.write_bytes(orjson.dumps({**orjson.loads(line), **changed}) + b"\n" + payload)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


SPOILED: dict[str, Callable[[Path], object]] = {
    "of other code": lambda path: header(path, fingerprint="0.0.1+x"),
    "of another format": lambda path: header(path, format="tamiyo-snapshot-9"),
    "of another log": lambda path: header(path, log_id="00" * 16),
    "of a record that is another": lambda path: header(path, record="00" * 32),
    "of an LSN that does not exist": lambda path: header(path, lsn=10**9),
    "of an LSN that is no number": lambda path: header(path, lsn="4"),
    "of an LSN that is no whole number": lambda path: header(path, lsn=4.5),
    "of no LSN": lambda path: header(path, lsn=None),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "of an LSN that is not the state's": lambda path: header(path, lsn=1),
    "with a flipped bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "of something else": lambda path: path.write_bytes(b"[1, 2]\nx"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_snapshot_that_is_not_what_it_should_be_is_discarded_with_a_line(
    run: Run, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object]
) -> None:
    run.steps(EVERY + 1)
    digest = run.service.state.digest()
    run.service.close()
    for path in run.snapshots():
        spoil(path)
    base = run.events(journal.StateBase)[0]
    assert isinstance(base, journal.StateBase)
    assert run.loaded(caplog) == base.at_lsn  # the log's own base serves instead
    assert caplog.text.count("is discarded, and the log is read instead") == 2
    found = Journal(lambda: wal.Log.open(run.directory / "wal", segment_bytes=2**16), run.clock)
    assert found.state.digest() == digest
    found.close()


def test_a_digest_that_a_snapshot_does_not_have_discards_it(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Its bytes are as they were written, and the state they hold is not the one they name."""
    run.steps(EVERY + 1)
    run.service.close()
    for path in run.snapshots():
        line, payload = path.read_bytes().split(b"\n", 1)
        base = journal.StateBase.FromString(payload)
        base.state.decisions += 1
        changed = base.SerializeToString()
        path.write_bytes(line + b"\n" + changed)
        header(path, payload=sha256(changed).hexdigest())
    run.loaded(caplog)
    assert f"not {DIGEST_VERSION}:" in caplog.text


def test_where_no_snapshot_can_be_written_the_digest_is_recorded_all_the_same(run: Run) -> None:
    (run.directory / "snapshots").write_text("in the way")
    run.steps(2 * EVERY + 1)
    assert [event.stored for event in run.events(journal.SnapshotTaken)] == [False]  # type: ignore[attr-defined]
    run.reopen()
    run.steps(1)
    run.service.close()
    assert audit(run.directory).passed


def pruned(run: Run) -> journal.StateBase:
    """The run's log without what its last base does not need, and without snapshots; published up to the base."""
    bus = MemoryBus()
    while len(list((run.directory / "wal").glob("*.wal"))) < 4:
        run.steps(EVERY)
        assert asyncio.run(run.service.publish_history(bus))
    base = run.events(journal.StateBase)[-1]
    assert isinstance(base, journal.StateBase)
    assert run.service.log.prune(base.needs_lsn).freed_bytes > 0
    run.service.close()
    for path in run.snapshots():
        path.unlink()
    return base


def test_a_pruned_log_is_opened_from_its_base_and_audited_from_there(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    base = pruned(run)
    state, contents = run.service.state, dict(run.service.journal._contents)
    assert run.loaded(caplog) == base.at_lsn
    found = Journal(lambda: wal.Log.open(run.directory / "wal", segment_bytes=2**16), run.clock)
    assert found.state.digest() == state.digest()
    assert found._contents == contents
    found.close()
    report = audit(run.directory)
    assert report.passed, report.text
    assert report.begun_lsn > 0
    assert f"from LSN {report.begun_lsn + 1} on" in report.text
    run.open()
    run.steps(EVERY)
    assert asyncio.run(run.service.publish_history(MemoryBus()))
    run.service.close()
    assert audit(run.directory).passed


def test_telemetry_that_waits_is_told_by_a_service_that_finds_its_log_pruned(run: Run) -> None:
    pruned(run)
    drained_lsn = run.service.state.outbox.telemetry_lsn
    run.open()
    run.steps(3)
    bus = MemoryBus()
    assert asyncio.run(run.service.publish_history(bus))
    begun = beginning(run.service.log, None, upto_lsn=drained_lsn)
    reader = TelemetryReader(begun.state, begun.received)
    told = [
        made.packet_id
        for entry in run.service.log.read(begun.state.last_lsn)
        if (made := reader.take(entry.lsn, decode(entry.kind, entry.payload))) is not None and entry.lsn > drained_lsn
    ]
    sent = [message.message_id for message in bus.messages if message.stream != NORMAL]
    assert sent == told[: len(sent)]
    assert len(sent) >= 3


def test_a_pruned_log_without_a_base_says_what_is_missing(run: Run) -> None:
    run.service.journal.checkpoint_steps = 10**9
    while len(list((run.directory / "wal").glob("*.wal"))) < 3:
        run.steps(EVERY)
    run.service.log.prune(run.service.log.next_lsn)
    run.service.close()
    for path in run.snapshots():
        path.unlink()
    with pytest.raises(JournalUnreadable, match="no StateBase in it"):
        run.open()
    assert audit(run.directory).verdict == "UNVERIFIABLE"


def test_reports_that_were_taken_out_leave_the_audit_and_the_opening_as_they_were(run: Run) -> None:
    while len(list((run.directory / "wal").glob("*.wal"))) < 3:
        run.steps(EVERY)
    digest = run.service.state.digest()
    base = run.events(journal.StateBase)[-1]
    assert isinstance(base, journal.StateBase)
    done = run.service.log.redact(
        lambda entry: entry.kind == KINDS[journal.FieldReportIssued], upto_lsn=base.needs_lsn - 1
    )
    assert done.records > 0
    run.service.close()
    for path in run.snapshots():
        path.unlink()
    report = audit(run.directory)
    assert report.passed, report.text
    assert (report.begun_lsn, f"{done.records} reports" in report.text) == (0, True)
    found = Journal(lambda: wal.Log.open(run.directory / "wal", segment_bytes=2**16), run.clock)
    assert found.state.digest() == digest
    found.close()


def test_a_packet_that_was_taken_out_moves_the_horizon_to_the_next_base(run: Run) -> None:
    while len(list((run.directory / "wal").glob("*.wal"))) < 4:
        run.steps(EVERY)
    run.service.log.redact(lambda entry: entry.kind == KINDS[journal.StepReceived] and entry.lsn < 40)
    run.service.close()
    report = audit(run.directory)
    assert report.passed, report.text
    assert report.begun_lsn > 40


def test_looking_back_is_done_by_the_upkeep_itself(tmp_path: Path) -> None:
    settings = Settings(**{**PATIENT, "segment_bytes": 2**16})
    with TamiyoService.open(tmp_path, policy=FixedPolicy(), secret=SECRET, settings=settings) as service:
        service.journal.checkpoint_steps = 1
        told = threading.Event()
        while not told.is_set():
            service.evaluate_step(packet())
            if any(entry.kind == KINDS[journal.StateBase] for entry in service.log.read()):
                told.set()
    assert audit(tmp_path).passed
