"""How far the rows are behind a log that grows by 1,000 steps a second, for a minute; nothing asserted.

    PYTHONPATH=tests python tests/bench/projection_lag.py [--seconds N] [--rate HZ] [--folder FOLDER] [--json FILE]

One process writes a real log as a service does, a synthetic controller deciding (`long_log_measures.py`): each packet
staged, each decision's records one batch, synced by the log's own writer thread. Another follows it with a
`ProjectionFollower` that knows nothing but the directory. The third only starts them. The lag of a step is the time
from when it was durable until its row could be seen by others. The JSON in `results/` is the last run kept.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
from long_log_measures import Figures, a_history, batches, step
from numpy.typing import NDArray

import wal
from tamiyo.bench.machine import facts, load
from tamiyo.projections import ProjectionFollower

RESULTS = Path(__file__).parent / "results" / "projection-lag.json"
EVERY_S = 0.1
SAMPLE_S = 0.002
PUBLISH_EVERY = 64

Times = NDArray[np.float64]
"""Shape (n, 2): an LSN, and seconds of the machine's monotonic clock."""


class Durable:
    """When each batch was durable, told by the writer's own thread."""

    def __init__(self) -> None:
        self.lsn, self.at_s = array("d"), array("d")

    def watch(self, pending: wal.Pending) -> None:
        """Note when a batch is durable."""
        pending.add_done_callback(lambda done: self._note(done.result().last_lsn))

    def _note(self, lsn: int) -> None:
        self.at_s.append(time.monotonic())
        self.lsn.append(lsn)


def write(directory: Path, seconds: int, rate_hz: int) -> None:
    """Write steps at a steady rate, from the word on; keep when each was durable, and how late the writer was."""
    story, durable = a_history(), Durable()
    with wal.Log.open(directory / "wal") as log:
        _append(log, story.handed_over(), durable)
        _say("ready")
        sys.stdin.readline()
        begun_s, late_s, last = time.monotonic(), 0.0, None
        for index in range(seconds * rate_hz):
            wait_s = begun_s + index / rate_hz - time.monotonic()
            late_s = max(late_s, -wait_s)
            if wait_s > 0:
                time.sleep(wait_s)
            step(story, index, publish_every=PUBLISH_EVERY)
            last = _append(log, story.handed_over(), durable) or last
        if last is not None:
            last.result()
        written_s = time.monotonic() - begun_s
    np.save(directory / "durable.npy", np.array([durable.lsn, durable.at_s]).T)
    _say(json.dumps({"writer_late_ms": round(late_s * 1e3), "written_s": round(written_s, 2)}))


def _append(log: wal.Log, events: list, durable: Durable) -> wal.Pending | None:  # type: ignore[type-arg]
    last = None
    for staged, batch in batches(events):
        if staged is not None:
            log.stage(*staged)
        if batch:
            last = log.submit(batch)
            durable.watch(last)
    return last


def follow(directory: Path) -> None:
    """Follow until told to end; keep when the rows came to each LSN."""
    follower = ProjectionFollower(directory, every_s=EVERY_S)
    while not follower.applied_lsn:
        time.sleep(SAMPLE_S)
    _say("ready")
    seen, at_s = array("d"), array("d")
    ended = deque[bool]()
    _in_background(lambda: ended.append(bool(sys.stdin.readline())))
    cpu_s = time.process_time()
    while not ended:
        _sample(follower, seen, at_s)
        time.sleep(SAMPLE_S)
    follower.close()
    _sample(follower, seen, at_s)
    np.save(directory / "seen.npy", np.array([seen, at_s]).T)
    _say(json.dumps({"follower_cpu_s": round(time.process_time() - cpu_s, 1), "failure": str(follower.failure or "")}))


def _sample(follower: ProjectionFollower, seen: array, at_s: array) -> None:  # type: ignore[type-arg]
    lsn = follower.applied_lsn
    if not seen or lsn > seen[-1]:
        at_s.append(time.monotonic())
        seen.append(lsn)


def _in_background(work: Callable[[], object]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def lags(durable: Times, seen: Times) -> tuple[Times, Times]:
    """Of each batch: when it was durable, in seconds after the first, and its lag in ms."""
    place = np.searchsorted(seen[:, 0], durable[:, 0])
    return durable[:, 1] - durable[0, 1], (seen[place, 1] - durable[:, 1]) * 1e3


def figures_of(directory: Path) -> Figures:
    """Lag in ms, over all and by the second."""
    durable, seen = np.load(directory / "durable.npy")[1:], np.load(directory / "seen.npy")
    at_s, lag_ms = lags(durable, seen)
    seconds = [lag_ms[(at_s >= second) & (at_s < second + 1)] for second in range(int(at_s[-1]) + 1)]
    return {
        "batches": len(lag_ms),
        "lag_ms": _spread(lag_ms),
        "by_second": [_spread(one) for one in seconds if len(one)],
    }


def _spread(lag_ms: Times) -> Figures:
    shares = {"p50": 50, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(lag_ms, share)), 1) for name, share in shares.items()}


def run(folder: Path, seconds: int, rate_hz: int) -> Figures:
    """Start writer and follower in a folder, let them go, and hold their times against each other."""
    before = load()
    writer = _started("write", folder, seconds, rate_hz)
    follower = _started("follow", folder)
    found: Figures = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": facts(folder), "seconds": seconds,
        "steps_per_second": rate_hz, "follower_looks_every_s": EVERY_S,
    }  # fmt: skip
    for process in (writer, follower):  # the writer first, so that the follower ends with every row
        found |= json.loads(process.communicate("go\n")[0])
    return found | figures_of(folder) | {"load_before": before, "load_after": load()}


def _started(*given: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--as", *map(str, given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{given} did not begin; what it said is above")
    return process


def main() -> None:
    """Measure, keep and print."""
    if sys.argv[1:2] == ["--as"]:
        role, folder, *numbers = sys.argv[2:]
        {"write": write, "follow": follow}[role](Path(folder), *map(int, numbers))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=1_000, help="steps a second")
    parser.add_argument("--folder", type=Path, help="where to measure; the default is the temporary directory")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="tamiyo-lag-") as made:
        figures = run(Path(made), given.seconds, given.rate)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    short = {name: value for name, value in figures.items() if name not in ("machine", "by_second")}
    worst = max(second["max"] for second in figures["by_second"])
    sys.stdout.write(f"{json.dumps(short)}\nat most {worst:,.0f} ms behind in any second (1,000 wanted)\n")


if __name__ == "__main__":
    main()
