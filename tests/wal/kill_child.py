"""Run as a program: forks a writer whenever it is told to, and kills it when it is told to.

It has one thread and has imported the log, so that a fork is sound, and cheap. Its one output is a pipe that it shares
with the writers: each says there what it is about to do, and what became of it; a line is written at once or not at
all. Commands are lines on its input: a plan (JSON) starts a writer, "kill" kills it, "wait" lets it end by itself.
"""

import contextlib
import gc
import json
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import wal
from wal.segment import first_lsn_of
from wal.shelf import segment_paths

APPENDING, ALSO_APPENDING, SUBMITTING, STAGING = THREADS = range(4)
BATCHES_MAX = 12  # for each thread
STEPS = 10  # of maintenance; each waits for four batches, so that there are always enough
KEPT_RECORDS = 60  # how many a prune leaves at least
REDACTED_KINDS = (ALSO_APPENDING, STAGING)
CHANGING = frozenset({"open", "close", "pwrite", "fdatasync", "fallocate", "rename", "unlink", "fsync_dir"})

Say = Callable[[str], object]


def record_of(life: int, thread: int, number: int) -> tuple[int, bytes]:
    """What a thread of the `life`-th writer hands in as its `number`-th record; no other one is like it."""
    filler = (life * 7919 + thread * 104729 + number * 1299709) % (1200 if number % 4 == 0 else 90)
    return thread, b"" if number % 13 == 5 else b"%d %d %d " % (life, thread, number) + bytes([number % 256]) * filler


def is_to_go(entry: wal.Entry) -> bool:
    """Whether a redaction takes this record's payload."""
    return entry.kind in REDACTED_KINDS and entry.lsn % 3 == 0


class DeadlyDisk:
    """The real disk, on which a chosen operation of a chosen phase is the process's last."""

    def __init__(self, phase: str | None, operation: int, moment: str) -> None:
        self._disk = wal.OsDisk()
        self._phase = phase
        self._left = operation
        self._moment = moment  # "before", "after", or "amid" the next write, half of which is done
        self._counts = False

    def begin(self, phase: str) -> None:
        self._counts = self._counts or phase == self._phase

    def __getattr__(self, name: str) -> Callable[..., object]:
        real = getattr(self._disk, name)
        if name not in CHANGING:
            return real

        def call(*args: object, **options: object) -> object:
            if self._counts:
                self._left -= 1
                if self._left <= 0 and (self._moment != "amid" or name == "pwrite"):
                    self._die(real, args, options)
            return real(*args, **options)

        return call

    def _die(self, real: Callable[..., object], args: tuple[object, ...], options: dict[str, object]) -> None:
        if self._moment == "after":
            real(*args, **options)
        elif self._moment == "amid":
            fd, data, offset = args
            real(fd, data[: len(data) // 2 + 7], offset)
        os.kill(os.getpid(), signal.SIGKILL)


class Worker:
    """One thread of a writer: hands in its records until it has no more, or the log is closed."""

    def __init__(self, thread: int, plan: dict[str, int], log: wal.Log, say: Say, done: threading.Semaphore) -> None:
        self._thread = thread
        self._life = plan["life"]
        self._log = log
        self._say = say
        self._done = done
        self._draw = random.Random(plan["seed"] * 8 + thread)
        self._next = 0

    def run(self) -> None:
        with Fatal(self._say), contextlib.suppress(wal.LogClosed):
            for _ in range(BATCHES_MAX):
                if self._thread == SUBMITTING:
                    self._submit()
                elif self._thread == STAGING:
                    self._stage()
                else:
                    self._append()
                self._done.release()

    def _batch(self, records: int) -> tuple[list[tuple[int, bytes]], str]:
        """The next records, and how they are called; that they may come is said before they are handed in."""
        batch = [record_of(self._life, self._thread, self._next + at) for at in range(records)]
        name = f"{self._thread} {self._next} {records}"
        self._say(f"handing-in {name}")
        self._next += records
        return batch, name

    def _append(self) -> None:
        batch, name = self._batch(self._draw.randrange(1, 4))
        self._say(f"acknowledged {name} {self._log.append(batch).first_lsn}")

    def _submit(self) -> None:
        pending = []
        for _ in range(self._draw.randrange(1, 4)):
            batch, name = self._batch(self._draw.randrange(1, 3))
            with self._unless_busy(name):
                pending.append((name, self._log.submit(batch)))
        for name, each in pending:
            self._say(f"acknowledged {name} {each.result().first_lsn}")

    def _stage(self) -> None:
        (record,), name = self._batch(1)
        with self._unless_busy(name):
            staged = self._log.stage(*record)
            if self._draw.random() < 0.7:
                staged.wait()
                self._say(f"written {name} {staged.lsn}")
        if self._draw.random() < 0.6:
            self._append()

    @contextlib.contextmanager
    def _unless_busy(self, name: str) -> Iterator[None]:
        try:
            yield
        except wal.LogBusy:
            self._say(f"refused {name}")


class Writer:
    """One life of a log: opened, written by several threads, maintained, closed. Killed at any point of it."""

    def __init__(self, plan: dict[str, object], say: Say) -> None:
        self._plan = plan
        self._path = Path(str(plan["path"]))
        self._say = say
        self._disk = DeadlyDisk(plan["phase"], plan["operation"], plan["moment"])
        self._draw = random.Random(plan["seed"])

    def live(self) -> None:
        self._begin("open")
        expected = self._plan["expect"]
        log = wal.Log.open(
            self._path, disk=self._disk, segment_bytes=self._plan["segment_bytes"], heartbeat_ms=2,
            expect_head=None if expected is None else wal.Head.parse(expected),
        )  # fmt: skip
        self._say(f"opened {log.recovery.last_lsn}")
        self._begin("write")
        done = threading.Semaphore(0)
        for thread in THREADS:
            worker = Worker(thread, self._plan, log, self._say, done)
            threading.Thread(target=worker.run, daemon=True).start()
        for _ in range(STEPS):
            for _ in range(4):
                done.acquire()
            self._draw.choice([self._head, self._head, self._prune, self._redact])(log)
        self._begin("close")
        log.close()
        self._say("closed")

    def _begin(self, phase: str) -> None:
        self._disk.begin(phase)
        self._say(f"begins {phase}")

    def _head(self, log: wal.Log) -> None:
        self._say(f"head {log.head()}")

    def _prune(self, log: wal.Log) -> None:
        before_lsn = min(log.durable_lsn - KEPT_RECORDS, log.recovery.last_lsn)
        keep = self._plan["keep"]
        self._say(f"pruning {before_lsn}")
        self._begin("prune")
        pruned = log.prune(before_lsn, keep_heads=[] if keep is None else [wal.Head.parse(keep)])
        self._say(f"pruned {pruned.first_lsn}")
        self._begin("write")

    def _redact(self, log: wal.Log) -> None:
        finished = segment_paths(self._path, wal.OsDisk())[-2:]  # the first of the two may lack its seal just now
        upto_lsn = log.durable_lsn
        self._say(f"redacting {upto_lsn}")
        self._begin("redact")
        log.redact(is_to_go, upto_lsn=upto_lsn)
        self._say(f"redacted {min(upto_lsn, first_lsn_of(finished[0]) - 1)}")
        self._begin("write")


class Fatal:
    """What goes wrong in the block ends the whole process, which says what it was."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._say(f"failed {''.join(traceback.format_exception(error))[-2000:]!r}")
            os._exit(1)


def write(plan: dict[str, object], say: Say) -> None:
    """Live, in the forked process, and end it."""
    with Fatal(say):
        Writer(plan, say).live()
    os._exit(0)


def main() -> None:
    """Fork a writer for each plan, and say how it ended."""

    def say(line: str) -> None:
        os.write(1, f"{line}\n".encode())

    gc.freeze()  # a collection in the child must not copy what it shares with this process
    for line in sys.stdin:
        writer = os.fork()
        if writer == 0:
            write(json.loads(line), say)
        if sys.stdin.readline() == "kill\n":
            os.kill(writer, signal.SIGKILL)  # not reaped yet, so this is it and nobody else
        _, status = os.waitpid(writer, 0)
        say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
