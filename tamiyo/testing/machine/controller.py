"""A state machine that drives a real service on a simulated disk, with a second controller beside it.

Rules are what may happen to a controller: packets good and bad, time, collaborators that go wrong and come back, the
death of process or machine, a restart. What must hold all the same is checked after each; docs/testing.md lists it.

Rule: what a rule draws never depends on what the service did, so that an example means the same each time it runs.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from itertools import chain, repeat

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tamiyo.config import Settings
from tamiyo.core.directives import DIRECTIVES
from tamiyo.core.proposal import Proposal
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.service import TamiyoService
from tamiyo.testing.library import MemoryLibrary, MemoryRecord
from tamiyo.testing.machine.subject import Subject
from tamiyo.testing.machine.world import World
from tamiyo.testing.policies import ScriptedPolicy
from tamiyo.testing.strategies import hostile_bytes, malformed_proposals, proposals, records, training_packets
from tamiyo.testing.strategies.proposals import CALM

__all__ = ["SETTINGS", "ControllerMachine", "open_controller"]

SETTINGS = Settings(
    fr_obs_window_epochs=3,  # so that observation windows open and close
    segment_bytes=2**16,  # the least, so that runs of some length cross into another segment
    thresholds=Thresholds(feature_coverage_critical=-1.0, feature_coverage_low=-1.0),  # drawn packets say little
)
"""What `ControllerMachine` opens its service with. Budgets do not matter: the world's clock says when one is over."""

PACKETS = training_packets(packet_ids=("packet-1", "bp-1"))
SECONDS = st.sampled_from((0.01, 0.4, 1.1, 5.0))
CALM_PACKET = pb.SystemStatePacket(
    version=1,
    training_run_id="run-1",
    validation_loss=0.5,
    seed_states=[pb.SeedState(seed_id="seed-calm", stage=pb.SEED_STAGE_TRAINING)],  # grown from nothing risky
).SerializeToString()
OPENING_OPS = ("fdatasync", "pwrite", "pread", "open", "list_dir", "lock", "fallocate", "rename", "fsync_dir")


def open_controller(world: World) -> TamiyoService:
    """Open Tamiyo itself on a world's collaborators: the factory that `ControllerMachine` uses."""
    return TamiyoService.open(
        world.directory,
        policy=world.policy,
        urza=world.library,
        secret=world.secret,
        clock=world.clock,
        disk=world.disk,
        settings=SETTINGS,
    )


class ControllerMachine(RuleBasedStateMachine):
    """Subclass it to run it against a service of your own: override `open_service`, and add rules and invariants.

    `world` has the collaborators, `subject` the service on them and what it acknowledged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.make_policy(), MemoryLibrary())
        self._subject: Subject | None = None
        self._troubled = False  # since everything healed

    def open_service(self, world: World) -> TamiyoService:
        """Open the service under test on the world's collaborators; override it to open yours."""
        return TamiyoService.open(
            world.directory, policy=world.policy, urza=world.library, secret=world.secret, clock=world.clock,
            disk=world.disk, settings=SETTINGS,
        )  # fmt: skip

    def make_policy(self) -> Policy:
        """The policy behind `world.policy`; override it to test yours. Only a `ScriptedPolicy` follows the scripts."""
        return ScriptedPolicy(CALM)

    @property
    def subject(self) -> Subject:
        """The controller under test, from the first rule on."""
        if self._subject is None:
            raise RuntimeError("the machine has not begun: rules run after `begin`")
        return self._subject

    @initialize(given=st.lists(records(), max_size=2))
    def begin(self, given: list[MemoryRecord]) -> None:
        """A library with some blueprints, and a new log."""
        for record in given:
            self.world.known.put(record)
        self._subject = Subject(self.world, self.open_service)

    def teardown(self) -> None:
        """Close and audit, where nothing failed before."""
        if self._subject is None:
            return
        if sys.exc_info()[0] is None:
            self._subject.finish()
        else:
            self._subject.discard()

    # What a trainer does.

    @rule(packet=PACKETS, script=proposals(), epoch=st.booleans())
    def step(self, packet: pb.SystemStatePacket, script: Proposal, epoch: bool) -> None:  # noqa: FBT001
        """A packet is answered, whatever the policy proposes."""
        policy = self.world.policy.inner
        if isinstance(policy, ScriptedPolicy):
            policy.script = script
        self.subject.answer(packet.SerializeToString(), epoch=epoch)

    @rule(steps=st.integers(1, 4), seconds=SECONDS)
    def calm_steps(self, steps: int, seconds: float) -> None:
        """Nothing happens, for a while."""
        self.subject.be_calm(CALM_PACKET, steps=steps, seconds=seconds)

    @rule(data=hostile_bytes())
    def hostile_step(self, data: bytes) -> None:
        """Any bytes: a signed command, or a packet rejected without a trace."""
        try:
            self.subject.answer(data)
        except PacketRejected:
            self.subject.settle()

    @rule(outcome=st.sampled_from(("applied", "refused", "timed_out")), flush=st.booleans())
    def command_delivered(self, outcome: str, flush: bool) -> None:  # noqa: FBT001
        """The seed manager says what became of a command."""
        self.subject.deliver(outcome, flush=flush)

    @rule(directive=st.sampled_from(DIRECTIVES), packet=PACKETS)
    def operator_directs(self, directive: str, packet: pb.SystemStatePacket) -> None:
        """An operator sets or clears conservative mode."""
        self.subject.direct(directive)
        self.subject.answer(packet.SerializeToString())

    @rule()
    def history_is_published(self) -> None:
        """The host flushes: what the log holds goes to the bus."""
        self.subject.publish()

    # What time does.

    @rule(seconds=SECONDS, packet=PACKETS)
    def time_passes(self, seconds: float, packet: pb.SystemStatePacket) -> None:
        """On both clocks."""
        self.world.clock.advance(seconds)
        self.subject.answer(packet.SerializeToString())

    @rule(seconds=st.sampled_from((-86_400.0, -1.0, 1.0, 86_400.0)), packet=PACKETS)
    def wall_clock_jumps(self, seconds: float, packet: pb.SystemStatePacket) -> None:
        """Somebody sets the wall clock."""
        self.world.clock.jump(seconds)
        self.subject.answer(packet.SerializeToString())

    @rule(record=records(), there=st.booleans())
    def library_changes(self, record: MemoryRecord, there: bool) -> None:  # noqa: FBT001
        """A blueprint is added, replaced or withdrawn, and so much time passes that the library is asked again."""
        if there:
            self.world.known.put(record)
        else:
            self.world.known.withdraw("bp-1")
        self.subject.refresh(CALM_PACKET)

    # What goes wrong.

    @rule(
        kind=st.sampled_from(("fail", "hang", "late", "garble", "heal")), answer=malformed_proposals(), packet=PACKETS
    )
    def policy_trouble(self, kind: str, answer: object, packet: pb.SystemStatePacket) -> None:
        """The policy fails, hangs, is late once, talks nonsense, or comes back."""
        policy = self.world.policy
        self._cause(
            {
                "fail": policy.fail,
                "hang": policy.hang,
                "late": lambda: policy.late(times=1),
                "garble": lambda: policy.garble(answer),
                "heal": self.world.release_policy,
            }[kind],
            packet,
        )

    @rule(kind=st.sampled_from(("fail", "hang", "garble", "heal")), packet=PACKETS)
    def library_trouble(self, kind: str, packet: pb.SystemStatePacket) -> None:
        """The library fails, hangs, talks nonsense, or comes back."""
        library = self.world.library
        self._cause(
            {
                "fail": library.fail,
                "hang": library.hang,
                "garble": lambda: library.garble([5]),
                "heal": self.world.release_library,
            }[kind],
            packet,
        )

    @rule(
        kind=st.sampled_from(("fail_sync", "fail_write", "hang_sync", "hang_write", "full", "short", "dead", "heal")),
        packet=PACKETS,
    )
    def disk_trouble(self, kind: str, packet: pb.SystemStatePacket) -> None:
        """The disk fails once or for good, hangs, is full, writes in pieces, or comes back."""
        disk = self.world.disk
        self._cause(
            {
                "fail_sync": lambda: disk.fail("fdatasync", errno.EIO),
                "fail_write": lambda: disk.fail("pwrite", errno.EIO),
                "hang_sync": lambda: disk.hang("fdatasync"),
                "hang_write": lambda: disk.hang("pwrite"),
                "full": disk.no_space,
                "short": lambda: disk.shorten(3),
                "dead": lambda: disk.fail("fdatasync", errno.EIO, forever=True),
                "heal": self.world.release_disk,
            }[kind],
            packet,
        )

    @rule(op=st.sampled_from(("fdatasync", "pwrite")), steps=st.integers(1, 4), packet=PACKETS)
    def commits_are_late(self, op: str, steps: int, packet: pb.SystemStatePacket) -> None:
        """The disk hangs for some steps; at the next one it is back."""
        self.world.disk.hang(op)
        for _ in range(steps):
            self.subject.answer(packet.SerializeToString())
        self._cause(self.world.release_disk, packet)

    @rule(steps=st.integers(1, 4), packet=PACKETS)
    def log_is_busy(self, steps: int, packet: pb.SystemStatePacket) -> None:
        """The disk hangs, and so much is said meanwhile that the log takes no more; some steps later it is back."""
        self._troubled = True
        self.subject.crowd(packet.SerializeToString(), steps=steps)

    @rule(kind=st.sampled_from(("fail", "hang", "heal")))
    def bus_trouble(self, kind: str) -> None:
        """The bus fails, hangs, or comes back."""
        bus = self.world.bus
        self._troubled = True
        {"fail": bus.fail, "hang": bus.hang, "heal": self.world.release_bus}[kind]()
        self.subject.publish()

    @rule()
    def everything_heals(self) -> None:
        """Every fault ends, and the controller is back by itself. Where none was, there is nothing to see."""
        if self._troubled:
            self.subject.recover(CALM_PACKET)
        self._troubled = False

    # What ends a process.

    @rule(failing=st.sampled_from(("", *OPENING_OPS)))
    def restart(self, failing: str) -> None:
        """An orderly end, and a new beginning, perhaps at the second attempt."""
        self.subject.restart(failing=failing)

    @rule(
        operations=st.integers(0, 8),
        packet=PACKETS,
        fate=st.none() | st.lists(st.integers(0, 3), max_size=12),
    )
    def dies(self, operations: int, packet: pb.SystemStatePacket, fate: Sequence[int] | None) -> None:
        """The process dies within a step, after so many operations of the disk.

        What was written is there; but where the machine lost its power too, each unsynced sector is old, new, zero or
        garbage, as `fate` has it.
        """
        self._troubled = True
        memory = self.world.memory
        memory.power_off_after(operations)
        self.subject.answer(packet.SerializeToString())
        choices = chain(fate or (), repeat(0))
        self.subject.die(memory.kill() if fate is None else memory.crash(lambda count: next(choices) % count))

    def _cause(self, trouble: Callable[[], object], packet: pb.SystemStatePacket) -> None:
        """Something changes for the worse or better, and a step meets it."""
        self._troubled = True
        trouble()
        self.subject.settle()
        self.subject.answer(packet.SerializeToString())
