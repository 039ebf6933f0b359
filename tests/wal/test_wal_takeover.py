"""A writer whose lock did not hold: it was stopped, another one opened the log, and then it goes on."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from log_rig import abandon

import wal
from wal.testing import FaultDisk, MemoryDisk

SEGMENT_BYTES = 16384


@dataclass
class Two:
    """The `old` writer, which somebody cut off by removing its LOCK file, and the `new` one."""

    path: Path
    old: wal.Log
    new: wal.Log

    def files(self) -> dict[str, bytes]:
        return {place.name: place.read_bytes() for place in self.path.iterdir() if place.name != "spare.tmp"}


def opened(path: Path) -> wal.Log:
    return wal.Log.open(path, segment_bytes=SEGMENT_BYTES, heartbeat_ms=1e9)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    old = opened(tmp_path)
    for n in range(8):
        old.append([(n, bytes([n]) * 4000)])
    (tmp_path / "LOCK").unlink()
    new = opened(tmp_path)
    new.append([(100, b"by the new writer")])
    yield Two(tmp_path, old, new)
    abandon(old)
    new.close()
    kinds = [entry.kind for entry in wal.read(tmp_path, None)]
    assert kinds[-2:] == [100, 101], "the log is the new writer's"
    assert wal.verify(tmp_path).status in {"intact", "pruned", "redacted"}


@pytest.mark.parametrize("length", [10, 12000], ids=["in its segment", "in the next segment"])
def test_a_writer_that_was_taken_over_acknowledges_nothing_and_changes_nothing(two: Two, length: int) -> None:
    before = two.files()
    with pytest.raises(wal.OutcomeUnknown, match="another writer has taken over"):
        two.old.append([(99, bytes(length))])
    assert isinstance(two.old.failure, wal.TakenOver)
    for attempt in (
        lambda: two.old.append([(99, b"")]), lambda: two.old.submit([(99, b"")]), lambda: two.old.stage(99, b""),
    ):  # fmt: skip
        with pytest.raises(wal.TakenOver, match="open the log again"):
            attempt()
    assert two.files() == before
    assert two.new.append([(101, b"")]).last_lsn == 10


def test_closing_a_log_that_was_taken_over_says_so_and_leaves_it_to_its_new_writer(two: Two) -> None:
    before = two.files()
    with pytest.raises(wal.TakenOver):
        two.old.close()
    assert two.files() == before
    two.new.append([(101, b"")])


MAINTENANCE: dict[str, Callable[[wal.Log], object]] = {
    "prune": lambda log: log.prune(4),
    "redact": lambda log: log.redact(lambda entry: entry.kind == 1),
}


@pytest.mark.parametrize("what", MAINTENANCE)
def test_a_log_that_was_taken_over_is_neither_pruned_nor_redacted_by_its_old_writer(two: Two, what: str) -> None:
    before = two.files()
    with pytest.raises(wal.TakenOver):
        MAINTENANCE[what](two.old)
    assert two.files() == before
    MAINTENANCE[what](two.new)
    two.new.append([(101, b"")])


def test_a_forked_child_neither_prunes_nor_redacts(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        for n in range(8):
            log.append([(n, bytes([n]) * 4000)])
        before = {place.name: place.read_bytes() for place in tmp_path.glob("*.wal")}
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            refused = 0
            for maintain in MAINTENANCE.values():
                try:
                    maintain(log)
                except wal.LogClosed:
                    refused += 1
            os.write(tell, b"%d" % refused)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(told, 1) == b"2"
        os.close(told)
        os.close(tell)
        assert {place.name: place.read_bytes() for place in tmp_path.glob("*.wal")} == before
        for maintain in MAINTENANCE.values():
            maintain(log)


class Meddling(FaultDisk):
    """Maintains the log before and after each thing that its writer does with a file, but for asking about its names.

    So whatever another thread could maintain between two steps of the writer is maintained there.
    """

    def __init__(self) -> None:
        super().__init__(MemoryDisk())
        self.maintain: Callable[[], object] = lambda: None
        self.maintained = 0
        self._within = False

    def _meddle(self) -> None:
        if self._within or not threading.current_thread().name.startswith("wal-writer"):
            return
        self._within = True
        self.maintain()
        self.maintained += 1
        self._within = False

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._meddle()
        written = super().pwrite(fd, data, offset)
        self._meddle()
        return written

    def fdatasync(self, fd: int) -> None:
        self._meddle()
        super().fdatasync(fd)
        self._meddle()

    def rename(self, source: Path, target: Path) -> None:
        self._meddle()
        super().rename(source, target)
        self._meddle()

    def close(self, fd: int) -> None:
        self._meddle()
        super().close(fd)
        self._meddle()


@pytest.mark.parametrize("what", ["prune", "redact"])
def test_what_a_writer_maintains_between_two_steps_of_a_rotation_is_not_taken_for_a_takeover(what: str) -> None:
    disk, path = Meddling(), Path("/log")
    log = wal.Log.open(path, disk=disk, segment_bytes=SEGMENT_BYTES, heartbeat_ms=1e9)
    maintain: dict[str, Callable[[], object]] = {
        "prune": lambda: log.prune(log.durable_lsn), "redact": lambda: log.redact(lambda entry: True),
    }  # fmt: skip
    disk.maintain = maintain[what]
    for n in range(12):
        assert log.append([(n, bytes([n]) * 4000)]).last_lsn == n + 1
    disk.maintain = lambda: None
    maintain[what]()
    log.close()
    entries = list(wal.read(path, None, disk=disk))
    assert disk.maintained > 12
    assert entries[-1] == wal.Entry(12, 11, bytes([11]) * 4000)
    assert entries[0].lsn > 1 if what == "prune" else isinstance(entries[0], wal.Redacted)
    assert wal.verify(path, disk=disk).sound
