"""What the machine waits for between two rules: all that runs in the background, but for what hangs by order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import wal
from tamiyo.service import TamiyoService
from tamiyo.testing.library import MemoryLibrary
from tamiyo.testing.machine import open_controller
from tamiyo.testing.machine.world import World
from tamiyo.testing.policies import ScriptedPolicy
from tamiyo.testing.strategies.proposals import CALM

GLANCE_S = 0.05


@pytest.fixture
def world() -> Iterator[World]:
    found = World(ScriptedPolicy(CALM), MemoryLibrary())
    yield found
    found.close()


@contextmanager
def publishing(world: World, deed: Callable[[], object]) -> Iterator[TamiyoService]:
    """A service while a thread of the name of one that publishes does something."""
    with world.open(open_controller) as service:
        world.disk.hang("pread")
        thread = threading.Thread(target=deed, name="tamiyo-outbox", daemon=True)
        thread.start()
        try:
            yield service
        finally:
            world.release_disk()
        thread.join()


def test_while_reads_hang_what_does_not_read_is_waited_for(world: World) -> None:
    """It may take up a request, whose file is gone before the record was looked at."""
    may_end = threading.Event()
    with publishing(world, may_end.wait) as service:
        settling = threading.Thread(target=world.settle, args=(service,), daemon=True)
        settling.start()
        settling.join(GLANCE_S)  # it does not end, however long this is
        is_waiting = settling.is_alive()
        may_end.set()
        settling.join()
        assert is_waiting


def test_while_reads_hang_what_reads_is_not_waited_for(world: World) -> None:
    with publishing(world, lambda: wal.segments(world.log_path, disk=world.disk)) as service:
        assert world.disk.wait_until_hung("pread")
        assert [thread.name for thread in world.disk.waiting] == ["tamiyo-outbox"]
        world.settle(service)
    assert world.disk.waiting == ()
