"""What the tests of the log share: small logs in memory, and the bytes of damaged ones."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import wal
from wal.disk import opened
from wal.frames import SEAL, Frame
from wal.scan import Window, next_frame, start_of
from wal.segment import file_name
from wal.shelf import read_segment
from wal.testing import MemoryDisk

PATH = Path("/log")
SEGMENT_BYTES = 8192
NEVER_MS = 1e9
Record = tuple[int, bytes]


def counting_entropy() -> Callable[[int], bytes]:
    """Random bytes that are the same in every run: the log's bytes are then a function of what it was given."""
    counter = itertools.count(1)
    return lambda length: (next(counter).to_bytes(8, "little") * (length // 8 + 1))[:length]


def open_log(disk: wal.Disk, path: Path = PATH, **options: object) -> wal.Log:
    """Open a log of small segments that writes nothing unasked."""
    defaults: dict[str, object] = {
        "segment_bytes": SEGMENT_BYTES, "heartbeat_ms": NEVER_MS, "entropy": counting_entropy(), "disk": disk,
    }  # fmt: skip
    return wal.Log.open(path, **(defaults | options))  # type: ignore[arg-type]


def entries(disk: wal.Disk, path: Path = PATH, after: int = 0) -> list[wal.Entry]:
    return list(wal.read(path, after, disk=disk))


def numbered(records: Iterable[Record], first_lsn: int = 1) -> list[wal.Entry]:
    """The entries that a log of these records holds."""
    return [wal.Entry(lsn, *record) for lsn, record in enumerate(records, first_lsn)]


def written(batches: Sequence[Sequence[Record]], *, close: bool = True, **options: object) -> MemoryDisk:
    """A disk with a log of these batches; unclosed, it is what kill -9 leaves."""
    disk = MemoryDisk()
    log = open_log(disk, **options)
    for batch in batches:
        log.append(batch)
    if close:
        log.close()
        return disk
    after = disk.kill()
    abandon(log)
    return after


def abandon(log: wal.Log) -> None:
    """Let go of a log whose disk is dead."""
    with contextlib.suppress(wal.LogFailed):
        log.close()


def segment(number: int = 1, first_lsn: int = 1) -> Path:
    return PATH / file_name(number, first_lsn)


def segments(disk: MemoryDisk) -> list[Path]:
    return [place for place in disk.files() if place.suffix == ".wal"]


def contents(disk: MemoryDisk) -> dict[Path, bytes]:
    return {place: disk.peek(place) for place in disk.files() if place.name != "LOCK"}


def frames_of(disk: wal.Disk, place: Path) -> list[Frame]:
    """The frames of an undamaged segment, in order."""
    found: list[Frame] = []
    with opened(disk, place) as fd:
        window, cursor = Window(disk, fd), start_of(read_segment(place, disk).header)
        while (frame := next_frame(window, cursor)) is not None:
            found.append(frame)
            cursor.advance(frame)
            if frame.type == SEAL:
                break
    return found


def overwrite(disk: MemoryDisk, place: Path, offset: int, data: bytes) -> None:
    image = bytearray(disk.peek(place))
    image[offset : offset + len(data)] = data
    disk.poke(place, bytes(image))


def wait_until(holds: Callable[[], bool], within_s: float = 30) -> None:
    """Come back once another thread or process has made this hold."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        threading.Event().wait(0.001)


class AtCall:
    """A disk on which something else happens just before the `at`-th call."""

    def __init__(self, disk: MemoryDisk, at: int, meddle: Callable[[], object]) -> None:
        self._disk = disk
        self._meddle = meddle
        self.left = at

    def __getattr__(self, name: str) -> Callable[..., object]:
        real = getattr(self._disk, name)

        def call(*args: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                self._meddle()
            return real(*args, **options)

        return call
