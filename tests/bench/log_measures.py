"""What is measured of the log, each measure a function of a folder to work in. Ratios are taken within one run.

Whatever is compared takes turns, a few commits each, so that what the disk and the other processes do meets all alike.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from log_rivals import RIVALS, Bare, Rival, Wal, absent

import wal

PAYLOAD_BYTES = 1024
Figures = dict[str, Any]


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of seconds, in microseconds."""
    ordered = sorted(values)
    return {f"p{share}_us": round(ordered[int(len(ordered) * share / 100)] * 1e6, 1) for share in (50, 95, 99)}


def commits(folder: Path, *, rounds: int = 60, per_round: int = 25) -> Figures:
    """One durable append of one 1 KB batch, for the log, the floor, and every rival that is installed."""
    missing = absent()
    running: dict[str, Rival] = {name: make(folder) for name, (make, _) in RIVALS.items() if name not in missing}
    times: dict[str, list[list[float]]] = {name: [] for name in running}
    payload = os.urandom(PAYLOAD_BYTES)
    for number in range(rounds + 1):
        order = list(running) if number % 2 else list(reversed(running))
        for name in order:
            taken = [_timed(running[name].commit, payload) for _ in range(per_round)]
            if number:  # the first round warms up
                times[name].append(taken)
    for rival in running.values():
        rival.close()
    floor = times["bare pwrite + fdatasync"]
    figures: Figures = {}
    for name, taken in times.items():
        ratios = [median(mine) / median(least) for mine, least in zip(taken, floor, strict=True)]
        figures[name] = quantiles([one for part in taken for one in part]) | {"p50_to_bare": round(median(ratios), 2)}
    return {"payload_bytes": PAYLOAD_BYTES, "commits_each": rounds * per_round, "stores": figures, "absent": missing}


def _timed(commit: Callable[[bytes], None], payload: bytes) -> float:
    start = time.perf_counter()
    commit(payload)
    return time.perf_counter() - start


def group_commit(folder: Path, *, rounds: int = 7, seconds: float = 1.0, appenders: int = 10) -> Figures:
    """Batches a second of one appender and of ten at once, in turns."""
    store = Wal(folder)
    rates: dict[int, list[float]] = {1: [], appenders: []}
    _appends_per_s(store, appenders, 0.2)
    for number in range(rounds):
        for threads in sorted(rates, reverse=bool(number % 2)):
            rates[threads].append(_appends_per_s(store, threads, seconds))
    store.close()
    return {
        "appenders": appenders,
        "one_per_s": round(median(rates[1])),
        "ten_per_s": round(median(rates[appenders])),
        "ratio": round(median(many / one for one, many in zip(*rates.values(), strict=True)), 2),
    }


def _appends_per_s(store: Rival, threads: int, seconds: float) -> float:
    payload = os.urandom(PAYLOAD_BYTES)
    done = [0] * threads
    start = time.perf_counter()

    def append(index: int) -> None:
        while time.perf_counter() - start < seconds:
            store.commit(payload)
            done[index] += 1

    workers = [threading.Thread(target=append, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - start)


def write_log(path: Path, record_bytes: int, batch_records: int, total_bytes: int, **options: Any) -> wal.Log:
    """Write a log of this many bytes of payload, and return it open, all of it durable."""
    log = wal.Log.open(path, **options)
    payload = os.urandom(record_bytes)
    batch = [(1, payload)] * batch_records
    waiting: list[wal.Pending] = []
    for _ in range(total_bytes // (record_bytes * batch_records)):
        waiting.append(log.submit(batch))
        if len(waiting) == 512:
            waiting.pop().result()
            waiting.clear()
    for pending in waiting:
        pending.result()
    return log


def reading(folder: Path, *, total_bytes: int = 48 << 20, repeats: int = 3) -> list[Figures]:
    """MB of frames that one core walks as recovery does, reads, and verifies in a second of its time; cached files."""
    rows: list[Figures] = []
    for record_bytes, batch_records in ((100, 1), (1000, 1), (1000, 10), (10_000, 1)):
        path = folder / f"read-{record_bytes}-{batch_records}"
        write_log(path, record_bytes, batch_records, min(total_bytes, record_bytes << 17)).close()
        seconds = {
            name: min(_cpu_s(lambda action=action, path=path: action(path)) for _ in range(repeats))
            for name, action in {"walk": walk, "read": read, "verify": wal.verify}.items()
        }
        frames_bytes = walk(path)
        records = sum(1 for _ in wal.read(path))
        rows.append(
            {"record_bytes": record_bytes, "batch_records": batch_records, "frames_mb": round(frames_bytes / 1e6, 1)}
            | {f"{name}_mb_per_s": round(frames_bytes / taken / 1e6) for name, taken in seconds.items()}
            | {f"{name}_us_per_record": round(taken / records * 1e6, 2) for name, taken in seconds.items()}
        )
        shutil.rmtree(path)
    return rows


def _cpu_s(action: Callable[[], object]) -> float:
    start = time.thread_time()
    action()
    return time.thread_time() - start


def walk(path: Path) -> int:
    from wal.scan import Window, next_frame, start_of
    from wal.shelf import read_segment, segment_paths

    disk, total = wal.OsDisk(), 0
    for place in segment_paths(path, disk):
        segment = read_segment(place, disk)
        fd = disk.open(place)
        cursor, window = start_of(segment.header), Window(disk, fd)
        while (frame := next_frame(window, cursor)) is not None:
            cursor.advance(frame)
        disk.close(fd)
        total += cursor.offset
    return total


def read(path: Path) -> None:
    for _ in wal.read(path):
        pass


def opening(folder: Path, *, repeats: int = 3) -> list[Figures]:
    """Seconds to open a log whose last segment is full (64 MB since anything was sealed), closed or left by a crash."""
    rows: list[Figures] = []
    for record_bytes in (100, 1000, 10_000):
        frame_bytes = -(-(record_bytes + 180) // 512) * 512
        path = folder / f"open-{record_bytes}"
        log = write_log(path, record_bytes, 1, record_bytes * ((64 << 20) - (256 << 10)) // frame_bytes)
        crashed = folder / f"open-{record_bytes}-crashed"
        shutil.copytree(path, crashed)
        log.close()
        for how, image in (("closed", path), ("crashed", crashed)):
            taken = [_open_s(image, folder / "open-copy") for _ in range(repeats)]
            rows.append(
                {"record_bytes": record_bytes, "left": how}
                | {"wall_s_per_64_mb": round(median([wall for wall, _ in taken]), 3)}
                | {"cpu_s_per_64_mb": round(median([cpu for _, cpu in taken]), 3)}
            )
            shutil.rmtree(image)
    return rows


def _open_s(image: Path, copy: Path) -> tuple[float, float]:
    shutil.copytree(image, copy)
    os.sync()  # else the first sync of the open pays for the copy
    start, cpu = time.perf_counter(), time.process_time()
    log = wal.Log.open(copy)
    taken = time.perf_counter() - start, time.process_time() - cpu
    log.close()
    shutil.rmtree(copy)
    return taken


_PROBE = """
import json, sys, time
from pathlib import Path
import wal

def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

path, action = sys.argv[1:]
base, start = peak_mb(), time.perf_counter()
if action == "open":
    wal.Log.open(path).close()
elif action == "verify":
    assert wal.verify(path).status == "intact"
elif action == "follow":
    reader, count = wal.Reader(path), 0
    while found := reader.poll():
        count += len(found)
    assert count > 0
print(json.dumps({"seconds": round(time.perf_counter() - start, 2), "base_mb": round(base, 1),
                  "peak_mb": round(peak_mb(), 1)}))
"""


def large(folder: Path, *, total_bytes: int = 2 << 30, record_bytes: int = 8192) -> Figures:
    """Open, verify and follow a 2 GB log, each in a process of its own; peak resident memory in MB, and seconds."""
    path = folder / "large"
    write_log(path, record_bytes, 8, total_bytes).close()
    figures: Figures = {"payload_bytes": total_bytes, "record_bytes": record_bytes}
    for action in ("open", "verify", "follow"):
        command = [sys.executable, "-c", _PROBE, str(path), action]
        figures[action] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    shutil.rmtree(path)
    return figures


def syncs(folder: Path, *, count: int = 200) -> Figures:
    """What a sync is here: its time alone, and how many cache flushes the kernel sent to the device for each."""
    bare = Bare(folder)
    before = _flushes(folder)
    payload = os.urandom(PAYLOAD_BYTES)
    taken = [_timed(bare.commit, payload) for _ in range(count)]
    after = _flushes(folder)
    bare.close()
    sent = None if before is None or after is None else round((after - before) / count, 2)
    return quantiles(taken) | {"flushes_sent_per_sync": sent}


def _flushes(folder: Path) -> int | None:
    device = folder.stat().st_dev
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    fields = place.read_text().split() if place.exists() else []
    return int(fields[15]) if len(fields) > 15 else None
