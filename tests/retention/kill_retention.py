"""A process without threads that forks one victim after the other: each runs retention, and dies by its own SIGKILL.

A line on standard input is a plan, as JSON; the answer is the victim's wait status. Nothing here is imported by tests.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from live import PATIENT, library
from retention_rig import SETTINGS, Order
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.retention import retain_directory
from tamiyo.testing import FixedPolicy, ManualClock


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingDisk:
    """The real disk, on which the n-th changing call is the last: before it, after it, or amid a write."""

    CHANGING = frozenset({"pwrite", "fdatasync", "fallocate", "rename", "unlink", "fsync_dir"})

    def __init__(self, left: int, draw: random.Random) -> None:
        self._disk = wal.OsDisk()
        self._left = left
        self._draw = draw
        self._mutex = threading.Lock()
        self.armed = False

    def __getattr__(self, name: str) -> object:
        real = getattr(self._disk, name)
        if name not in self.CHANGING:
            return real

        def call(*args: object) -> object:
            with self._mutex:
                self._left -= self.armed
                last = self.armed and self._left < 0
            if last:
                moment = self._draw.choice(("before", "after", "amid"))
                if moment == "amid" and name == "pwrite":
                    fd, data, offset = args
                    real(fd, bytes(data)[: self._draw.randrange(len(data) + 1)], offset)
                elif moment == "after":
                    real(*args)
                die()
            return real(*args)

        return call


def retain(plan: dict) -> None:
    """A run on a directory that nobody has open."""
    disk = DyingDisk(plan["operations"], random.Random(plan["seed"])) if "operations" in plan else None
    if disk is not None:
        disk.armed = True

    def tell(stage: str, _: str) -> None:
        if stage == plan.get("stage"):
            die()

    archive = Path(plan["archive"]) if plan.get("archive") else None
    order = Order("killed", archive, tuple(wal.Head.parse(head) for head in plan["heads"]))
    clock = ManualClock(wall=plan["now_ns"])
    retain_directory(Path(plan["directory"]), order, SETTINGS, clock=clock, disk=disk, tell=tell)


def live(plan: dict) -> None:
    """A service that steps, publishes nothing, and retains; each step that was answered is noted in a file."""
    disk = DyingDisk(plan["operations"], random.Random(plan["seed"]))
    settings = Settings(**{
        **PATIENT, "segment_bytes": plan["segment_bytes"], "log_retention_hours": 2, "field_report_retention_hours": 1,
    })  # fmt: skip
    service = TamiyoService.open(
        plan["directory"], policy=FixedPolicy(), urza=library(), secret=SECRET, settings=settings,
        clock=ManualClock(wall=plan["now_ns"]), disk=disk,
    )  # fmt: skip
    disk.armed = True
    ended = threading.Event()

    def steps() -> None:
        with Path(plan["acknowledged"]).open("ab", buffering=0) as told:
            while not ended.is_set():
                command = service.evaluate_step(packet())
                told.write(command.command_id.encode() + b"\n")

    thread = threading.Thread(target=steps)
    thread.start()
    service.retain(keep_heads=[wal.Head.parse(head) for head in plan["heads"]])
    ended.set()
    thread.join()
    service.close()


MODES = {"retain": retain, "live": live}


def main() -> None:
    for line in sys.stdin:
        plan = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                MODES[plan["mode"]](plan)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
