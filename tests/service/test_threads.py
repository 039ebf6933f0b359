"""Everybody at once: steps, operators, deliveries, flushes and publishing, each on a thread of its own."""

import asyncio
import contextlib
import errno
import random
import threading
from collections.abc import Callable

import pytest
from live import Live, library, recover
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.errors import NotRecorded
from tamiyo.testing import FailingPolicy, MemoryBus


class Crowd:
    """Threads that go on until they are told to stop; what one of them raises fails the test."""

    def __init__(self, *jobs: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self._errors == []

    def _run(self, job: Callable[[], object]) -> None:
        while not self._stop.wait(0.002):  # a courtesy to the machine
            try:
                job()
            except BaseException as error:  # noqa: BLE001  it is raised where the crowd ends
                self._errors.append(error)
                return


def crowd(live: Live, bus: MemoryBus, delivered: list[str]) -> Crowd:
    switch = iter(range(10**9))

    def direct() -> None:
        with contextlib.suppress(NotRecorded):
            live.service.direct("conservative_on" if next(switch) % 2 else "conservative_off", operator="ada")

    def deliver() -> None:
        if delivered:
            live.service.record_delivery(delivered[-1], "applied")

    return Crowd(direct, deliver, live.service.flush, lambda: asyncio.run(live.service.publish_history(bus)))


def test_everybody_at_once_and_the_log_tells_one_story() -> None:
    live, bus, delivered = Live(urza=library()), MemoryBus(), list[str]()
    with crowd(live, bus, delivered):
        for _ in range(60):
            delivered.append(live.step(packet()).command_id)
    assert live.events(journal.OperatorDirected)
    assert bus.messages
    live.durable()
    live.check()
    live.reopen()
    live.check()
    live.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_everybody_at_once_on_a_disk_a_bus_and_a_policy_that_fail(seed: int) -> None:
    draw = random.Random(seed)
    policy = FailingPolicy(failing=False)
    live, bus, delivered = Live(policy=policy, urza=library()), MemoryBus(), list[str]()
    with crowd(live, bus, delivered):
        for _ in range(1_500):
            policy.failing = draw.random() < 0.1
            if draw.random() < 0.01:
                live.disk.fail(draw.choice(["fdatasync", "pwrite"]), errno.EIO)
            (bus.fail if draw.random() < 0.1 else bus.heal)()
            live.clock.advance(draw.choice([0.01, 0.3, 1.5]))
            delivered.append(live.step(packet()).command_id)
    live.disk.heal()
    bus.heal()
    recover(live)
    for _ in range(100):
        if asyncio.run(live.service.publish_history(bus)):
            break
        live.clock.advance(10)
    live.durable()
    live.check()
    assert live.service.state.steps_received == live.service.journal.steps_seen
    live.close()
