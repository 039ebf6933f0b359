"""A log that others look at while its writer goes on: what may happen meanwhile, and what a look must then say."""

import errno
import itertools
from collections.abc import Callable
from contextlib import suppress

from log_rig import NEVER_MS, PATH, SEGMENT_BYTES, counting_entropy, wait_until

import wal
from wal.testing import MemoryDisk

SOUND = {"intact", "redacted", "pruned"}
Meanwhile = Callable[["Life"], object]


class Process:
    """A disk as one process sees it: it closes what is open when it dies, and calls `between` before each call.

    But not before `links`, which a writer asks under a mutex that whoever maintains the log takes, too.
    """

    def __init__(self, disk: MemoryDisk, between: Callable[[], object] = lambda: None) -> None:
        self._disk = disk
        self._dead = False
        self.open_files: set[int] = set()
        self.between = between

    def __getattr__(self, name: str) -> Callable[..., object]:
        real = getattr(self._disk, name)

        def call(*args: object, **options: object) -> object:
            if name != "links":
                self.between()
            if name == "close":
                if args[0] in self.open_files:
                    self.open_files.remove(args[0])
                    real(*args)
                return None
            if self._dead:
                raise OSError(errno.EIO, "the process is dead")
            answer = real(*args, **options)
            if name in {"open", "lock"}:
                self.open_files.add(answer)
            if name == "fdatasync":  # instead of before `links`, which a writer calls next
                self.between()
            return answer

        return call

    def die(self) -> None:
        """End, as kill -9 does it."""
        self._dead = True
        while self.open_files:
            self._disk.close(self.open_files.pop())


class Life:
    """A log's life: its writers, one after the other, what they acknowledged, and the heads they had.

    In `kept` is every head that anybody took of it.
    """

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.told: dict[int, wal.Entry] = {}
        self.heads: dict[int, wal.Head] = {}
        self.kept: list[wal.Head] = []
        self.log: wal.Log | None = None
        self.process = Process(self.disk)
        self.between: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1)

    def copy(self) -> "Life":
        """The same life up to now, on a disk of its own; nobody has the log open."""
        other = Life()
        other.disk, other.told, other.heads = self.disk.copy(), dict(self.told), dict(self.heads)
        return other

    @property
    def begins(self) -> int:
        """The first LSN that is left."""
        return wal.segments(PATH, disk=self.disk)[0].first_lsn

    def open(self, **options: object) -> None:
        self.process = Process(self.disk, self._come_between)
        given = {"segment_bytes": SEGMENT_BYTES, "heartbeat_ms": NEVER_MS, "entropy": counting_entropy()} | options
        self.log = wal.Log.open(PATH, disk=self.process, **given)  # type: ignore[arg-type]

    def _come_between(self) -> None:
        self.between()

    def append(self, *sizes: int) -> None:
        """Append a batch of one record of each of these lengths."""
        assert self.log is not None
        number = next(self._numbers)
        commit = self.log.append([(number, number.to_bytes(4, "little") * (size // 4)) for size in sizes])
        self.told |= {entry.lsn: entry for entry in commit.entries}
        self.heads[commit.last_lsn] = self.log.head()

    def stage(self) -> None:
        """Write a record that is not durable yet."""
        assert self.log is not None
        while True:
            with suppress(wal.LogBusy):
                assert self.log.stage(9, b"staged").wait(30)
                return
            wait_until(lambda: self.log is not None and self.log._writer._spare_fd is not None)

    def rotate(self) -> None:
        for _ in range(3):
            self.append(3000)

    def prune(self) -> None:
        assert self.log is not None
        self.log.prune(self.log.durable_lsn + 1)

    def prune_half(self) -> None:
        assert self.log is not None
        self.log.prune((self.begins + self.log.durable_lsn) // 2)

    def redact(self) -> None:
        assert self.log is not None
        self.log.redact(lambda entry: entry.lsn % 2 == 0)

    def close(self) -> None:
        assert self.log is not None
        self.log.close()
        self.log = None

    def crash(self) -> None:
        """Kill the writer's process."""
        self.process.die()
        with suppress(wal.LogFailed):
            assert self.log is not None
            self.log.close()
        self.log = None

    def lose_power(self) -> None:
        """Lose all that was not synced."""
        disk = self.disk.crash(lambda _: 0)
        if self.log is not None:
            self.crash()
        self.disk = disk

    def end(self) -> None:
        """Go on, close, and find everything as it was acknowledged and nothing else there."""
        if self.log is None:
            self.open()
        self.append(100)
        assert self.log is not None
        size_bytes = self.log.size_bytes
        self.log.close()
        files = [place for place in self.disk.files() if place.parent == PATH]
        assert {place.name for place in files if place.suffix != ".wal"} == {"BASE", "LOCK"}
        assert size_bytes == sum([len(self.disk.peek(place)) for place in files if place.suffix == ".wal"])
        assert not self.process.open_files
        self.check(list(wal.read(PATH, None, disk=self.disk)), upto=max(self.told))
        for head in (*self.kept, self.heads[max(self.heads)]):
            verdict = wal.verify(PATH, head, disk=self.disk)
            assert verdict.status in SOUND, verdict
            assert verdict.clean_close
            assert verdict.expected == "confirmed" or head.size < self.begins - 1

    def check(self, found: list[wal.Entry], *, first: int | None = None, upto: int | None = None) -> None:
        """These are records of the log, in order and without a gap, `first` and `upto` among them."""
        lsns = [entry.lsn for entry in found]
        assert lsns == list(range(lsns[0], lsns[0] + len(lsns))) if lsns else upto is None
        assert upto is None or lsns[-1] == upto
        assert first is None or not lsns or lsns[0] == first
        for entry in found:
            assert isinstance(entry, wal.Redacted) or entry == self.told.get(entry.lsn, entry)


def _begin(*, pruned: bool) -> Life:
    """A log of several segments; or one that was redacted and pruned, and then begun anew at other lengths in vain."""
    life = Life()
    life.open()
    _fill(life)
    if pruned:
        life.redact()
        life.prune_half()
        for length in (SEGMENT_BYTES + 512, SEGMENT_BYTES + 1024, SEGMENT_BYTES):
            life.close()
            life.open(segment_bytes=length)
        _fill(life)
    life.close()
    return life


def _fill(life: Life) -> None:
    for sizes in [(300, 450), (600,), (700, 900, 1100), (1200,), (1400,), (1500,), (1700,), (1900,)]:
        life.append(*sizes)


_NEW, _PRUNED = _begin(pruned=False), _begin(pruned=True)


def just_opened() -> Life:
    """A live log whose writer has proven all that is there, and has appended nothing yet."""
    life = _NEW.copy()
    life.open()
    return life


def in_use() -> Life:
    """A live log with records in several finished segments and in the one in use; nothing proves the last batch yet."""
    life = just_opened()
    life.append(300, 100)
    return life


def pruned_before() -> Life:
    """The same after a redaction and a prune: in BASE stands more, and some segments hold no record."""
    life = _PRUNED.copy()
    life.open()
    life.append(300, 100)
    return life


def closed() -> Life:
    """A log that nobody has open."""
    return _NEW.copy()


def abandoned() -> Life:
    """A log whose writer's process was killed."""
    life = in_use()
    life.crash()
    return life


BEGINNINGS = {begin.__name__: begin for begin in (just_opened, in_use, pruned_before)}
ABANDONED = {begin.__name__: begin for begin in (closed, abandoned)}


def _go_on(*steps: Meanwhile) -> Meanwhile:
    def go_on(life: Life) -> None:
        for step in steps:
            step(life)

    return go_on


def open_with_other_limits(life: "Life") -> None:
    life.open(segment_bytes=2 * SEGMENT_BYTES)


MEANWHILE: dict[str, Meanwhile] = {
    "appends": lambda life: life.append(300),
    "stages": Life.stage,
    "rotates": Life.rotate,
    "prunes half": Life.prune_half,
    "prunes": Life.prune,
    "rotates and prunes": _go_on(Life.rotate, Life.prune),
    "redacts": Life.redact,
    "redacts, rotates and prunes": _go_on(Life.redact, Life.rotate, Life.prune_half),
    "closes": Life.close,
    "closes, opens and rotates": _go_on(Life.close, Life.open, Life.rotate),
    "crashes": Life.crash,
    "crashes and opens": _go_on(Life.crash, Life.open),
    "crashes, opens and stages": _go_on(Life.crash, Life.open, Life.stage),
    "crashes, opens and rotates": _go_on(Life.crash, Life.open, Life.rotate),
    "crashes, opens, rotates and prunes": _go_on(Life.crash, Life.open, Life.rotate, Life.prune),
}
"""What the log's writer, or another one after it, does between two disk calls of whoever looks."""

MEANWHILE_ABANDONED: dict[str, Meanwhile] = {
    "opens": Life.open,
    "opens with other limits": open_with_other_limits,
    "opens and stages": _go_on(Life.open, Life.stage),
    "opens, stages and crashes": _go_on(Life.open, Life.stage, Life.crash),
    "opens and rotates": _go_on(Life.open, Life.rotate),
    "opens, rotates, prunes and closes": _go_on(Life.open, Life.rotate, Life.prune, Life.close),
}
"""What a new writer does when nobody has the log open."""
