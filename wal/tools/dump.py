"""`python -m wal dump DIR`: what stands in a log, sound or not, in the order of its files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import click

from wal.base import read_base
from wal.disk import Disk, OsDisk
from wal.entries import Entry
from wal.errors import UnsupportedFormat
from wal.frames import OPEN, TYPE_NAMES, Frame, entries
from wal.runs import Damage, SegmentFile, read_pieces, segment_file, settle_tail, torn_end
from wal.scan import Cursor, start_of
from wal.segment import parse_name
from wal.tools import DAMAGED, nothing_there
from wal.tools.records import entry_as_dict, heading, payload_option, record_line
from wal.tools.show import BAD, GOOD, QUIET, console, count, line, number, paragraph, say_json

__all__ = ["command"]


@click.command(name="dump")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--after", type=click.IntRange(0), default=0, help="Begin after this LSN.")
@click.option("--limit", type=click.IntRange(1), help="Show at most so many records, or frames.")
@click.option("--frames", is_flag=True, help="Show frames: where they stand, and what they say and prove.")
@payload_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def command(*, directory: Path, after: int, limit: int | None, frames: bool, payload: str, as_json: bool) -> None:
    """Show the records in DIRECTORY, or its frames, and what is wrong where. Damaged logs are read as well.

    Everything sound is shown, whatever stands around it; lines that begin with ! name what is not as it was written.
    Exit status: 0 nothing of the kind was met, 1 something was.
    """
    disk = OsDisk()
    first = _first_segment(directory, disk)
    places = _places(directory, disk, first)
    if not places:
        raise nothing_there(directory)
    skipped = _before(places, after)
    shown = _Json(payload) if as_json else _Lines(payload, frames=frames)
    dump = _Dump(disk, shown, after=after, limit=limit, frames=frames)
    dump.run(places[skipped:], None if skipped else first - 1)
    if dump.damaged:
        raise SystemExit(DAMAGED)


def _first_segment(directory: Path, disk: Disk) -> int:
    """Return the first segment that pruning has left, as far as BASE can be read."""
    try:
        base = read_base(directory, disk)
    except (UnsupportedFormat, OSError):
        base = None  # then what is missing before the first file is reported as missing
    return 1 if base is None else base.segment


def _places(directory: Path, disk: Disk, first: int) -> list[Path]:
    """Return the segment files in order, without what an interrupted prune has left over."""
    places = [directory / name for name in sorted(disk.list_dir(directory)) if name.endswith(".wal")]
    return [place for place in places if (parse_name(place.name) or (first, 0))[0] >= first]


def _before(places: list[Path], after: int) -> int:
    """Return how many files end before the LSN to begin at."""
    firsts = [(parse_name(place.name) or (0, after + 2))[1] for place in places]
    return max([at for at, first_lsn in enumerate(firsts) if first_lsn <= after + 1], default=0)


class _Shown(Protocol):
    """Where a dump goes."""

    def segment(self, file: SegmentFile) -> None:
        """A file begins."""

    def frame(self, frame: Frame) -> None:
        """A sound frame."""

    def record(self, entry: Entry) -> None:
        """A record of a sound frame."""

    def damage(self, damage: Damage) -> None:
        """A place that is not as it was written."""

    def torn(self, torn: Damage) -> None:
        """An interrupted write at the log's end."""

    def end(self, records: int, frames: int, damaged: int, *, cut_short: bool) -> None:
        """Nothing more is shown."""


class _Dump:
    """One dump under way."""

    def __init__(self, disk: Disk, shown: _Shown, *, after: int, limit: int | None, frames: bool) -> None:
        self._disk = disk
        self._shown = shown
        self._after = after
        self._limit = limit
        self._by_frame = frames
        self._records = self._frames = 0
        self._before: SegmentFile | None = None
        self._last_number: int | None = None
        self._cursor: Cursor | None = None
        self.damaged = 0

    def run(self, places: list[Path], last_number: int | None) -> None:
        """Show the files one after the other; the first should follow on segment `last_number`, if that is known."""
        self._last_number = last_number
        cut_short = False
        for place in places:
            file = segment_file(place)
            cut_short = not self._show(file, last=place is places[-1])
            if cut_short:
                break
            self._before = file
        self._shown.end(self._records, self._frames, self.damaged, cut_short=cut_short)

    def _show(self, file: SegmentFile, *, last: bool) -> bool:
        """Show one file; False when the limit was reached."""
        begun = False
        told = 0
        for piece, window in read_pieces(file, self._disk):
            if not begun:
                self._begin(file)
                begun = True
            told = self._tell(file, told)
            frame = piece.frame
            if frame is None:
                if not piece.is_zero:
                    self._cursor = None  # what should follow can no longer be said
                continue
            self._check(file, frame)
            found = entries(window.buffer, window.locate(frame.offset, frame.length), frame) if frame.records else []
            if not self._show_frame(frame, found):
                return False
        if not begun:  # not even a frame's worth of it could be read
            self._begin(file)
        self._end(file, told, last=last)
        return True

    def _begin(self, file: SegmentFile) -> None:
        self._shown.segment(file)
        if self._last_number is not None and file.number is not None:
            for missing in range(self._last_number + 1, file.number):
                self._damage(Damage(f"{missing:08d}-*.wal", 0, 0, "the segment's file is missing"))
        self._last_number = file.number
        header = file.header
        ended = self._cursor
        if header is not None and ended is not None and (header.first_lsn, header.chain) != (ended.lsn, ended.chain):
            self._damage(Damage(file.place.name, 0, 512, "the segment does not follow from the one before it"))
        self._cursor = None if header is None else start_of(header)

    def _end(self, file: SegmentFile, told: int, *, last: bool) -> None:
        torn = torn_end(file) if last else None
        if torn is None:
            settle_tail(file)
        self._tell(file, told)
        if torn is not None:
            self._shown.torn(torn)
        if last and file.is_sealed:
            self._damage(Damage(file.place.name, file.end, file.end, "sealed here, so the next segment is missing"))

    def _tell(self, file: SegmentFile, told: int) -> int:
        """Show the damage that was found in the file since."""
        for damage in file.damage[told:]:
            self._damage(damage)
        return len(file.damage)

    def _damage(self, damage: Damage) -> None:
        self.damaged += 1
        self._shown.damage(damage)

    def _check(self, file: SegmentFile, frame: Frame) -> None:
        """Say so when a sound frame is not the one that should stand here."""
        before = self._before
        if len(file.runs) == 1 and file.runs[0].start == frame.offset and before is not None and not before.is_sealed:
            self._damage(Damage(before.place.name, before.end, before.size, "the segment was never sealed"))
        due = self._cursor
        if due is not None and due.offset == frame.offset and (wrong := list(_differences(frame, due))):
            problem = f"a sound frame that is not the next one: it differs in {', '.join(wrong)}"
            self._damage(Damage(file.place.name, frame.offset, frame.end, problem))
        cursor = self._cursor = Cursor(
            frame.log_id, frame.segment, frame.offset, frame.first_lsn, frame.epoch, frame.chain, frame.durable_offset
        )
        cursor.advance(frame)

    def _show_frame(self, frame: Frame, found: list[Entry]) -> bool:
        """Show a frame or its records; False when the limit was reached."""
        last_lsn = frame.first_lsn + max(frame.records, 1) - 1
        if last_lsn <= self._after:
            return True
        self._frames += 1
        if self._by_frame:
            self._shown.frame(frame)
        for entry in found:
            if entry.lsn > self._after:
                self._records += 1
                if not self._by_frame:
                    self._shown.record(entry)
                    if self._records == self._limit:
                        return False
        return not self._by_frame or self._frames != self._limit


def _differences(frame: Frame, cursor: Cursor) -> Iterator[str]:
    """Yield in what a sound frame is not the one due at the cursor, as `wal.scan.is_next` compares."""
    epoch = cursor.epoch + 1 if frame.type == OPEN else cursor.epoch
    marks = cursor.durable_offset <= frame.durable_offset <= frame.offset and frame.durable_lsn < frame.first_lsn
    compared = (
        ("log", frame.log_id == cursor.log_id),
        ("segment", frame.segment == cursor.segment),
        ("LSN", frame.first_lsn == cursor.lsn),
        ("epoch", frame.epoch == epoch),
        ("chain", frame.prev == cursor.chain),
        ("durable marks", marks),
    )
    for name, same in compared:
        if not same:
            yield name


class _Json:
    """One object a line; "what" says what it is."""

    def __init__(self, payload: str) -> None:
        self._payload = payload

    def segment(self, file: SegmentFile) -> None:
        """Print a segment's header, or that there is none."""
        header = file.header
        fields: dict[str, Any] = {
            "what": "segment", "file": file.place.name, "segment": file.number, "bytes": file.size,
            "header": "damaged" if header is None else "sound",
        }  # fmt: skip
        if header is not None:
            fields |= {"log_id": header.log_id.hex(), "epoch": header.epoch, "first_lsn": header.first_lsn}
            fields |= {"chain": header.chain.hex(), "in_doubt_bytes": header.limits.in_doubt_bytes}
        say_json(fields)

    def frame(self, frame: Frame) -> None:
        """Print all that a frame's head says."""
        say_json({
            "what": "frame", "type": TYPE_NAMES[frame.type], "segment": frame.segment, "offset_bytes": frame.offset,
            "bytes": frame.length, "epoch": frame.epoch, "first_lsn": frame.first_lsn, "records": frame.records,
            "durable_lsn": frame.durable_lsn, "durable_offset_bytes": frame.durable_offset,
            "chain": frame.chain.hex(),
        })  # fmt: skip

    def record(self, entry: Entry) -> None:
        """Print a record."""
        say_json({"what": "record", **entry_as_dict(entry, self._payload)})

    def damage(self, damage: Damage) -> None:
        """Print a damaged place."""
        say_json({"what": "damage", **damage._asdict()})

    def torn(self, torn: Damage) -> None:
        """Print an interrupted write."""
        say_json({"what": "torn", **torn._asdict()})

    def end(self, records: int, frames: int, damaged: int, *, cut_short: bool) -> None:
        """Print the sums; a dump without this line is not whole."""
        say_json({"what": "end", "records": records, "frames": frames, "damaged": damaged, "cut_short": cut_short})


class _Lines:
    """A line for each thing, under a heading for each file."""

    def __init__(self, payload: str, *, frames: bool) -> None:
        self._payload = payload
        self._out = console()
        self._columns = _FRAME_COLUMNS if frames else heading(payload)
        self._file = ""

    def segment(self, file: SegmentFile) -> None:
        """Print the heading."""
        header = file.header
        said = "header damaged" if header is None else f"epoch {header.epoch}, from LSN {header.first_lsn}"
        which = "unknown" if file.number is None else file.number
        self._file = file.place.name
        paragraph(self._out, f"{self._file}  segment {which}, {said}, {number(file.size)} bytes", "bold")
        line(self._out, self._columns, QUIET)

    def frame(self, frame: Frame) -> None:
        """Print where a frame stands, and what it says and proves."""
        last_lsn = frame.first_lsn + frame.records - 1
        lsns = f"{frame.first_lsn}..{last_lsn}" if frame.records else "-"
        shown = (
            f"{frame.offset:>10} {frame.length:>8} {TYPE_NAMES[frame.type]:<9} {frame.epoch:>5} {lsns:>13} "
            f"{frame.durable_lsn:>9} {frame.durable_offset:>9}  {frame.chain.hex()[:8]}"
        )
        line(self._out, shown)

    def record(self, entry: Entry) -> None:
        """Print a record on one line."""
        line(self._out, record_line(entry, self._payload))

    def damage(self, damage: Damage) -> None:
        """Print a damaged place."""
        paragraph(self._out, f"! {self._where(damage)}{damage.problem}", BAD)

    def torn(self, torn: Damage) -> None:
        """Print an interrupted write."""
        paragraph(self._out, f"~ {self._where(torn)}{torn.problem}; opening sets it aside", "yellow")

    def end(self, records: int, frames: int, damaged: int, *, cut_short: bool) -> None:
        """Print the sums."""
        upto = "Up to the limit: " if cut_short else ""
        sums = f"{upto}{count(records, 'record')} in {count(frames, 'frame')}"
        self._out.print()
        if damaged:
            places = f"{count(damaged, 'place')} not as written"
            paragraph(self._out, f"{sums}; {places}. `salvage` says what is lost.", BAD)
        else:
            paragraph(self._out, f"{sums}; nothing damaged was met.", GOOD)

    def _where(self, damage: Damage) -> str:
        """Name the place; the file only when it is another than the heading's."""
        file = "" if damage.file == self._file else f"{damage.file}: "
        if damage.offset_bytes == damage.end_bytes:
            return file + (f"offset {damage.end_bytes}: " if damage.end_bytes else "")
        return f"{file}offset {damage.offset_bytes}..{damage.end_bytes}: "


_FRAME_COLUMNS = f"{'offset':>10} {'bytes':>8} {'type':<9} {'epoch':>5} {'LSN':>13} {'durable':>9} {'offset':>9}  chain"
