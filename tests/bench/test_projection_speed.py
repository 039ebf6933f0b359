"""How fast rows follow a log: `pytest tests/bench/test_projection_speed.py --benchmark-only`. Never asserted.

The steps are those of a history, written again and again: packet, graph, inference, decision and report, as a service
records them. `following` writes 1,000 of them a second from another thread of the same process, in batches of 10, and
measures how old the oldest step without a row is; `catching_up` and `rebuilding` measure how many steps a second go
from a log into the rows of a file.
"""

import threading
import time
from typing import Any

import pytest
from rig import packet, proposal

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, Event, encode
from tamiyo.projections import Projection, ProjectionFollower
from tamiyo.testing import History

STEPS = 20_000
RATE_HZ = 1_000
STEPS_PER_BATCH = 10
SECONDS = 15


def template() -> list[Event]:
    """The events of one step; its packet stands at the first's place."""
    story = History()
    for _ in range(3):
        made = packet(seeds=4, validation_loss=0.5, training_loss=0.25)
        made.training_metrics.update({f"metric_{index}": index / 7 for index in range(20)})
        story.step(made, proposal())
    events = story.events
    last = max(place for place, event in enumerate(events) if isinstance(event, journal.StepReceived))
    return events[last:]


def batches(steps: int) -> list[list[tuple[int, bytes]]]:
    """Records of so many steps, in batches, after an opening at LSN 1."""
    events = template()
    made: list[list[tuple[int, bytes]]] = [[encode(journal.ServiceOpened(event_time_ns=1, policy_version="v1"))]]
    lsn = 2
    for first in range(0, steps, STEPS_PER_BATCH):
        batch: list[tuple[int, bytes]] = []
        for index in range(first, first + STEPS_PER_BATCH):
            for event in events:
                if isinstance(event, journal.StepReceived):
                    event.step_index = index + 1
                elif hasattr(event, "step_lsn"):
                    event.step_lsn = lsn
                batch.append((KINDS[type(event)], event.SerializeToString()))
            lsn += len(events)
        made.append(batch)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("written")
    with wal.Log.open(directory / "wal") as log:
        for batch in batches(STEPS):
            log.append(batch)
    return directory


def test_catching_up(benchmark: Any, written: Any) -> None:
    def fresh() -> tuple[tuple[Projection], dict[str, Any]]:
        for path in written.glob("projection.sqlite*"):
            path.unlink()
        return (Projection.open(written),), {}

    def catch_up(projection: Projection) -> None:
        projection.catch_up(written / "wal")
        projection.close()

    benchmark.pedantic(catch_up, setup=fresh, rounds=3)
    benchmark.extra_info["steps_per_s"] = round(STEPS / benchmark.stats.stats.median)


def test_rebuilding(benchmark: Any, written: Any) -> None:
    with Projection.open(written) as projection:
        benchmark.pedantic(projection.rebuild, args=(written / "wal",), rounds=3)
    benchmark.extra_info["steps_per_s"] = round(STEPS / benchmark.stats.stats.median)


def test_following(benchmark: Any, tmp_path: Any) -> None:
    pending = batches(RATE_HZ * SECONDS)

    def follow() -> list[float]:
        with wal.Log.open(tmp_path / "wal") as log:
            following = ProjectionFollower(tmp_path, log, every_s=0.05)
            lags, late = [], 0.0
            appended: list[tuple[int, float]] = []
            seen, begun_s = 0, time.perf_counter()
            for number, batch in enumerate(pending):
                due_s = begun_s + number * STEPS_PER_BATCH / RATE_HZ
                wait_s = due_s - time.perf_counter()
                late = max(late, -wait_s)
                if wait_s > 0:
                    threading.Event().wait(wait_s)
                appended.append((log.append(batch).last_lsn, time.perf_counter()))
                applied = following.applied_lsn
                while seen < len(appended) and appended[seen][0] <= applied:
                    seen += 1
                lags.append(time.perf_counter() - appended[seen][1] if seen < len(appended) else 0.0)
            benchmark.extra_info["writer_late_ms"] = round(late * 1e3)
        following.close()
        assert following.failure is None
        return lags

    lags = sorted(benchmark.pedantic(follow, rounds=1))
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        benchmark.extra_info[f"lag_{name}_ms"] = round(lags[min(int(share * len(lags)), len(lags) - 1)] * 1e3)
