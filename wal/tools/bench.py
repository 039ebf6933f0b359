"""`python -m wal bench DIR`: what this disk gives a log, and what it gives without one."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console

from wal.disk import OsDisk, write_zeros
from wal.frames import RECORD_HEAD_BYTES, frame_bytes
from wal.log import Log
from wal.reader import read
from wal.tools.show import console, count, line, say_json, size, table
from wal.verify import verify

__all__ = ["command"]

# The two are measured in turns, so that a disk that slows down slows down both.
_TURN = 25
# Read and verified are records of the same length, in batches as a busy log has them.
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Latency:
    """What writing one record durably took, in milliseconds: the middle one of all, the slowest in a hundred."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Rates are in MB (1,000,000 bytes) of segment files a second."""

    record_bytes: int
    appends: int
    bare: Latency
    append: Latency
    append_to_bare_p50: float
    scanned_mb: float
    scan_mb_s: float
    verify_mb_s: float


@click.command(name="bench")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--appends", type=click.IntRange(1), default=500, show_default=True, help="Durable writes to measure.")
@click.option("--record-bytes", type=click.IntRange(1, 2**20), default=1024, show_default=True, help="Payload length.")
@click.option("--mb", type=click.IntRange(1), default=64, show_default=True, help="How long a log to read and verify.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(*, directory: Path, appends: int, record_bytes: int, mb: int, as_json: bool) -> None:
    """Measure the disk under DIRECTORY: durable writes with the log and without it, reading, verifying.

    Works in a directory of its own there and removes it. Timings vary with whatever else the machine does:
    compare ratios, and runs beside each other.
    """
    with _workplace(directory) as place:
        bare, logged = _latencies(place, appends, record_bytes)
        scanned, scan_mb_s, verify_mb_s = _rates(place / "long", mb * 1_000_000, record_bytes)
    figures = Figures(
        record_bytes, appends, bare, logged, round(logged.p50_ms / bare.p50_ms, 2), scanned, scan_mb_s, verify_mb_s
    )
    if as_json:
        say_json(asdict(figures))
    else:
        _show(console(), figures)


@contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="wal-bench-", dir=directory))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _latencies(place: Path, appends: int, record_bytes: int) -> tuple[Latency, Latency]:
    """Measure bare pwrite + fdatasync into prepared space, and append, in turns."""
    length = frame_bytes(RECORD_HEAD_BYTES + record_bytes)
    payload = os.urandom(record_bytes)
    data = os.urandom(length)
    bare: list[float] = []
    logged: list[float] = []
    disk = OsDisk()
    fd = disk.open(place / "bare", write=True, create=True)
    try:
        disk.fallocate(fd, length * appends)
        write_zeros(disk, fd, 0, length * appends)
        disk.fdatasync(fd)
        with Log.open(place / "log") as log:
            for done in range(0, appends, _TURN):
                turn = range(done, min(done + _TURN, appends))
                for number in turn:
                    began = time.perf_counter()
                    disk.pwrite(fd, data, number * length)
                    disk.fdatasync(fd)
                    bare.append(time.perf_counter() - began)
                for _ in turn:
                    began = time.perf_counter()
                    log.append([(1, payload)])
                    logged.append(time.perf_counter() - began)
    finally:
        disk.close(fd)
    return _latency(bare), _latency(logged)


def _latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return Latency(round(ordered[last // 2] * 1000, 3), round(ordered[last * 99 // 100] * 1000, 3))


def _rates(place: Path, length_bytes: int, record_bytes: int) -> tuple[float, float, float]:
    """Write a log of about this length; return its megabytes, and how many a second are read and verified."""
    batch = [(1, os.urandom(record_bytes)) for _ in range(_BATCH)]
    frame = frame_bytes(sum([RECORD_HEAD_BYTES + len(payload) for _, payload in batch]))
    with Log.open(place) as log:
        pending = [log.append(batch) for _ in range(max(length_bytes // frame, 1))]
    megabytes = len(pending) * frame / 1e6
    began = time.perf_counter()
    for _ in read(place):
        pass
    scanned = time.perf_counter()
    verify(place)
    verified = time.perf_counter()
    return round(megabytes, 1), round(megabytes / (scanned - began), 1), round(megabytes / (verified - scanned), 1)


def _show(out: Console, figures: Figures) -> None:
    what = f"{count(figures.appends, 'durable write')} of {size(figures.record_bytes)}"
    rows = (("pwrite + fdatasync, bare", figures.bare), ("append", figures.append))
    table(
        out,
        [(what, False), ("p50 ms", True), ("p99 ms", True)],
        [(name, f"{latency.p50_ms:.3f}", f"{latency.p99_ms:.3f}") for name, latency in rows],
    )
    out.print()
    table(
        out,
        [(f"a log of {figures.scanned_mb:.0f} MB", False), ("MB/s", True)],
        [("read", f"{figures.scan_mb_s:.0f}"), ("verify", f"{figures.verify_mb_s:.0f}")],
    )
    out.print()
    line(out, f"At the median an append takes {figures.append_to_bare_p50:.2f} times what the disk itself takes.")
