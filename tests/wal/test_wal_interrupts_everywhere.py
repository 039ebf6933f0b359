"""An interrupt or a lack of memory at any line of the log: of opening, maintaining, reading, and of its own thread.

What was acknowledged is there, nothing is held that should be free, and doing it again works.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from interrupt_rig import every_line, is_safe, run, the_log_s
from log_rig import PATH, abandon, entries, numbered, open_log, overwrite, segments, written

import wal
from wal.recovery import examine
from wal.testing import MemoryDisk

RECORDS = [(n, bytes([n]) * 1500) for n in range(8)]
INTERRUPTS = (KeyboardInterrupt, MemoryError)


def of_which(number: int) -> BaseException:
    return INTERRUPTS[number % 2]()


def still_running() -> list[str]:
    """The threads of these tests' logs; another test may have left one that is not collected yet."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"wal-writer {PATH}"]


# Opening.


def nothing() -> MemoryDisk:
    return MemoryDisk()


def closed() -> MemoryDisk:
    return written([[record] for record in RECORDS[:5]])


def torn() -> MemoryDisk:
    disk = written([[record] for record in RECORDS[:5]], close=False)
    last = segments(disk)[-1]
    overwrite(disk, last, len(disk.peek(last).rstrip(b"\0")) + 511 & ~511, b"torn")
    return disk


def unsealed() -> MemoryDisk:
    """What a crash between naming a segment's successor and sealing it leaves."""
    disk = written([[record] for record in RECORDS[:5]], close=False)
    sealed, last = segments(disk)[-2:]
    image = disk.peek(sealed).rstrip(b"\0")
    overwrite(disk, sealed, (len(image) - 1) // 512 * 512, bytes(512))
    disk.poke(last, disk.peek(last)[:512].ljust(8192, b"\0"))
    findings = examine(PATH, disk)
    assert findings is not None
    assert findings.unsealed is not None
    return disk


@pytest.mark.parametrize("base", [nothing, closed, torn, unsealed], ids=lambda base: base.__name__)
def test_an_interrupt_at_any_line_of_opening_leaves_a_log_that_opens_and_a_lock_that_is_free(
    base: Callable[[], MemoryDisk],
) -> None:
    source = base()
    held = entries(source)
    opened: list[wal.Log] = []
    lines = list(every_line(lambda: opened.append(open_log(source.copy())), last_time_too=base is torn))
    for nth in lines:
        disk = source.copy()
        with pytest.raises(INTERRUPTS):
            run(lambda disk=disk: opened.append(open_log(disk)), nth, error=of_which(nth))
        assert not disk.locked(PATH / "LOCK"), nth
        with open_log(disk) as log:
            assert list(log.read()) == held, nth
            log.append([(9, b"on")])
        assert wal.verify(PATH, disk=disk).status == "intact"
    for log in opened:
        abandon(log)
    assert len(lines) > 150
    assert not still_running()
    assert held == numbered(RECORDS)[: len(held)]


# Maintaining.


def several() -> tuple[MemoryDisk, list[wal.Head]]:
    disk, heads = MemoryDisk(), []
    with open_log(disk) as log:
        for record in RECORDS:
            log.append([record, (99, b"kept")])
            heads.append(log.head())
    return disk, heads


SOURCE, HEADS = several()
MAINTENANCE: dict[str, Callable[[wal.Log], object]] = {
    "prune": lambda log: log.prune(9, keep_heads=HEADS[:2]),
    "redact": lambda log: log.redact(lambda entry: entry.kind != 99),
}


@pytest.mark.parametrize("what", MAINTENANCE)
def test_an_interrupt_at_any_line_of_maintenance_leaves_the_old_log_or_the_new_one(what: str) -> None:
    maintain, outcomes = MAINTENANCE[what], set()
    with open_log(SOURCE.copy()) as log:
        lines = list(every_line(lambda: maintain(log)))
    for nth in lines:
        disk = SOURCE.copy()
        with open_log(disk) as log:
            with contextlib.suppress(*INTERRUPTS):
                run(lambda log=log: maintain(log), nth, error=of_which(nth))
            assert wal.verify(PATH, HEADS[-1], disk=disk).expected == "confirmed", nth
            left = list(log.read(None))
            outcomes.add((len(left), sum(isinstance(entry, wal.Redacted) for entry in left)))
            assert [entry.lsn for entry in left] == list(range(left[0].lsn, 17))
            maintain(log)
            log.append([(9, b"on")])
        assert wal.verify(PATH, HEADS[1], disk=disk).expected == "confirmed"
    assert len(lines) > 100
    assert len(outcomes) >= 2


def test_an_interrupt_at_any_line_of_a_prune_without_a_writer_leaves_the_lock_free() -> None:
    pruned = wal.prune(PATH, 9, disk=SOURCE.copy())
    lines = list(every_line(lambda: wal.prune(PATH, 9, disk=SOURCE.copy())))
    for nth in lines[:-4:5]:  # each of them is tried above; the last are those that let the lock go
        disk = SOURCE.copy()
        with contextlib.suppress(*INTERRUPTS):
            run(lambda disk=disk: wal.prune(PATH, 9, disk=disk), nth, error=of_which(nth))
        assert not disk.locked(PATH / "LOCK"), nth
        assert wal.prune(PATH, 9, disk=disk).first_lsn == pruned.first_lsn > 1, nth


# Reading.


def test_an_interrupt_at_any_line_of_reading_moves_no_position() -> None:
    disk = SOURCE.copy()
    expected = entries(disk)
    for nth in every_line(lambda: list(wal.read(PATH, disk=disk)), last_time_too=True):
        reader, found = wal.Reader(PATH, disk=disk), []
        for _ in range(2):  # once from the beginning, once from the middle
            with contextlib.suppress(*INTERRUPTS):
                run(lambda: found.extend(reader.poll(3)), nth, error=of_which(nth))  # noqa: B023  called at once
            found += reader.poll(3)
        while more := reader.poll(3):
            found += more
        assert found == expected, nth


# The writer's own thread.


class OnTheWriterSThread:
    """Raises an error where a line of the log's code runs on the writer's thread for the first time, once it works."""

    def __init__(self, target: tuple[str, int] | None, error: BaseException) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._target = target
        self._error = error
        self._works = False

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        if not threading.current_thread().name.startswith("wal-writer") or not the_log_s(frame.f_code.co_filename):
            return None
        place = frame.f_code.co_filename, frame.f_lineno
        self._works = self._works or frame.f_code.co_name == "_loop"
        if event == "line" and self._works and place not in self.lines and not is_safe(*place):
            self.lines.add(place)
            if place == self._target:
                raise self._error
        return self


def play(tracer: OnTheWriterSThread) -> tuple[MemoryDisk, list[int]]:
    """Append across two rotations, with staged records, a heartbeat and a close; return the LSNs acknowledged."""
    disk, acked = MemoryDisk(), [0]
    measurement = threading.gettrace()  # of coverage, if any
    threading.settrace(tracer)
    try:
        log = open_log(disk, heartbeat_ms=0.01)
        with contextlib.suppress(wal.LogError):
            for record in RECORDS:
                log.stage(99, b"staged").wait(30)
                acked.append(log.append([record, record]).last_lsn)
        with contextlib.suppress(wal.LogError):
            log.close(30)
    finally:
        threading.settrace(measurement)  # type: ignore[arg-type]
    return disk, acked


def test_an_error_at_any_line_of_the_writer_s_thread_costs_nothing_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    play(counted := OnTheWriterSThread(None, MemoryError()))
    submitted = [entry for record in RECORDS for entry in ((99, b"staged"), record, record)]
    for target in sorted(counted.lines):
        disk, acked = play(OnTheWriterSThread(target, MemoryError()))
        assert not disk.locked(PATH / "LOCK"), target
        with open_log(disk) as log:
            found = list(log.read())
            assert found == numbered(submitted)[: len(found)], target
            assert len(found) >= acked[-1], target
            log.append([(9, b"on")])
    assert len(counted.lines) > 150
    assert not still_running()
