"""Real processes at one projection: whoever reads never meets a lock, whoever writes never loses a row."""

import subprocess
import sys

from projection_rig import append, history, made_new, open_log, step

from tamiyo.projections import Projection

READERS = 4
STEPS = 100

READS = """
import sys
from pathlib import Path
from tamiyo.projections import Projection

directory, last = Path(sys.argv[1]), int(sys.argv[2])
seen = 0
with Projection.open(directory) as projection:
    print("ready", flush=True)
    while True:
        summary = projection.summary()
        contents = projection.contents()
        assert summary.applied_lsn >= seen, "rows went back"
        assert len(contents["decisions"]) >= summary.decisions
        seen = summary.applied_lsn
        if seen >= last:
            break
print("done", seen, flush=True)
"""


def test_four_processes_read_while_one_writes_and_none_meets_a_lock(tmp_path):
    last = 1 + 3 * STEPS
    with open_log(tmp_path) as log, Projection.open(tmp_path) as projection:
        append(log, *history(1))
        projection.catch_up(log)
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READS, tmp_path, str(last)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(READERS)
        ]  # fmt: skip
        for reader in readers:
            assert reader.stdout.readline() == "ready\n"
        for number in range(1, STEPS):
            append(log, step(2 + 3 * number, number + 1))
            projection.catch_up(log)  # a transaction for every step, as close as they can come
        for reader in readers:
            said, complained = reader.communicate(timeout=120)
            assert (said, reader.returncode) == (f"done {last}\n", 0), complained
        assert projection.rebuilt_because == ""
    assert projection_of(tmp_path) == made_new(tmp_path)


WRITES = """
import sys
from pathlib import Path
from tamiyo.projections import Projection

directory = Path(sys.argv[1])
with Projection.open(directory) as projection:
    while projection.catch_up(directory / "wal", limit=20):
        pass
    print(projection.applied_lsn, repr(projection.rebuilt_because), flush=True)
"""


def test_processes_that_write_and_one_that_rebuilds_at_once_lose_no_row(tmp_path):
    with open_log(tmp_path) as log:
        append(log, *history(100))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    with Projection.open(tmp_path) as projection:
        projection.rebuild(tmp_path / "wal")
    assert [writer.communicate(timeout=120)[0] for writer in writers] == ["301 ''\n"] * 2
    assert projection_of(tmp_path) == made_new(tmp_path)


def projection_of(directory):
    with Projection.open(directory) as projection:
        return projection.contents()
