"""What a log of a million steps costs: to write, open, replay, audit, project, compare and export. Nothing is asserted.

The log is a `tamiyo.testing.History`, written as a service writes it: each packet staged, and all that follows from its
decision as one batch; every command delivered, reports published and telemetry drained every thousand steps, the state
named every 1,024 steps and written down once in each segment. The packets, graphs and proposals are those of
`test_long_run.py`, whose steps a real service takes. So a step has the same records as there.

Each measure is made in a process of its own, which begins with nothing in memory. Memory is that which is the process's
own (RssAnon): files that the system keeps mapped, or in its cache, are not in it.
"""

import collections
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from live import DictLibrary
from rig import SECRET, proposal
from test_long_run import FixedPolicy, made_packet, memory_mb, parts

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import replay
from tamiyo.beginning import Beginning, folded
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.events import KINDS, Event, decode, encode
from tamiyo.core.layout import GraphLayout, read_layout
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection, diagnose
from tamiyo.projections.parquet import export_parquet
from tamiyo.testing import History, MemoryRecord

Figures = dict[str, Any]

PARTS = 10
PUBLISH_EVERY = 1_000
HAND_OVER_EVERY = 64
SAMPLE_S = 0.02
_RECEIVED = KINDS[journal.StepReceived]
ANSWER = proposal(1)


class OnDisk:
    """A log without a writer, as `folded` reads it; `passed` is told of each step."""

    def __init__(self, path: Path, passed: Callable[[], None] = lambda: None) -> None:
        self._path, self._passed = path, passed

    def read(self, after: int | None = 0) -> Iterator[wal.Entry]:
        for entry in wal.read(self._path, after):
            if entry.kind == _RECEIVED:
                self._passed()
            yield entry


class Peak:
    """The most memory that the process had of its own in a block, looked at every 20 ms."""

    def __enter__(self) -> Self:
        self.before_mb = self.most_mb = memory_mb()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.most_mb = max(self.most_mb, memory_mb())

    def figures(self) -> Figures:
        return {"memory_before_mb": round(self.before_mb, 1), "memory_peak_mb": round(self.most_mb, 1)}


class Passing:
    """Steps that pass, with memory and CPU time at each tenth."""

    def __init__(self, steps: int) -> None:
        self.steps, self.passed, self.parts = steps, 0, list[Figures]()
        self._begun_s = self._part_s = time.process_time()
        self._wall_s = time.perf_counter()

    def __call__(self) -> None:
        self.passed += 1
        if self.passed % max(self.steps // PARTS, 1) == 0:
            now_s = time.process_time()
            rate = self.steps / PARTS / max(now_s - self._part_s, 1e-9)
            self.parts.append(
                {"steps": self.passed, "memory_mb": round(memory_mb(), 1), "steps_per_cpu_second": round(rate)}
            )
            self._part_s = now_s

    def figures(self) -> Figures:
        cpu_s, wall_s = time.process_time() - self._begun_s, time.perf_counter() - self._wall_s
        return {
            "steps_per_cpu_second": round(self.steps / cpu_s),
            "steps_per_second": round(self.steps / wall_s),
            "parts": self.parts,
        }


def a_real_graph() -> tuple[GraphLayout, journal.GraphObserved]:
    """The layout and the graph that a service records of such a packet."""
    with tempfile.TemporaryDirectory() as folder:
        collections.deque(parts(2 * PARTS, Path(folder), window=1), maxlen=0)
        events = {entry.lsn: decode(entry.kind, entry.payload) for entry in wal.read(Path(folder) / "wal")}
    graph = [event for event in events.values() if isinstance(event, journal.GraphObserved)][-1]
    layout = events[graph.layout_lsn]  # not the first one: a library that was slow to answer adds another
    assert isinstance(layout, journal.GraphLayoutObserved)
    for name in ("step_lsn", "layout_lsn", "blueprints", "host_blueprint_id"):
        graph.ClearField(name)
    return read_layout(layout), graph


def a_history() -> History:
    """A history of such steps, of a service that has a blueprint to offer."""
    layout, graph = a_real_graph()
    story = History(Settings(step_timeout_ms=1_000, commit_timeout_ms=1_000), layout=layout, graph=graph)
    story.observe(MemoryRecord(pb.BlueprintDescriptor(blueprint_id="bp-1", risk=0.1)))
    return story


def step(story: History, index: int, *, publish_every: int = PUBLISH_EVERY) -> None:
    """One more step, delivered; reports and telemetry leave every so many steps."""
    story.step(pb.SystemStatePacket.FromString(made_packet(index)), ANSWER)
    story.deliver("applied")
    if index % publish_every == publish_every - 1:
        _publish(story)


def write(directory: Path, steps: int) -> Figures:
    """Write the log; `<directory>/wal` must not be there."""
    story = a_history()
    passing, records, size_bytes = Passing(steps), 0, 0
    with wal.Log.open(directory / "wal") as log:
        for index in range(steps):
            step(story, index)
            if log.size_bytes != size_bytes:
                size_bytes = log.size_bytes
                story.base()
            elif index % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
                story.look_back()
            if index % HAND_OVER_EVERY == HAND_OVER_EVERY - 1 or index == steps - 1:
                records += _append(log, story.handed_over())
            passing()
    size_bytes = sum(path.stat().st_size for path in (directory / "wal").iterdir() if path.is_file())
    return passing.figures() | {
        "records": records,
        "segments": len(wal.segments(directory / "wal")),
        "size_bytes": size_bytes,
        "bytes_per_step": round(size_bytes / steps),
    }


def _publish(story: History) -> None:
    """All that is due, a handful at a time."""
    reports_lsn = -1
    while story.state.outbox.reports_lsn != reports_lsn:
        reports_lsn = story.state.outbox.reports_lsn
        story.publish(succeeded=True)
    story.drain()


Record = tuple[int, bytes]


def batches(events: Iterable[Event]) -> Iterator[tuple[Record | None, list[Record]]]:
    """As a service writes them: a packet is staged, all up to the next one is its batch; either may be none."""
    staged, batch = None, list[Record]()
    for event in events:
        record = encode(event)
        if record[0] == _RECEIVED:
            if staged is not None or batch:
                yield staged, batch
            staged, batch = record, []
        else:
            batch.append(record)
    yield staged, batch


def _append(log: wal.Log, events: list[Event]) -> int:
    """Append, and wait until all of it is durable; returns how many records it was."""
    last = None
    for staged, batch in batches(events):
        if staged is not None:
            log.stage(*staged)
        last = log.submit(batch) if batch else last
    if last is not None:
        last.result()
    return len(events)


def _opened(directory: Path) -> TamiyoService:
    settings = Settings(step_timeout_ms=1_000, commit_timeout_ms=1_000)
    return TamiyoService.open(directory, policy=FixedPolicy(1), urza=DictLibrary({}), secret=SECRET, settings=settings)


def opening(directory: Path, steps: int) -> Figures:
    """Open the service from the last base, then from the snapshot that closing it leaves."""
    shutil.rmtree(directory / "snapshots", ignore_errors=True)
    found: Figures = {}
    for name in ("without_a_snapshot", "with_a_fresh_snapshot", "with_a_fresh_snapshot_again"):
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        service = _opened(directory)
        found[name] = {
            "wall_ms": round((time.perf_counter() - begun_s) * 1e3),
            "cpu_ms": round((time.process_time() - cpu_s) * 1e3),
        }
        assert service.state.steps_received == steps
        service.close()
    return found


def replaying(directory: Path, steps: int) -> Figures:
    """Fold the whole log from its first record, whatever snapshots and bases there are."""
    passing = Passing(steps)
    with Peak() as peak:
        state, _ = folded(OnDisk(directory / "wal", passing), Beginning())  # type: ignore[arg-type]
    assert state.steps_received == steps
    return passing.figures() | peak.figures()


def auditing(directory: Path, steps: int) -> Figures:
    """Decide every step again and compare: the audit's second level."""
    passing = Passing(steps)
    with Peak() as peak:
        found = replay(OnDisk(directory / "wal", passing).read())
    assert (found.decisions, found.divergence) == (steps, None)
    return passing.figures() | peak.figures()


def projecting(directory: Path, steps: int) -> Figures:
    """Make the rows of a file from the whole log, as a rebuild does."""
    for path in directory.glob("projection.sqlite*"):
        path.unlink()
    passing = Passing(steps)
    with Peak() as peak, Projection.open(directory) as projection:
        while projection.catch_up(directory / "wal", 4_096):
            decisions = _decisions(projection)
            while passing.passed < decisions:
                passing()
    size_bytes = (directory / "projection.sqlite").stat().st_size
    return passing.figures() | peak.figures() | {"database_bytes_per_step": round(size_bytes / steps)}


def _decisions(projection: Projection) -> int:
    with projection.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT decisions FROM controller").scalar_one())


def diagnosing(directory: Path, steps: int) -> Figures:
    """Hold the rows against those of a rebuild: what `tamiyo doctor` does."""
    passing = Passing(steps)
    with Peak() as peak:
        found = diagnose(directory)
    assert found.sound, found
    return passing.figures() | peak.figures() | {"rows": found.rows}


def exporting(directory: Path, steps: int) -> Figures:
    """Write the Parquet files; memory after each row group, by file."""
    groups = list[Figures]()

    def wrote(name: str, rows: int, _: int) -> None:
        groups.append({"file": name, "rows": rows, "memory_mb": round(memory_mb(), 1)})

    passing = Passing(steps)
    with Peak() as peak, tempfile.TemporaryDirectory(dir=directory) as target, Projection.open(directory) as projection:
        export_parquet(projection, directory / "wal", target, progress=wrote)
        size_bytes = sum(path.stat().st_size for path in Path(target).iterdir())
    return passing.figures() | peak.figures() | {"groups": groups, "bytes_per_step": round(size_bytes / steps)}


MEASURES: dict[str, Callable[[Path, int], Figures]] = {
    "writing": write,
    "opening": opening,
    "replaying": replaying,
    "auditing": auditing,
    "projecting": projecting,
    "diagnosing": diagnosing,
    "exporting": exporting,
}
"""In the order in which they need each other."""


def measured(name: str, directory: Path, steps: int) -> Figures:
    """One measure, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, name, str(directory), str(steps)], check=True, stdout=subprocess.PIPE
    )
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
