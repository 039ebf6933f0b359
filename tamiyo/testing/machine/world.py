"""What one controller lives in: a disk, a clock, policies, a library, a bus and files, all of which can go wrong.

Rule: whatever runs in the background is waited for, except what hangs by order. So a step's outcome does not depend on
how fast this machine's threads are, and what failed once fails again.
"""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

import wal
from tamiyo.errors import TamiyoError
from tamiyo.files import Files
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.policy.store import MemoryStore
from tamiyo.service import TamiyoService
from tamiyo.speakers import Load
from tamiyo.testing.bus import MemoryBus
from tamiyo.testing.clock import FaultClock
from tamiyo.testing.library import FaultLibrary, MemoryLibrary
from tamiyo.testing.machine.cast import Cast
from tamiyo.testing.machine.law import LawBroken, require
from tamiyo.testing.policies import FaultPolicy
from tamiyo.testing.requests import FaultRequests
from tamiyo.testing.strategies.proposals import CALM
from wal.testing import FaultDisk, MemoryDisk

__all__ = ["CALLS_WAIT", "STEPS_WAIT", "Factory", "World"]

COMMIT_OPS = frozenset({"pwrite", "fdatasync"})
"""Operations of the disk that stand between a batch and its durability."""
READ_OPS = frozenset({"pread", "open"})
"""Those that reading the log takes."""
POLICY_JOB = "tamiyo-policy-job"
BACKGROUND = ("tamiyo-lookups", "tamiyo-log-trial", "tamiyo-outbox", POLICY_JOB, "tamiyo-retention")
ABANDONED_MAX = 4
"""With so many calls out that nobody waits for, a service does not ask again."""
STEPS_WAIT = "a step never waits beyond its budget"
CALLS_WAIT = "a call that is to be durable later waits for no disk"
GIVE_UP_S = 60.0
PIECES = 20
GLANCE_S = 0.0005


class World:
    """The collaborators of one controller, and what happens to it between steps.

    A factory opens a service on them: `directory`, `disk`, `files`, `clock`, `policy`, `load`, `library`, `secret`.
    What it publishes goes to `bus`, which outlives every process, as the requests and checkpoints in `files` do.
    """

    def __init__(self, policy: Policy, library: MemoryLibrary) -> None:
        self.directory = Path("/controller")
        self.memory = MemoryDisk()
        self.disk = FaultDisk(self.memory)
        self.clock = FaultClock()
        self.cast = Cast(policy)
        self.host_gives = True
        """Whether the host gives its own policy when it opens the service."""
        self.checkpoints = MemoryStore()
        self._folder = tempfile.TemporaryDirectory(prefix="tamiyo-machine-")
        self.requests = FaultRequests(Path(self._folder.name))
        self.known = library
        self.library = FaultLibrary(library)
        self.bus = MemoryBus()
        self.published_at: list[int] = []
        """How far the log was durable when each message of the bus was handed over."""
        self.secret = b"a secret for machines and nobody else"

    @property
    def policy(self) -> Policy | None:
        """What the host gives when it opens the service, None where it leaves that to the log."""
        return self.cast.host if self.host_gives else None

    @property
    def load(self) -> Load:
        """What makes a policy of a checkpoint."""
        return self.cast.load

    @property
    def files(self) -> Files:
        """What lies beside the log."""
        return Files(policies=self.checkpoints, requests=self.requests)

    @property
    def commits_hang(self) -> bool:
        """Whether the disk keeps batches from being durable."""
        return bool(self.disk.hanging & COMMIT_OPS)

    def close(self) -> None:
        """Remove what lies on the real disk."""
        self._folder.cleanup()

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
        self.clock.expire(*self._overdue(service))
        held = not self.library.is_stuck() and self._is_known(service, data)
        if held:
            self.library.hang()
        try:
            with self._policy_settled(self.speaker(service)), self.in_time(STEPS_WAIT):
                return service.evaluate_epoch(data) if epoch else service.evaluate_step(data)
        finally:
            if held:
                self.library.release()

    def speaker(self, service: TamiyoService) -> FaultPolicy | None:
        """Who speaks now, where that is one of the cast: of a version that was loaded twice the one that is asked."""
        policy = service.policy
        return policy if isinstance(policy, FaultPolicy) else None

    @contextmanager
    def _policy_settled(self, policy: FaultPolicy | None) -> Iterator[None]:
        """A call that nobody waited for has at least begun in the end, and one that was let go has ended."""
        if policy is None:
            yield
            return
        calls, waits, out = self.cast.asked().total(), self.clock.waits["policy"], self._out()
        yield
        if len(out) < ABANDONED_MAX:
            calls += self.clock.waits["policy"] - waits
            self._await(lambda: self.cast.asked().total() >= calls, "a call of the policy")
        for thread in out - self._out():
            self._await(lambda: not thread.is_alive(), thread.name)  # noqa: B023  at once

    def _out(self) -> set[threading.Thread]:
        """The threads that wait for a policy."""
        return {thread for policy in self.cast.all() for thread in policy.waiting}

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
        self.clock.expire(*self._overdue(service))
        return self._publish(service)

    def publish_meanwhile(self, service: TamiyoService, deed: Callable[[], object]) -> None:
        """Let the service publish, and do something while the bus holds on to the first message."""
        self.clock.expire(*(call for call in self._overdue(service) if call != "bus"))
        was_stuck = self.bus.is_stuck()
        self.bus.hang()
        thread = threading.Thread(target=self._publish, args=(service,), daemon=True)
        thread.start()
        self._await(lambda: bool(self.bus.waiting) or not thread.is_alive(), "what is published")
        with _watchdog(self.bus.release) as stalled:
            try:
                deed()
            finally:
                self.bus.release()
                self.clock.expire(*self._overdue(service))
                thread.join(GIVE_UP_S)
        require(not stalled.is_set() and not thread.is_alive(), "publishing holds up no step")
        if was_stuck:
            self.bus.hang()

    @contextmanager
    def in_time(self, law: str) -> Iterator[None]:
        """What is done inside waits for no commit that hangs; else the disk is let go in the end: the law is broken."""
        if not self.commits_hang:
            yield
            return
        with _watchdog(self.release_disk) as stalled:
            try:
                yield
            finally:
                require(not stalled.is_set(), law, f"it had waited for {GIVE_UP_S:g} s when the disk was let go")

    def do_beside(self, deed: Callable[[], object], meanwhile: Callable[[], object]) -> None:
        """Do something on a thread of its own, then what comes meanwhile, also where the deed never ends."""
        done: Future[object] = Future()

        def run() -> None:
            try:
                done.set_result(deed())
            except BaseException as error:  # noqa: BLE001  whatever it was, it is raised below
                done.set_exception(error)

        threading.Thread(target=run, name="beside the steps", daemon=True).start()
        _in_pieces(lambda piece_s: bool(wait([done], piece_s).done))
        meanwhile()
        if not done.done():
            self.release_disk()
            raise LawBroken(CALLS_WAIT, f"what was done beside the steps had not ended after {GIVE_UP_S:g} s")
        done.result()

    def flush_beside(self, service: TamiyoService) -> None:
        """A flush while commits hang; policy jobs that it begins have ended then, or wait for the disk."""
        in_force, jobs = service.state.policies, _policy_jobs()
        service.flush(0.0)
        for job in _policy_jobs() - jobs:
            self._await(lambda: not job.is_alive() or service.state.policies is not in_force, job.name)  # noqa: B023

    def _publish(self, service: TamiyoService) -> bool:
        return asyncio.run(service.publish_history(_Witness(self.bus, service, self.published_at)))

    def _overdue(self, service: TamiyoService) -> list[str]:
        policy = self.speaker(service)
        found = {
            "policy": policy is not None and policy.is_stuck(),
            "library": self.library.is_stuck(),
            "log": self.commits_hang,
            "outbox": bool(self.disk.hanging & READ_OPS),
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
        for policy in self.cast.all():
            policy.heal()
            while (thread := policy.release_one()) is not None:
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
        for collaborator in (*self.cast.all(), self.library):
            while (thread := collaborator.release_one()) is not None:
                self._await(lambda: not thread.is_alive(), thread.name)

    def heal(self) -> None:
        """End every fault."""
        self.release_disk()
        self.release_policy()
        self.release_library()
        self.release_bus()
        self.requests.faults.heal()

    def calm(self) -> None:
        """Scripted policies propose nothing risky from now on."""
        self.cast.follow(CALM)

    def abandon(self, service: TamiyoService, image: MemoryDisk) -> None:
        """The process is dead and `image` is its disk; let its threads end, which change nothing any more."""
        self.release_disk()
        self.clock.expire()
        with suppress(wal.LogError, TamiyoError):
            service.close()
        self.release_calls()
        self.requests.faults.heal()
        self.memory = image
        self.disk = FaultDisk(image)

    def _hangs(self, thread: threading.Thread) -> bool:
        if thread.name == POLICY_JOB:
            return self.commits_hang
        # Where reads alone hang, what does not read goes on: a flush may take up a request, and then read.
        return thread in self.library.waiting or self.commits_hang or thread in self.disk.waiting

    def _is_written(self, service: TamiyoService) -> bool:
        log, state = service.log, service.state
        last_lsn, staged = state.last_lsn, frozenset(state.undecided)
        while last_lsn in staged:  # a packet alone becomes durable with what follows it
            last_lsn -= 1
        return log.failure is not None or self.commits_hang or log.durable_lsn >= last_lsn

    def _await(self, holds: Callable[[], bool], what: str) -> None:
        glance, left = threading.Event(), int(GIVE_UP_S / GLANCE_S)
        while not holds():
            left -= 1
            require(left > 0, "what runs in the background comes to an end", f"{what} did not within {GIVE_UP_S:g} s")
            glance.wait(GLANCE_S)


@contextmanager
def _watchdog(let_go: Callable[[], object]) -> Iterator[threading.Event]:
    """Where what is done inside takes so long that it never ends, `let_go` is called, and the event set before."""
    ended, stalled = threading.Event(), threading.Event()

    def watch() -> None:
        if not _in_pieces(ended.wait):
            stalled.set()
            let_go()

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield stalled
    finally:
        ended.set()


def _in_pieces(holds_within: Callable[[float], bool]) -> bool:
    """Whether it holds within `GIVE_UP_S`, a piece at a time: a machine that stood still meanwhile lost one piece."""
    return any(holds_within(GIVE_UP_S / PIECES) for _ in range(PIECES))


def _policy_jobs() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == POLICY_JOB}


@dataclass(slots=True)
class _Witness:
    """The bus as a service sees it; of each message that is taken it puts down how far the log was durable before."""

    bus: MemoryBus
    service: TamiyoService
    published_at: list[int] = field(default_factory=list)

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        durable_lsn = self.service.log.durable_lsn
        await self.bus.publish(stream, message_id, payload, attributes)
        self.published_at.append(durable_lsn)


Factory = Callable[[World], TamiyoService]
"""Opens a service on a world's collaborators."""
