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
from tamiyo.requests import POLICY_INSTALL, POLICY_ROLLBACK
from tamiyo.service import TamiyoService
from tamiyo.testing.library import MemoryLibrary, MemoryRecord
from tamiyo.testing.machine.custodian import AGES_S, Custodian
from tamiyo.testing.machine.meanwhile import MEANWHILE, Meanwhile
from tamiyo.testing.machine.policies import PROBATION
from tamiyo.testing.machine.subject import Subject
from tamiyo.testing.machine.updates import INSTALLS, UPDATES
from tamiyo.testing.machine.world import World
from tamiyo.testing.policies import ScriptedPolicy
from tamiyo.testing.strategies import hostile_bytes, malformed_proposals, proposals, records, training_packets
from tamiyo.testing.strategies.proposals import CALM

__all__ = ["SETTINGS", "ControllerMachine", "open_controller"]

SETTINGS = Settings(
    upkeep_period_ms=600_000,  # never by itself: a flush does the same, when a rule says so
    fr_obs_window_epochs=3,  # so that observation windows open and close
    segment_bytes=2**16,  # the least, so that runs of some length cross into another segment
    log_retention_hours=0.01,  # 36 s, so that there is something to take
    field_report_retention_hours=0.005,
    thresholds=Thresholds(feature_coverage_critical=-1.0, feature_coverage_low=-1.0),  # drawn packets say little
)
"""What `ControllerMachine` opens its service with. Budgets do not matter: the world's clock says when one is over."""

PACKETS = training_packets(packet_ids=("packet-1", "bp-1"))
RETENTIONS_MAX = 1
"""Of one history: each costs as much as ten other rules."""
SECONDS = st.sampled_from((0.01, 0.4, 1.1, 5.0))
CALM_PACKET = pb.SystemStatePacket(
    version=1,
    training_run_id="run-1",
    validation_loss=0.5,
    seed_states=[pb.SeedState(seed_id="seed-calm", stage=pb.SEED_STAGE_TRAINING)],  # grown from nothing risky
).SerializeToString()
LENGTHY_PACKET = pb.SystemStatePacket(  # two of them fill a segment
    version=1,
    training_run_id="run-1",
    validation_loss=0.5,
    seed_states=[pb.SeedState(seed_id="seed-calm", stage=pb.SEED_STAGE_TRAINING)],
    training_metrics={f"{number:0500d}": 1.0 for number in range(80)},
).SerializeToString()
REQUEST_OPS = ("waiting", "read", "done", "answer", "put_aside")
FATES = st.none() | st.lists(st.integers(0, 3), max_size=12)
"""Of the unsynced sectors when the power goes; None where the process alone dies."""
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
        files=world.files,
        load=world.load,
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
        self._retentions = 0

    def open_service(self, world: World) -> TamiyoService:
        """Open the service under test on the world's collaborators; override it to open yours."""
        return open_controller(world)

    def make_policy(self) -> Policy:
        """The host's own policy; override it to test yours. Only a `ScriptedPolicy` follows the scripts."""
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
        try:
            if self._subject is not None and sys.exc_info()[0] is None:
                self._subject.finish()
            elif self._subject is not None:
                self._subject.discard()
        finally:
            self.world.close()

    # What a trainer does.

    @rule(packet=PACKETS, script=proposals(), epoch=st.booleans())
    def step(self, packet: pb.SystemStatePacket, script: Proposal, epoch: bool) -> None:  # noqa: FBT001
        """A packet is answered, whatever the policy proposes."""
        self.world.cast.follow(script)
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

    @rule(
        directive=st.sampled_from((*DIRECTIVES, POLICY_INSTALL, POLICY_ROLLBACK)),
        what=st.sampled_from(INSTALLS),
        damage=st.none() | st.sampled_from((b"", b"{}", b'{"version": 1, "request_id": "r-')),
        failing=st.sampled_from(("", *REQUEST_OPS)),
    )
    def request_is_left(self, directive: str, what: str, damage: bytes | None, failing: str) -> None:
        """The command line leaves a request; the next access of the kind `failing` to the folder fails."""
        if failing:
            self._troubled = True
            self.world.requests.faults.fail(op=failing, times=1)
        self.subject.ask(directive, what=what, damage=damage)

    @rule(sent=st.lists(st.sampled_from(UPDATES), min_size=1, max_size=3), packet=PACKETS)
    def updates_come(self, sent: list[str], packet: pb.SystemStatePacket) -> None:
        """A learner sends policies."""
        for what in sent:
            self.subject.learner.send(self.subject.service, what)
            self.subject.settle()
        self.subject.answer(packet.SerializeToString())

    @rule(proves_itself=st.booleans(), fails=st.booleans())
    def policy_on_probation(self, proves_itself: bool, fails: bool) -> None:  # noqa: FBT001
        """A good policy is sent; it proposes until it is trusted, or not, and then it fails, or not."""
        self.subject.learner.send(self.subject.service, "")
        self.subject.settle()
        if proves_itself:
            self.subject.be_calm(CALM_PACKET, steps=PROBATION, seconds=0.4)
        speaker = self.world.speaker(self.subject.service)
        if fails and speaker is not None:
            speaker.fail(times=1)
        self.subject.answer(CALM_PACKET)
        self.subject.keep_up()

    @rule(kept=st.sampled_from(("gone", "damaged")))
    def checkpoint_is_lost(self, kept: str) -> None:
        """The checkpoint of who speaks is lost, and an operator installs it once more."""
        self.subject.befall_checkpoint(kept)
        self.subject.ask(POLICY_INSTALL, what="again")

    @rule(packet=PACKETS)
    def policy_is_rolled_back(self, packet: pb.SystemStatePacket) -> None:
        """An operator wants the last good policy back."""
        self.subject.learner.roll_back(self.subject.service)
        self.subject.settle()
        self.subject.answer(packet.SerializeToString())

    @rule()
    def history_is_published(self) -> None:
        """The host flushes: what the log holds goes to the bus."""
        self.subject.publish()

    @rule(packet=PACKETS)
    def step_while_publishing(self, packet: pb.SystemStatePacket) -> None:
        """A packet comes while the bus has a message in its hands."""
        self.subject.publish_meanwhile(packet.SerializeToString())

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

    @rule(age_s=st.sampled_from((*AGES_S, 0.0)), rounds=st.sampled_from((1, 1, 2)), asked=st.booleans())
    def old_records_go(self, age_s: float, rounds: int, asked: bool) -> None:  # noqa: FBT001
        """A host has taken what is older than its window, once the log has grown and aged, or as it is."""
        custodian = Custodian(self.subject)
        for number in range(rounds if self._may_retain() else 0):
            head = self.subject.service.log.head()
            if age_s:
                custodian.let_grow(LENGTHY_PACKET, CALM_PACKET, age_s=age_s)
            custodian.retain(keep=None if number else head, asked=asked)

    def _may_retain(self) -> bool:
        self._retentions += 1
        return self._retentions <= RETENTIONS_MAX

    # What goes wrong.

    @rule(
        kind=st.sampled_from(("fail", "hang", "late", "garble", "heal")), answer=malformed_proposals(), packet=PACKETS
    )
    def policy_trouble(self, kind: str, answer: object, packet: pb.SystemStatePacket) -> None:
        """The policy fails, hangs, is late once, talks nonsense, or comes back."""
        policy = self.world.speaker(self.subject.service) or self.world.cast.host
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
        kind=st.sampled_from(
            ("fail_sync", "fail_write", "hang_sync", "hang_write", "hang_read", "full", "short", "dead", "heal")
        ),
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
                "hang_read": lambda: disk.hang("pread"),
                "full": disk.no_space,
                "short": lambda: disk.shorten(3),
                "dead": lambda: disk.fail("fdatasync", errno.EIO, forever=True),
                "heal": self.world.release_disk,
            }[kind],
            packet,
        )

    @rule(op=st.sampled_from(("fdatasync", "pwrite")), steps=st.integers(1, 4), packet=PACKETS)
    def commits_are_late(self, op: str, steps: int, packet: pb.SystemStatePacket) -> None:
        """The disk hangs for some steps, an operator, a flush and the bus; at the next step it is back."""
        self.world.disk.hang(op)
        for _ in range(steps):
            self.subject.answer(packet.SerializeToString())
        self.subject.publish()
        self.subject.direct("conservative_off")
        self.subject.keep_up()
        self._cause(self.world.release_disk, packet)

    @rule(
        op=st.sampled_from(("fdatasync", "pwrite")),
        deeds=st.sampled_from(MEANWHILE),
        packet=PACKETS,
        dies=st.booleans(),
        fate=FATES,
    )
    def policies_come_while_commits_are_late(
        self,
        op: str,
        deeds: Sequence[str],
        packet: pb.SystemStatePacket,
        dies: bool,  # noqa: FBT001
        fate: Sequence[int] | None,
    ) -> None:
        """The disk hangs, and policies come and go, by a call or a request; then it is back, or the process dies."""
        meanwhile = Meanwhile(self.subject)
        self.world.disk.hang(op)
        meanwhile.do(deeds, packet.SerializeToString())
        self._troubled = True
        if dies:
            self._die(fate)
        self._cause(self.world.release_disk, packet)
        self.subject.keep_up()

    @rule(steps=st.integers(1, 4), packet=PACKETS)
    def log_is_busy(self, steps: int, packet: pb.SystemStatePacket) -> None:
        """The disk hangs, and so much is said meanwhile that the log takes no more; some steps later it is back."""
        self._troubled = True
        self.subject.crowd(packet.SerializeToString(), steps=steps)

    @rule(kind=st.sampled_from(("fail", "hang", "refuse", "heal")))
    def bus_trouble(self, kind: str) -> None:
        """The bus fails, hangs, refuses one packet of telemetry for good, or comes back."""
        bus, book = self.world.bus, self.subject.shadow.bus
        self._troubled = True
        if kind == "refuse":
            bus.refuse(*book.next_telemetry())
        else:
            {"fail": bus.fail, "hang": bus.hang, "heal": self.world.release_bus}[kind]()
        self.subject.publish()

    @rule()
    def everything_heals(self) -> None:
        """Every fault ends, and the controller is back by itself. Where none was, there is nothing to see."""
        if self._troubled:
            self.subject.recover(CALM_PACKET)
        self._troubled = False

    # What ends a process.

    @rule(
        failing=st.sampled_from(("", *OPENING_OPS)),
        host_gives=st.booleans(),
        kept=st.sampled_from(("whole", "gone", "damaged")),
    )
    def restart(self, failing: str, host_gives: bool, kept: str) -> None:  # noqa: FBT001
        """An orderly end, and a new beginning, perhaps at the second attempt; the host's own policy speaks, or not."""
        self.subject.restart(failing=failing, host_gives=host_gives, kept=kept)

    @rule(
        operations=st.integers(0, 8),
        packet=PACKETS,
        fate=FATES,
    )
    def dies(self, operations: int, packet: pb.SystemStatePacket, fate: Sequence[int] | None) -> None:
        """The process dies within a step, after so many operations of the disk.

        What was written is there; but where the machine lost its power too, each unsynced sector is old, new, zero or
        garbage, as `fate` has it.
        """
        self._troubled = True
        self.world.memory.power_off_after(operations)
        self.subject.answer(packet.SerializeToString())
        self._die(fate)

    @rule(
        deed=st.sampled_from(("publish", *DIRECTIVES, POLICY_INSTALL, POLICY_ROLLBACK, "update")),
        operations=st.integers(0, 8),
        stays=st.booleans(),
        fate=FATES,
    )
    def dies_beside_the_steps(self, deed: str, operations: int, stays: bool, fate: Sequence[int] | None) -> None:  # noqa: FBT001
        """The process dies while it publishes, takes up a request, whose file is there or not by then, or an update."""
        self._troubled = True
        self.world.memory.power_off_after(operations)
        if deed == "publish":
            self.subject.publish()
        elif deed == "update":
            self.subject.learner.send(self.subject.service, "")
        else:
            if stays:
                self.world.requests.faults.fail(op="done")
            self.subject.ask(deed, what="")
        self._die(fate)

    @rule(operations=st.integers(0, 40), age_s=st.sampled_from(AGES_S), asked=st.booleans(), fate=FATES)
    def dies_amid_retention(
        self,
        operations: int,
        age_s: float,
        asked: bool,  # noqa: FBT001
        fate: Sequence[int] | None,
    ) -> None:
        """The process dies while old records go; the next one takes what is due, as it was planned then."""
        if self._may_retain():
            custodian = Custodian(self.subject)
            head = self.subject.service.log.head()
            custodian.let_grow(LENGTHY_PACKET, CALM_PACKET, age_s=age_s)
            self._troubled = True
            custodian.die(keep=head, asked=asked, operations=operations)
            self._die(fate)
            Custodian(self.subject).retain(keep=self.subject.service.log.head())

    def _die(self, fate: Sequence[int] | None) -> None:
        memory, choices = self.world.memory, chain(fate or (), repeat(0))
        image = memory.kill() if fate is None else memory.crash(lambda count: next(choices) % count)
        self.subject.die(image, lost_power=fate is not None)

    def _cause(self, trouble: Callable[[], object], packet: pb.SystemStatePacket) -> None:
        """Something changes for the worse or better, and a step meets it."""
        self._troubled = True
        trouble()
        self.subject.settle()
        self.subject.answer(packet.SerializeToString())
