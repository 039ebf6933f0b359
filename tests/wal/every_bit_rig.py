"""A full log of one 64 KiB segment, and what everyone who reads it must make of each way to damage it."""

import bisect
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from log_rig import PATH, abandon, contents, open_log, segment

import wal
from wal.disk import opened
from wal.frames import TYPE_NAMES, Frame, body_room
from wal.recovery import examine
from wal.scan import Window, next_frame, start_of
from wal.segment import HEADER_BYTES
from wal.tail import Tail, emergency_bytes, reserve_bytes
from wal.testing import MemoryDisk

LOG_BYTES = 65536
PLACE = segment()
OPTIONS = {"segment_bytes": LOG_BYTES}
RECORD_HEAD_BYTES = 24


def _fill(log: wal.Log) -> None:
    """Records of many sizes, alone and in batches, staged and not, and two that try to mislead."""
    draw = random.Random(64)
    log.append([(1, b"first")])
    log.append([(2, b"")])
    log.append([(3, bytes(600))])
    for size in (1, 331, 332, 333, 4000):
        log.append([(4, draw.randbytes(size))])
    log.append([(5, draw.randbytes(10)), (6, b""), (7, bytes(700)), (8, draw.randbytes(350))])
    for size in (0, 2000):
        log.stage(9, draw.randbytes(size)).wait()
        log.append([(10, b"after the staged one")])
    log.append([(11, b"\xff" * 5000), (12, bytes(3000))])


def _fill_up(log: wal.Log, disk: MemoryDisk) -> None:
    """Go on until the last frame that has a place is written."""
    log.append([(13, disk.peek(PLACE)[512:4096])])  # frames of this very log
    log.append([(14, random.Random(65).randbytes(12000))])
    log.append([(15, random.Random(68).randbytes(900)), (15, b"")])
    log.append([(16, random.Random(66).randbytes(_room(log, disk) - 4096 - RECORD_HEAD_BYTES))])
    log.append([(17, b"last but one")])
    log.append([(18, random.Random(67).randbytes(_room(log, disk) - RECORD_HEAD_BYTES))])


def _room(log: wal.Log, disk: MemoryDisk) -> int:
    """The longest body for which this segment has a place, for a batch that is no emergency."""
    offset = len(disk.peek(PLACE).rstrip(b"\0"))
    end = LOG_BYTES - reserve_bytes(log.durable_lsn) - emergency_bytes(LOG_BYTES)
    return body_room(end - offset - -offset % -512)


def full_log() -> MemoryDisk:
    """One that ends in a heartbeat; its writer died. It has been closed and opened again midway."""
    disk = MemoryDisk()
    with open_log(disk, **OPTIONS) as log:
        _fill(log)
    log = open_log(disk, **OPTIONS)
    _fill_up(log, disk)
    after = disk.kill()
    abandon(log)
    after.unlink(PATH / "spare.tmp")
    findings = examine(PATH, after)
    assert findings is not None
    tail = Tail(
        after, PATH, after.open(PLACE, write=True), findings.segments[-1].header, findings.stop.cursor, findings.tree
    )
    tail.heartbeat()
    tail.release()
    return after.copy()


class Region(NamedTuple):
    """A stretch of the segment: the header, a frame and the LSNs it holds, or the zeros behind the last frame."""

    name: str
    start: int
    end: int
    first_lsn: int
    next_lsn: int


class Place(NamedTuple):
    """Where damage was found, and what it takes: of segment 1, as `wal.LogCorrupt` has it."""

    offset: int
    lsn: int | None
    last_lsn: int | None
    flipped: wal.Flip | None = None


class FullLog:
    """A full log, damaged in place a case at a time. Each case ends with the log as it was.

    `counts` are cases by kind of damage, region and class: C for damage that is refused, T for what may be cut and
    holds no record, L for what only a head can tell. `violations` are the cases that were taken for something else.
    """

    def __init__(self) -> None:
        self.disk = full_log()
        self.image = self.disk.peek(PLACE)
        self.entries = list(wal.read(PATH, disk=self.disk))
        self.head = wal.head(PATH, disk=self.disk)
        self.regions = regions(self.disk)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._files = contents(self.disk)
        self._fd = self.disk.open(PLACE, write=True)

    @property
    def is_as_it_was(self) -> bool:
        return contents(self.disk) == self._files

    def _restore(self) -> None:
        self.disk = MemoryDisk(self._files)
        self._fd = self.disk.open(PLACE, write=True)

    # The ways to damage it.

    def flip(self, number: int) -> None:
        """Flip one bit; bits are numbered from the segment's first byte on, the lowest of each first.

        Where it is damage, a reader looks at one bit of each byte, another one from byte to byte: it asks the same
        table as opening does.
        """
        offset, bit = divmod(number, 8)
        region = self._region_at(offset)
        self.disk.pwrite(self._fd, bytes([self.image[offset] ^ 1 << bit]), offset)
        if region.name in ("heartbeat", "zeros"):
            self._case(f"bit {number}", "flipped", region, "T", lambda: self._torn(self.disk, region.start))
        else:
            known = region.name != "header"
            place = Place(
                region.start, region.first_lsn if known else None, region.next_lsn - 1 if known else None,
                wal.Flip(offset, bit),
            )  # fmt: skip
            sound, by_readers = region.first_lsn - 1, bit == offset % 8
            self._case(
                f"bit {number}", "flipped", region, "C",
                lambda: self._corrupt(self.disk, place, sound, by_readers=by_readers),
            )  # fmt: skip
        self.disk.pwrite(self._fd, self.image[offset : offset + 1], offset)

    def cut(self, length: int) -> None:
        """Cut the file to this length."""
        disk = MemoryDisk({**self._files, PLACE: self.image[:length]})
        whole = [region for region in self.regions if region.end <= length]
        place = Place(length, whole[-1].next_lsn if whole else None, None)
        region = self._region_at(length)
        self._case(f"length {length}", "cut", region, "C", lambda: self._corrupt(disk, place, 0))

    def blank(self, start: int) -> None:
        """Put zeros in the place of everything from an offset on, as on a disk that lost the file's end."""
        disk = MemoryDisk({**self._files, PLACE: self.image[:start].ljust(LOG_BYTES, b"\0")})
        lost = next((region for region in self.regions if any(self.image[start : region.end])), self.regions[-1])
        blank = not any(self.image[lost.start : start])  # nothing is left of the first frame that is lost
        name, region = f"zeros from {start}", self._region_at(start)
        if lost.name == "header":
            self._case(name, "blanked", region, "C", lambda: self._corrupt_header(disk))
        elif lost.first_lsn > len(self.entries):
            self._case(name, "blanked", region, "T", lambda: self._torn(disk, lost.start, blank=blank))
        else:
            self._case(name, "blanked", region, "L", lambda: self._shortened(disk, lost, blank=blank))

    # What everyone must make of it.

    def _case(self, name: str, damage: str, region: Region, kind: str, check: Callable[[], None]) -> None:
        self.counts[f"{damage} in {region.name}: {kind}"] += 1
        try:
            check()
        except (AssertionError, wal.LogError) as error:
            self.violations.append(f"{name}, in {region}: {error!r}")
            self._restore()

    def _corrupt(self, disk: MemoryDisk, place: Place, sound: int, *, by_readers: bool = True) -> None:
        """All three refuse, at this place; what is sound before it is counted by the one and read by the other."""
        self._same(_refused(lambda: open_log(disk, **OPTIONS).close()), place, "open")
        verdict = wal.verify(PATH, disk=disk)
        found = (verdict.status, verdict.records, verdict.segment, verdict.offset_bytes)
        self._same(found, ("corrupt", sound, 1, place.offset), "verify")
        self._same("is flipped)" in str(verdict.problem), place.flipped is not None, "the hint of verify")
        if by_readers:
            read: list[wal.Entry] = []
            self._same(_refused(lambda: read.extend(wal.read(PATH, disk=disk)), read), place, "read")
            self._same(read, self.entries[:sound], "what was read")

    def _corrupt_header(self, disk: MemoryDisk) -> None:
        flipped = _refused(lambda: open_log(disk, **OPTIONS).close()).flipped
        self._corrupt(disk, Place(0, None, None, flipped), 0)

    def _torn(self, disk: MemoryDisk, end: int, *, blank: bool = False) -> None:
        """Nothing acknowledged is touched: all read it whole, and opening saves what stands from `end` on, and cuts."""
        verdict = wal.verify(PATH, self.head, disk=disk)
        found = (verdict.status, verdict.records, verdict.expected, verdict.offset_bytes)
        everything = len(self.entries)
        self._same(found, ("intact" if blank else "torn", everything, "confirmed", None if blank else end), "verify")
        self._same(list(wal.read(PATH, disk=disk)), self.entries, "what was read")
        disk = disk.copy()
        torn = disk.peek(PLACE)[end:].rstrip(b"\0")
        with open_log(disk, expect_head=self.head, **OPTIONS) as log:
            report = log.recovery
            self._same(log.append([(1, b"next")]).first_lsn, everything + 1, "where it goes on")
        self._same((report.last_lsn, report.cut_bytes), (everything, len(torn)), "open")
        saved = b"" if report.quarantine is None else disk.peek(report.quarantine)
        self._same(saved, torn, "quarantine")
        self._same(list(wal.read(PATH, disk=disk))[:-1], self.entries, "what was read after opening")

    def _shortened(self, disk: MemoryDisk, lost: Region, *, blank: bool) -> None:
        """With a head it is refused. Without one it looks like a crash, and nothing is made of it but that."""
        left = lost.first_lsn - 1
        with_head = _refused(lambda: open_log(disk, expect_head=self.head, **OPTIONS).close())
        self._same(with_head[:2], (lost.start, lost.first_lsn), "open")
        verdict = wal.verify(PATH, self.head, disk=disk)
        self._same((verdict.status, verdict.records, verdict.expected), ("truncated", left, None), "verify")
        verdict = wal.verify(PATH, disk=disk)
        self._same((verdict.status, verdict.records), ("intact" if blank else "torn", left), "verify without a head")
        self._same(list(wal.read(PATH, disk=disk)), self.entries[:left], "what was read")

    @staticmethod
    def _same(found: object, expected: object, what: str) -> None:
        assert found == expected, f"{what}: {found} instead of {expected}"

    def _region_at(self, offset: int) -> Region:
        return self.regions[bisect.bisect_right(self.regions, offset, key=lambda region: region.start) - 1]


def _refused(look: Callable[[], object], read: Sequence[wal.Entry] = ()) -> Place:
    """Where the log was refused. Raises AssertionError when it was not."""
    try:
        look()
    except wal.LogCorrupt as error:
        return Place(error.offset_bytes, error.lsn, error.last_lsn, error.flipped)
    raise AssertionError(f"it was not refused; {len(read)} records were read")


def regions(disk: MemoryDisk) -> list[Region]:
    """The segment from its first byte to its last."""
    findings = examine(PATH, disk)
    assert findings is not None
    with opened(disk, PLACE) as fd:
        window, cursor = Window(disk, fd), start_of(findings.segments[0].header)
        found = [Region("header", 0, HEADER_BYTES, 1, 1)]
        while isinstance(frame := next_frame(window, cursor), Frame):
            cursor.advance(frame)
            found.append(Region(TYPE_NAMES[frame.type], frame.offset, frame.end, frame.first_lsn, cursor.lsn))
    return [*found, Region("zeros", cursor.offset, LOG_BYTES, cursor.lsn, cursor.lsn)]


class Cases(NamedTuple):
    """A share of all cases: a kind of damage, and which numbers of it."""

    damage: str  # a method of FullLog
    numbers: range


def shares(step: int, stride: int = 1) -> Iterator[Cases]:
    """All cases, or every `stride`-th, in shares of `step`."""
    for damage, number in (("flip", 8 * LOG_BYTES), ("cut", LOG_BYTES), ("blank", LOG_BYTES)):
        numbers = range(0, number, stride)
        yield from [Cases(damage, numbers[at : at + step]) for at in range(0, len(numbers), step)]


def check(cases: Cases, log: FullLog | None = None) -> tuple[Counter[str], list[str]]:
    """Go through a share of the cases, and return what was counted, and what was violated."""
    log = log or FullLog()
    damage = getattr(log, cases.damage)
    for number in cases.numbers:
        damage(number)
    assert log.is_as_it_was
    return log.counts, log.violations
