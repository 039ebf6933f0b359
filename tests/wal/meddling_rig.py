"""A log that others look at while its writer goes on: what may happen meanwhile, and what a look must then say."""

import errno
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from log_rig import NEVER_MS, PATH, SEGMENT_BYTES, counting_entropy, open_log, segments, wait_until

import wal
from wal.segment import first_lsn_of
from wal.testing import MemoryDisk

TARGET = Path("/copy")
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
                    self.open_files.remove(args[0])  # type: ignore[arg-type]
                    real(*args)
                return None
            if self._dead:
                raise OSError(errno.EIO, "the process is dead")
            answer = real(*args, **options)
            if name in {"open", "lock"}:
                self.open_files.add(answer)
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
        return min([first_lsn_of(place) for place in segments(self.disk) if place.parent == PATH], default=1)

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
    "opens and stages": _go_on(Life.open, Life.stage),
    "opens, stages and crashes": _go_on(Life.open, Life.stage, Life.crash),
    "opens and rotates": _go_on(Life.open, Life.rotate),
    "opens, rotates, prunes and closes": _go_on(Life.open, Life.rotate, Life.prune, Life.close),
}
"""What a new writer does when nobody has the log open."""


class Look:
    """What a look is told of the log as it was when it began."""

    def __init__(self, life: Life, disk: Process) -> None:
        self.life = life
        self.disk: wal.Disk = disk  # type: ignore[assignment]
        self.first = life.begins
        self.last = max(life.told)
        self.proven = self.last - 2  # beside a live writer nothing proves the last batch yet
        self.head = life.heads[self.last]
        self.old = life.heads[min(size for size in life.heads if size > self.first)]


def verify(look: Look) -> None:
    verdict = wal.verify(PATH, disk=look.disk)
    assert verdict.status in SOUND, verdict


def verify_against_a_head(look: Look) -> None:
    verdict = wal.verify(PATH, look.head, disk=look.disk)
    assert verdict.status in SOUND, verdict
    assert verdict.expected == "confirmed" or verdict.first_lsn > look.first


def take_the_head(look: Look) -> None:
    """A head covers what is durable and nothing else: a power failure would make it one of no log."""
    head = wal.head(PATH, disk=look.disk)
    look.life.kept.append(head)
    assert head.size >= look.proven
    look.life.lose_power()


def read(look: Look) -> None:
    look.life.check(list(wal.read(PATH, None, disk=look.disk)))


def read_the_end(look: Look) -> None:
    look.life.check(list(wal.read(PATH, look.last - 5, disk=look.disk)), first=look.last - 4)


def follow(look: Look) -> None:
    """Follow in small steps, as whoever is told by the writer how far the log is durable."""
    durable_lsn = lambda: look.last if look.life.log is None else look.life.log.durable_lsn  # noqa: E731
    reader = wal.Reader(PATH, look.first - 1, durable_lsn=durable_lsn, disk=look.disk)
    found: list[wal.Entry] = []
    while polled := reader.poll(2):
        found += polled
    look.life.check(found, first=look.first)
    assert found[-1].lsn >= look.last


def prove_a_record(look: Look) -> None:
    for lsn in (look.first + 2, look.last):
        assert wal.prove_inclusion(PATH, lsn, look.head.size, disk=look.disk).holds(look.head)


def prove_that_it_grew(look: Look) -> None:
    assert wal.prove_consistency(PATH, look.old.size, look.head.size, disk=look.disk).holds(look.old, look.head)
    proof = wal.prove_consistency(PATH, look.old.size, disk=look.disk)
    if proof.new_size in look.life.heads:
        assert proof.holds(look.old, look.life.heads[proof.new_size])


def list_segments(look: Look) -> None:
    found = wal.segments(PATH, disk=look.disk)
    assert [one.finished for one in found] == [True] * (len(found) - 1) + [False]
    assert [one.last_lsn for one in found[:-1]] == [one.first_lsn - 1 for one in found[1:]]


def scrub(look: Look) -> None:
    assert wal.scrub(PATH, disk=look.disk).problems == ()


def scrub_in_steps(look: Look) -> None:
    at, went_round = 1, False
    while not went_round:
        scrubbed = wal.scrub(PATH, first_segment=at, budget_bytes=1, disk=look.disk)
        assert scrubbed.problems == ()
        at, went_round = scrubbed.next_segment, scrubbed.went_round


def copy(look: Look) -> None:
    copied = wal.copy(PATH, TARGET, disk=look.disk)
    other = look.life.disk.copy()
    assert {place.suffix for place in other.files() if place.parent == TARGET} == {".wal", ""}
    with open_log(other, TARGET) as log:
        assert log.recovery.clean_close
        assert log.head() == copied.head
    look.life.kept.append(copied.head)
    look.life.check(list(wal.read(TARGET, None, disk=other)), upto=copied.last_lsn if copied.records else None)
    assert copied.last_lsn >= look.proven


def salvage(look: Look) -> None:
    """All that is there can be saved; iterating may meet a file that changed since, and says so."""
    saved = wal.salvage(PATH, disk=look.disk)
    assert not saved.report.damage, saved.report
    assert saved.report.complete, saved.report
    assert (saved.report.torn, saved.report.stale_records) == (None, 0)
    assert saved.report.last_lsn >= look.last or saved.report.records == 0
    try:
        look.life.check(list(saved))
    except wal.LogCorrupt as error:
        assert "changed" in str(error)  # noqa: PT017


def hold_heads_against_it(look: Look) -> None:
    """By the log's owner."""
    assert look.life.log is not None
    for head in (look.old, look.head):
        found = look.life.log.standing(head)
        assert found == "confirmed" or (found == "unprovable" and head.size < look.life.begins - 1)


LOOKS = {
    look.__name__: look
    for look in (
        verify, verify_against_a_head, take_the_head, read, read_the_end, follow, prove_a_record, prove_that_it_grew,
        list_segments, scrub, scrub_in_steps, copy, salvage,
    )
}  # fmt: skip
"""What somebody who holds no lock asks of the log, and what must be true of the answer."""

OTHERS, OWNERS, WRITERS = "others", "owners", "writers"
"""Whose disk calls something comes between: another process's, or in the log's own its callers' or its writer's."""


def at_each_call(
    act: Callable[[Look], object],
    meanwhile: Callable[[Look], object],
    begin: Callable[[], Life],
    *,
    whose: str = OTHERS,
) -> Iterator[str]:
    """Act while that happens, before each disk call of theirs in turn; yield what each of them found wrong."""
    for at in itertools.count(1):
        life = begin()
        calls = itertools.count(1)
        process = Process(life.disk)
        look = Look(life, process)
        wrong_meanwhile: list[str] = []

        def between(
            at: int = at, life: Life = life, calls: Iterator[int] = calls, wrong: list[str] = wrong_meanwhile
        ) -> None:
            writers = threading.current_thread().name.startswith("wal-writer")
            if writers == (whose == WRITERS) and next(calls) == at:
                beside = Look(life, Process(life.disk))
                with _told(beside, wrong):
                    meanwhile(beside)

        if whose == OTHERS:
            process.between = between
        else:
            life.between = between
        with _told(look) as wrong:
            act(look)
            assert not process.open_files
        process.between = life.between = lambda: None
        over = next(calls) <= at
        with _told(look) as wrong_at_last:
            life.end()
        yield from [f"at call {at}: {problem}" for problem in wrong_meanwhile + wrong + wrong_at_last]
        if over:
            return


@contextmanager
def _told(look: Look, problems: list[str] | None = None) -> Iterator[list[str]]:
    """Keep what is wrong. Not so: that what was asked for has been pruned since, or is to be asked for again."""
    problems = [] if problems is None else problems
    try:
        yield problems
    except wal.Trimmed as trimmed:
        if trimmed.first_lsn <= trimmed.wanted_lsn or look.life.begins == look.first:
            problems.append(repr(trimmed))
    except (wal.LogError, OSError, AssertionError) as error:
        if "ask again" not in str(error):
            problems.append(f"{type(error).__name__}: {error}")
