"""Saving what is sound from a damaged log, and saying exactly what is lost. Reads only; never changes the log.

Rule 1: a record is saved when its frame is sound at its own place in a file of this log, whatever stands around it.
Rule 2: every LSN from the first to the last that anything sound speaks of is either saved or reported lost.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wal.base import read_base
from wal.choice import Range, breaks, choose, records
from wal.disk import Disk, OsDisk, opened
from wal.entries import Entry
from wal.errors import UnsupportedFormat
from wal.progress import Meter, Progress
from wal.runs import Damage, Run, SegmentFile, read_file, settle_tail, torn_end
from wal.segment import BASE_NAME, HEADER_BYTES, genesis


class Loss(NamedTuple):
    """Records that are lost: `first_lsn` to `last_lsn`, the latter None when nothing says how many there were.

    The first of them belongs in segment `segment`, at or after offset `offset_bytes`.
    """

    first_lsn: int
    last_lsn: int | None
    segment: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What a salvage found.

    `records` can be saved, from `first_lsn` to `last_lsn` (0 and 0 for none); `lost` are those that cannot, in
    order, and `damage` is where the files are not as they were written. `torn` is an interrupted write at the very
    end that nothing proves acknowledged: opening would set it aside. `stale_records` were found, but an earlier
    recovery had cut them from the log. `breaks` are LSNs whose record is sound but does not follow from the one
    before it: two histories were mixed. `log_id` is None when nothing sound was found; `files` counts segment files.
    """

    log_id: bytes | None
    files: int
    records: int
    first_lsn: int
    last_lsn: int
    lost: tuple[Loss, ...]
    damage: tuple[Damage, ...]
    torn: Damage | None = None
    stale_records: int = 0
    breaks: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every acknowledged record can be saved, as far as the files can tell."""
        return not self.lost and not self.breaks

    @property
    def lost_records(self) -> int | None:
        """How many records are lost; None when nothing says how many."""
        total = 0
        for loss in self.lost:
            if loss.last_lsn is None:
                return None
            total += loss.last_lsn - loss.first_lsn + 1
        return total


class Salvage:
    """What can be saved of a log: the `report`, and the records themselves by iterating, as often as wanted."""

    def __init__(self, report: SalvageReport, ranges: Sequence[Range], disk: Disk) -> None:
        """Made by `salvage`."""
        self.report = report
        self._ranges = ranges
        self._disk = disk

    def __iter__(self) -> Iterator[Entry]:
        """Yield the records in order; the report names the gaps. Raises LogCorrupt when a file changed since."""
        for part in self._ranges:
            yield from records(part, self._disk)


def salvage(path: Path | str, *, disk: Disk | None = None, progress: Progress | None = None) -> Salvage:
    """Read every segment file in the directory `path`, whatever its state, and return what can be saved.

    `progress(done_bytes, total_bytes)` is called about once for each MiB. Takes no lock; beside a live writer the
    newest records may be missing, and what it prunes or redacts meanwhile. Raises OSError when the directory cannot be
    read; a file or a sector that cannot be is damage, and is reported.
    """
    disk = OsDisk() if disk is None else disk
    files = _read_files(Path(path), disk, progress)
    log_id = _elect(files)
    begin = _begin(Path(path), disk, files, log_id)
    runs = _of_this_log(files, log_id)
    ranges, stale_records = choose(runs, begin.first_lsn)
    torn, open_ended = _judge_the_end(files, log_id)
    open_ended = open_ended or (begin.is_known and not files)  # there was a log, and all of it is gone
    known_end = _known_end(files, runs, ranges, log_id)
    report = SalvageReport(
        log_id=log_id,
        files=len(files),
        records=sum([part.last_lsn - part.first_lsn + 1 for part in ranges]),
        first_lsn=ranges[0].first_lsn if ranges else 0,
        last_lsn=ranges[-1].last_lsn if ranges else 0,
        lost=tuple(_losses(files, runs, ranges, begin, known_end, open_ended=open_ended)),
        damage=(*begin.damage, *_damage(files, begin.segment)),
        torn=torn,
        stale_records=stale_records,
        breaks=tuple(breaks(ranges, begin.first_lsn - 1, begin.chain, disk)),
    )
    return Salvage(report, ranges, disk)


def _read_files(path: Path, disk: Disk, progress: Progress | None) -> list[SegmentFile]:
    """Read the segment files that are there, and those that a live writer adds meanwhile; pruned ones are left out."""
    files: dict[Path, SegmentFile] = {}
    places = _places(path, disk)
    meter = Meter(progress, sum([_size(place, disk) for place in places]))
    while new := [place for place in places if place not in files]:
        for place in list(files)[-1:]:  # it has been written on since
            files[place] = read_file(place, disk, lambda _: None)
        for place in new:
            files[place] = read_file(place, disk, meter.add)
            meter.add(min(HEADER_BYTES, files[place].size))
        files[new[-1]] = _read_again(files[new[-1]], disk)
        places = _places(path, disk)
    return [file for place, file in files.items() if place in places]


def _places(path: Path, disk: Disk) -> list[Path]:
    return [path / name for name in sorted(disk.list_dir(path)) if name.endswith(".wal")]


def _read_again(file: SegmentFile, disk: Disk) -> SegmentFile:
    """Read the last file until two readings agree on what is wrong in it: a writer may be at work there.

    Not until they agree in all: where there is damage indeed, a writer that goes on behind it would never let them.
    """
    while doubts := file.doubts:
        file = read_file(file.place, disk, lambda _: None)
        if file.doubts == doubts:
            break
    return file


def _size(place: Path, disk: Disk) -> int:
    try:
        with opened(disk, place) as fd:
            return disk.size(fd)
    except OSError:
        return 0  # reading the file will say why


def _elect(files: Sequence[SegmentFile]) -> bytes | None:
    """Return the id of the log that most of the sound bytes belong to: a stray file of another makes no log."""
    votes: Counter[bytes] = Counter()
    for file in files:
        if file.header is not None:
            votes[file.header.log_id] += HEADER_BYTES
        for run in file.runs:
            votes[run.log_id] += run.end - run.start
    return max(votes, key=lambda log_id: (votes[log_id], log_id)) if votes else None


class _Begin(NamedTuple):
    """Where the log begins: with its first record, or with the first that a prune kept."""

    segment: int
    first_lsn: int
    chain: bytes
    damage: tuple[Damage, ...] = ()
    is_known: bool = False  # BASE says so


def _begin(path: Path, disk: Disk, files: Sequence[SegmentFile], log_id: bytes | None) -> _Begin:
    """Return where BASE says that the log begins; without a word from it nothing is taken for pruned."""
    damage: tuple[Damage, ...] = ()
    try:
        base = read_base(path, disk)
    except (UnsupportedFormat, OSError) as error:
        base, damage = None, (Damage(BASE_NAME, 0, 0, f"the file cannot be read: {error}"),)
    if base is not None and (base.log_id == log_id or not files):
        return _Begin(base.segment, base.first_lsn, base.chain, is_known=True)
    numbers = [file.number for file in files if file.number is not None]
    if not damage and numbers and min(numbers) > 1:
        problem = "nothing sound says where the log begins: what is missing before this was pruned, or lost"
        damage = (Damage(BASE_NAME, 0, 0, problem),)
    return _Begin(1, 1, genesis(log_id or b""), damage)


def _of_this_log(files: Sequence[SegmentFile], log_id: bytes | None) -> list[Run]:
    """Return the log's runs, and note those of others as damage."""
    own: list[Run] = []
    for file in files:
        for run in file.runs:
            if run.log_id == log_id:
                own.append(run)
            else:
                file.note(run.start, run.end, "frames of another log")
    return own


def _judge_the_end(files: Sequence[SegmentFile], log_id: bytes | None) -> tuple[Damage | None, bool]:
    """Return the torn write at the log's end, if that is what stands there, and whether more may be lost with it."""
    own = [file for file in files if file.log_id in {log_id, None}]
    last = max(own, key=lambda file: (file.number or 0, file.end), default=None)
    torn = None if last is None else torn_end(last)
    open_ended = last is not None and torn is None and _lacks_its_end(last)
    for file in files:
        if torn is None or file is not last:
            settle_tail(file)
    return torn, open_ended


def _lacks_its_end(file: SegmentFile) -> bool:
    """Whether records of unknown number may have stood after the last sound frame of the last file."""
    nothing_sound = file.header is None and not file.runs
    unsound = any(not piece.is_zero for piece in file.tail)
    return nothing_sound or file.is_sealed or file.is_short or unsound or file.end in file.unreadable


def _known_end(files: Sequence[SegmentFile], runs: Sequence[Run], ranges: Sequence[Range], log_id: bytes | None) -> int:
    """Return the last LSN that anything sound speaks of."""
    epoch = max([run.epoch for run in runs], default=0)
    headers = [file.header for file in files if file.header is not None and file.header.log_id == log_id]
    claims = [said for file in files for said in file.claims if said.log_id == log_id and said.epoch >= epoch]
    spoken_of = [
        *[part.last_lsn for part in ranges],
        *[run.durable_lsn for run in runs],
        *[header.first_lsn - 1 for header in headers],
        *[said.first_lsn + said.records - 1 for said in claims],
    ]
    return max(spoken_of, default=0)


def _losses(
    files: Sequence[SegmentFile], runs: Sequence[Run], ranges: Sequence[Range], begin: _Begin, known_end: int,
    *, open_ended: bool,
) -> Iterator[Loss]:  # fmt: skip
    due = begin.first_lsn
    for part in ranges:
        if part.first_lsn > due:
            yield Loss(due, part.first_lsn - 1, *_place_of(files, runs, begin, due))
        due = part.last_lsn + 1
    if open_ended:
        yield Loss(due, None, *_place_of(files, runs, begin, due))
    elif due <= known_end:
        yield Loss(due, known_end, *_place_of(files, runs, begin, due))


def _place_of(files: Sequence[SegmentFile], runs: Sequence[Run], begin: _Begin, lsn: int) -> tuple[int, int]:
    """Return segment and offset after the last sound thing that stands before the record."""
    headers = [file.header for file in files if file.header is not None and file.header.first_lsn == lsn]
    before = [run for run in runs if run.next_lsn == lsn]
    places = [
        (begin.segment, HEADER_BYTES),
        *[(header.segment, HEADER_BYTES) for header in headers],
        *[(run.segment + 1, HEADER_BYTES) if run.is_sealed else (run.segment, run.end) for run in before],
    ]
    return max(places)


def _damage(files: Sequence[SegmentFile], first_segment: int) -> Iterator[Damage]:
    for file in files:
        yield from sorted(file.damage, key=lambda found: (found.offset_bytes, found.end_bytes))
    present = {file.number for file in files}
    for number in range(first_segment, max([number for number in present if number is not None], default=0)):
        if number not in present:
            yield Damage(f"{number:08d}-*.wal", 0, 0, "the segment's file is missing")
