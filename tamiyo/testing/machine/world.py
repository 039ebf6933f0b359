"""What one controller lives in: a disk, a clock, a policy and a library, in memory, all of which can go wrong.

Rule: whatever runs in the background is waited for, except what hangs by order. So a step's outcome does not depend on
how fast this machine's threads are, and what failed once fails again.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from google.protobuf.message import DecodeError

import wal
from tamiyo.errors import TamiyoError
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.service import TamiyoService
from tamiyo.testing.bus import MemoryBus
from tamiyo.testing.clock import FaultClock
from tamiyo.testing.library import FaultLibrary, MemoryLibrary
from tamiyo.testing.machine.law import require
from tamiyo.testing.policies import FaultPolicy, ScriptedPolicy
from tamiyo.testing.strategies.proposals import CALM
from wal.testing import FaultDisk, MemoryDisk

__all__ = ["Factory", "World"]

COMMIT_OPS = frozenset({"pwrite", "fdatasync"})
"""Operations of the disk that stand between a batch and its durability."""
BACKGROUND = ("tamiyo-lookups", "tamiyo-log-trial")
ABANDONED_MAX = 4
"""With so many calls out that nobody waits for, a service does not ask again."""
GIVE_UP_S = 60.0
GLANCE_S = 0.0005


class World:
    """The collaborators of one controller, and what happens to it between steps.

    A factory opens a service on them: `directory`, `disk`, `clock`, `policy`, `library`, `secret`. What the service
    publishes goes to `bus`, which outlives every process.
    """

    def __init__(self, policy: Policy, library: MemoryLibrary) -> None:
        self.directory = Path("/controller")
        self.memory = MemoryDisk()
        self.disk = FaultDisk(self.memory)
        self.clock = FaultClock()
        self.policy = FaultPolicy(policy)
        self.known = library
        self.library = FaultLibrary(library)
        self.bus = MemoryBus()
        self.secret = b"a secret for machines and nobody else"

    @property
    def log_path(self) -> Path:
        """Where the log lies on the disk."""
        return self.directory / "wal"

    def open(self, factory: "Factory") -> TamiyoService:
        """Open a service."""
        self.library.listed = ()
        return factory(self)

    def answer(self, service: TamiyoService, data: bytes, *, epoch: bool) -> pb.AdaptationCommand:
        """Let a step run: what hangs misses its deadline, everything else is waited for.

        Lookups that the step itself does not wait for are held until it is over: they count from the next one on.
        """
        self.clock.expire(*self._overdue())
        held = not self.library.is_stuck() and self._is_known(service, data)
        if held:
            self.library.hang()
        try:
            with self._policy_settled():
                return service.evaluate_epoch(data) if epoch else service.evaluate_step(data)
        finally:
            if held:
                self.library.release()

    @contextmanager
    def _policy_settled(self) -> Iterator[None]:
        """A call that nobody waited for has at least begun in the end, and one that was let go has ended."""
        calls, waits, out = self.policy.calls["propose"], self.clock.waits["policy"], self.policy.waiting
        yield
        if len(out) < ABANDONED_MAX:
            calls += self.clock.waits["policy"] - waits
            self._await(lambda: self.policy.calls["propose"] >= calls, "a call of the policy")
        for thread in set(out) - set(self.policy.waiting):
            self._await(lambda: not thread.is_alive(), thread.name)  # noqa: B023  at once

    def _is_known(self, service: TamiyoService, data: bytes) -> bool:
        """Whether the log has an answer for each blueprint that this step may use."""
        try:
            packet = pb.SystemStatePacket.FromString(data)
        except DecodeError:
            return True  # no step at all
        listed = self.library.listed
        host_id = packet.packet_id if packet.packet_id in listed else packet.training_run_id
        known = service.state.blueprints
        return bool(listed) and all(blueprint_id in known for blueprint_id in (host_id, *listed))

    def publish(self, service: TamiyoService) -> bool:
        """Let the service publish; a bus that hangs misses its deadline, and its calls end with the event loop."""
        self.clock.expire(*self._overdue())
        return asyncio.run(service.publish_history(self.bus))

    def _overdue(self) -> list[str]:
        found = {
            "policy": self.policy.is_stuck(),
            "library": self.library.is_stuck(),
            "log": bool(self.disk.hanging & COMMIT_OPS),
            "bus": self.bus.is_stuck(),
        }
        return [call for call, stuck in found.items() if stuck]

    def settle(self, service: TamiyoService) -> None:
        """Wait for lookups, trials and queued batches, unless they hang."""
        for thread in threading.enumerate():
            if thread.name in BACKGROUND:
                self._await(lambda: not thread.is_alive() or self._hangs(thread), thread.name)  # noqa: B023  at once
        self._await(lambda: self._is_written(service), "the log's writer")

    def release_library(self) -> None:
        """Let the library's calls go, one by one, so that the order of their answers is that of their questions."""
        self.library.heal()
        while (thread := self.library.release_one()) is not None:
            self._await(lambda: not thread.is_alive() or self._hangs(thread), thread.name)

    def release_policy(self) -> None:
        """Let the policy's calls go; their threads end, since nobody waits for them any more."""
        self.policy.heal()
        while (thread := self.policy.release_one()) is not None:
            self._await(lambda: not thread.is_alive(), thread.name)

    def release_bus(self) -> None:
        """Let the bus take messages again."""
        self.bus.heal()
        self.bus.release()

    def release_disk(self) -> None:
        """Let the disk work again, with all the room there is."""
        self.disk.heal()
        self.disk.free_space()
        self.disk.release()

    def release_calls(self) -> None:
        """Let the calls of a process go that is no more; new ones find the faults that there are."""
        for collaborator in (self.policy, self.library):
            while (thread := collaborator.release_one()) is not None:
                self._await(lambda: not thread.is_alive(), thread.name)

    def heal(self) -> None:
        """End every fault."""
        self.release_disk()
        self.release_policy()
        self.release_library()
        self.release_bus()

    def calm(self) -> None:
        """A scripted policy proposes nothing risky from now on."""
        if isinstance(self.policy.inner, ScriptedPolicy):
            self.policy.inner.script = CALM

    def abandon(self, service: TamiyoService, image: MemoryDisk) -> None:
        """The process is dead and `image` is its disk; let its threads end, which change nothing any more."""
        self.release_disk()
        self.clock.expire()
        with suppress(wal.LogError, TamiyoError):
            service.close()
        self.release_calls()
        self.memory = image
        self.disk = FaultDisk(image)

    def _hangs(self, thread: threading.Thread) -> bool:
        return thread in self.library.waiting or bool(self.disk.hanging)

    def _is_written(self, service: TamiyoService) -> bool:
        log, state = service.log, service.state
        last_lsn, staged = state.last_lsn, frozenset(state.undecided)
        while last_lsn in staged:  # a packet alone becomes durable with what follows it
            last_lsn -= 1
        return log.failure is not None or bool(self.disk.hanging) or log.durable_lsn >= last_lsn

    def _await(self, holds: Callable[[], bool], what: str) -> None:
        glance, left = threading.Event(), int(GIVE_UP_S / GLANCE_S)
        while not holds():
            left -= 1
            require(left > 0, "what runs in the background comes to an end", f"{what} did not within {GIVE_UP_S:g} s")
            glance.wait(GLANCE_S)


Factory = Callable[[World], TamiyoService]
"""Opens a service on a world's collaborators."""
