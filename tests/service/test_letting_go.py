"""A service that nobody holds any more is let go, whatever became of its log: nothing that lasts leads back to it."""

import errno
import gc
import threading
import weakref

import pytest
from live import Live
from rig import packet

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService


class Started:
    """The threads that began since."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def join(self, name: str) -> None:
        for thread in set(threading.enumerate()) - self._before:
            if thread.name.startswith(name):
                thread.join(timeout=30)
                assert not thread.is_alive()


def service_whose_log_failed(op: str) -> TamiyoService:
    live, started = Live(), Started()
    live.step(packet())
    live.disk.fail(op, errno.EIO)
    command = live.step(packet())
    assert command.command_type == pb.COMMAND_PAUSE
    assert live.service.log.failure is not None
    started.join("wal-writer")
    return live.service


@pytest.mark.parametrize("op", ["pwrite", "fdatasync"])
def test_a_closed_service_whose_log_failed_is_let_go(op: str) -> None:
    service = service_whose_log_failed(op)
    service.close()
    there = weakref.ref(service)
    del service
    gc.collect()
    assert there() is None


@pytest.mark.parametrize("op", ["pwrite", "fdatasync"])
def test_a_service_that_is_dropped_unclosed_is_let_go_and_its_threads_end(op: str) -> None:
    started = Started()
    service = service_whose_log_failed(op)
    there = weakref.ref(service)
    del service
    gc.collect()
    assert there() is None
    started.join("tamiyo-")
