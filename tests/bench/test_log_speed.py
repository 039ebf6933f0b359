"""The log's speed, a benchmark each: `pytest tests/bench/test_log_speed.py --benchmark-only`. Never asserted.

What belongs together takes turns in `log_table.py`, which measures ratios in one run; these are for comparing commits.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import log_measures as measures
import pytest
from log_rivals import RIVALS, Rival, absent

import wal

Benchmark = Callable[..., Any]
MISSING = absent()
STORES = [
    pytest.param(name, marks=pytest.mark.skipif(name in MISSING, reason=MISSING.get(name, "installed")), id=name)
    for name in RIVALS
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rival]:
    rival = RIVALS[request.param][0](tmp_path)
    yield rival
    rival.close()


def test_one_durable_append_of_1_kb(benchmark: Benchmark, store: Rival) -> None:
    payload = os.urandom(measures.PAYLOAD_BYTES)
    for _ in range(50):
        store.commit(payload)
    benchmark.pedantic(store.commit, (payload,), rounds=1000)


def test_submitting_64_batches_and_waiting_for_the_last(benchmark: Benchmark, tmp_path: Path) -> None:
    payload = os.urandom(measures.PAYLOAD_BYTES)
    with wal.Log.open(tmp_path / "log") as log:

        def burst() -> None:
            [log.submit([(1, payload)]) for _ in range(64)][-1].result()

        benchmark.pedantic(burst, rounds=100, warmup_rounds=5)


@pytest.fixture(scope="module", params=[(100, 1), (1000, 1), (1000, 10), (10_000, 1)], ids=lambda p: f"{p[0]}x{p[1]}")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log of about 24 MB: records of so many bytes, so many to a batch."""
    path = tmp_path_factory.mktemp("speed") / "log"
    record_bytes, batch_records = request.param
    measures.write_log(path, record_bytes, batch_records, min(24 << 20, record_bytes << 16)).close()
    return path


@pytest.mark.parametrize("action", ["walk", "read", "verify"])
def test_going_over_a_log(benchmark: Benchmark, written: Path, action: str) -> None:
    actions = {"walk": measures.walk, "read": measures.read, "verify": wal.verify}
    benchmark.pedantic(actions[action], (written,), rounds=3, warmup_rounds=1)
    benchmark.extra_info["frames_bytes"] = measures.walk(written)


def test_opening_a_closed_log(benchmark: Benchmark, written: Path) -> None:
    benchmark.pedantic(lambda: wal.Log.open(written).close(), rounds=3, warmup_rounds=1)


@pytest.mark.long
def test_a_log_of_2_gb_is_opened_verified_and_followed_by_processes_of_bounded_memory(tmp_path: Path) -> None:
    """Bounded, not fast: what a process needs beyond its start does not grow with the log."""
    figures = measures.large(tmp_path)
    for action in ("open", "verify", "follow"):
        assert figures[action]["peak_mb"] - figures[action]["base_mb"] < 64, action
