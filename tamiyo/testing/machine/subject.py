"""A controller under test: what is done to it, what it acknowledged, and the checks after each deed."""

import errno
from contextlib import suppress

import wal
from tamiyo.errors import NotRecorded, PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.requests import POLICY_INSTALL, RETAIN
from tamiyo.signing import signature_of
from tamiyo.speakers import baseline_speaker
from tamiyo.testing.machine.commands import check_command, is_bare, unsigned
from tamiyo.testing.machine.law import LawBroken, require
from tamiyo.testing.machine.monotone import CHAINS, check_monotone
from tamiyo.testing.machine.policies import IN_FORCE
from tamiyo.testing.machine.retention import audited
from tamiyo.testing.machine.shadow import Shadow
from tamiyo.testing.machine.updates import Learner
from tamiyo.testing.machine.world import CALLS_WAIT, Factory, World
from wal.testing import MemoryDisk

__all__ = ["Subject"]

SURVIVES = "what was acknowledged survives"
SIGNALS = tuple(CHAINS)
WHOLE = ("intact", "torn", "pruned", "redacted")  # what is torn was never acknowledged
QUEUED_MAX = 1_024
"""Batches that wait for the disk at a time, at most."""
RECOVERY_STEPS = 6
RECOVERY_PAUSE_S = 1.5
RETRY_PAUSE_S = 10.0
REFRESH_S = 301.0
TICK_SLACK_NS = 1_000_000
"""What readings of the clock may add to event time within one step."""


class Subject:
    """A service in its world, and the second controller that follows its log.

    `acknowledged` are the commands given out on the log's word, unsigned, by id; `released` the ids of the safe PAUSEs;
    `answered` counts steps, as far as a log that lost power can know of them; `directed` are the reasons of directives,
    `delivered` the (command id, outcome) of deliveries, that were said to be durable.
    """

    def __init__(self, world: World, factory: Factory) -> None:
        self.world = world
        self.acknowledged: dict[str, bytes] = {}
        self.released: set[str] = set()
        self.answered = 0
        self.directed: set[str] = set()
        self.delivered: set[tuple[str, str]] = set()
        self._told: set[tuple[str, str]] = set()  # and perhaps not durable yet
        self._asked = 0
        self._signal = 0  # of SIGNALS
        self._lost: set[str] = set()  # checkpoints that something happened to
        self._factory = factory
        self.shadow = Shadow(world)
        self.learner = Learner(world, {})
        self._open()
        self.settle()

    def _open(self) -> None:
        """Open, or open again; whatever the disk has been through, it must come up."""
        try:
            self.service = self.world.open(self._factory)
        except wal.LogError as error:
            raise LawBroken("a log opens again after its process or machine died", str(error)) from error
        self._opened_lsn = self.service.state.last_lsn
        self.shadow.retention.windows = self.service.settings.windows()
        self._require_speaker()

    # What happens to it.

    def answer(self, data: bytes, *, epoch: bool = False) -> pb.AdaptationCommand:
        """One step, after which the log is folded from its first record. Raises as `_answer`."""
        command = self._answer(data, epoch=epoch)
        self.shadow.rebuild(self.service)
        return command

    def _answer(self, data: bytes, *, epoch: bool = False) -> pb.AdaptationCommand:
        """One step. Raises `PacketRejected` as the service does; it must then have left no trace."""
        speaks, spoken = self.service.state.policy_version, self.world.cast.asked_by_steps()
        asked = sum(self.world.library.calls.values())
        may_ask = [self._may_ask(name) for name in ("inference", "metadata")]
        try:
            command = self.world.answer(self.service, data, epoch=epoch)
        except PacketRejected:
            require(self.service.journal.steps_seen == self.answered, "a rejected packet is no step")
            raise
        self.answered += 1
        self._take(command)
        self.settle()
        law = "while a breaker is open its call is not attempted"
        proposals = self.world.cast.asked_by_steps() - spoken
        require(may_ask[0] or not proposals, law, "the policy was asked")
        require(may_ask[1] or sum(self.world.library.calls.values()) == asked, law, "the library was asked")
        require(proposals.keys() <= {speaks}, IN_FORCE, f"{dict(proposals)}, and {speaks!r} is in force")
        require(proposals[speaks] <= 1, "a step asks its policy once", proposals)
        if command.command_id in self.acknowledged:
            self._require_told()
        self._check_monotone()
        return command

    def settle(self) -> None:
        """Wait for what goes on in the background, then check everything."""
        self.world.settle(self.service)
        self.shadow.follow(self.service)
        self.shadow.compare(self.service)
        require(self.service.journal.steps_seen == self.answered, "every answered step is counted", self.answered)
        told = self.shadow.decisions.released
        require(told <= self.released, "the log tells of no PAUSE that was not released", told - self.released)
        late = self.shadow.decisions.superseded & self.acknowledged.keys()
        require(not late, "a command that was given out is superseded by nothing", late)
        self.shadow.bus.check(self.shadow.decisions.superseded)
        self.shadow.requests.check()

    def _check_monotone(self) -> None:
        """Decide the step just recorded again, with more and more of one signal: another one each time.

        Where it was commanded to PAUSE there is nothing to see.
        """
        step, self.shadow.last_step = self.shadow.last_step, None
        if step is None or step.inputs is None or step.is_pause:
            return
        self._signal = (self._signal + 1) % len(SIGNALS)
        check_monotone(step.state, step.inputs, SIGNALS[self._signal])

    def refresh(self, data: bytes) -> None:
        """Let so much time pass that every blueprint is looked up again."""
        self.world.clock.advance(REFRESH_S)
        self.answer(data)

    def direct(self, directive: str) -> None:
        """An operator asks for something."""
        self._asked += 1
        reason = f"reason {self._asked}"
        try:
            with self.world.in_time(CALLS_WAIT):
                durable = self.service.direct(directive, operator="ada", reason=reason, timeout_s=self._patience_s)
        except NotRecorded:
            return
        if durable:
            self.directed.add(reason)
        self.settle()

    def crowd(self, data: bytes, *, steps: int) -> None:
        """Say so much while the disk hangs that the log is busy, take some steps, and let it go on.

        Of a log that was well and lives on, all that it took is there afterwards, and it is told what it refused.
        """
        log, book = self.service.log, self.shadow.decisions
        well = self.is_well and not self.world.disk.hanging
        well = well and self.service.state.steps_received == self.answered
        unrecorded, timed_out = book.unrecorded, book.timed_out
        self.world.disk.hang("pwrite")
        with self.world.in_time(CALLS_WAIT):
            taken = self._say_until_refused()
        reasons = [self._answer(data).annotations["risk_reason"] for _ in range(steps)]
        self.world.release_disk()
        self.settle()
        told = self.answer(data).command_id in self.acknowledged
        if not (well and told and self.service.log is log and log.failure is None):
            return
        law = "a busy log keeps what it took, and is told of what it refused"
        require(taken <= book.directives, law, taken - book.directives)
        refused = book.unrecorded - unrecorded
        require(refused == steps, law, f"{steps} steps were refused ({reasons}), and {refused} told of")
        late = reasons.count("timeout_wal")
        require(book.timed_out - timed_out == late, law, f"{late} steps timed out ({reasons})")

    def _say_until_refused(self) -> set[str]:
        """An operator says so much that the log is busy: the reasons that it took."""
        taken = set[str]()
        for _ in range(QUEUED_MAX + 1):
            self._asked += 1
            reason = f"reason {self._asked}"
            try:
                self.service.direct("conservative_off", operator="ada", reason=reason, timeout_s=0.0)
            except NotRecorded:
                return taken
            taken.add(reason)
        raise LawBroken("what waits for a disk that hangs is bounded", f"{len(taken)} directives were taken")

    def deliver(self, outcome: str, *, flush: bool) -> None:
        """Somebody says what became of the last command that was given out."""
        command_id = next(reversed(self.acknowledged), "of nobody")
        if self.service.record_delivery(command_id, outcome):
            self._told.add((command_id, outcome))
        if flush and self.keep_up():
            self.delivered |= self._told
            self._told = set()
        self.settle()

    def keep_up(self) -> bool:
        """A flush, as a host's worker has it: whether all is durable."""
        if self._would_run_beside:
            return False
        well, log, book = self.is_well, self.service.log, self.shadow.policies
        alone = not any(left.is_job for left in self.shadow.requests.left.values())
        failing, last_lsn = book.speaks if book.gives_way else "", self._last_lsn
        with self.world.in_time(CALLS_WAIT):
            durable = self.service.flush(self._patience_s)
        if durable:
            lost = log is self.service.log and log.failure is None and last_lsn > log.durable_lsn
            require(not lost, "a flush that says so has made all durable", f"{last_lsn} of {log.durable_lsn}")
        self.settle()
        if alone and well and self.is_well and self.service.log is log:  # beside a job it is looked at the next time
            require(book.speaks != failing, "a policy that fails on probation gives way", failing)
        return durable

    @property
    def _would_run_beside(self) -> bool:
        """Whether a job would be begun that waits for the disk: what it does meanwhile is up to the machine's speed."""
        left = self.shadow.requests.left.values()
        reads_hang = bool(self.world.disk.hanging) and any(one.directive == RETAIN for one in left)
        return reads_hang or (self.world.commits_hang and any(one.is_job for one in left))

    @property
    def is_well(self) -> bool:
        """Whether the log takes records now."""
        return self.service.journal.refusal() is None and not self.world.commits_hang

    @property
    def _last_lsn(self) -> int:
        """The last record that waits for nothing: a packet alone becomes durable with what follows it."""
        state = self.service.state
        last_lsn, staged = state.last_lsn, frozenset(state.undecided)
        while last_lsn in staged:
            last_lsn -= 1
        return last_lsn

    def ask(
        self, directive: str, *, what: str = "", damage: bytes | None = None, keep_heads: tuple[str, ...] = ()
    ) -> None:
        """Somebody leaves a request: an installation of `what`, retention with `keep_heads`, or a damaged one."""
        request_id, data = self.leave(directive, what=what, damage=damage, keep_heads=keep_heads)
        for _ in range(2):  # a job is answered in the flush after it has ended
            self.keep_up()
        held = self.service.state.policies.current
        taken_up = damage is None and request_id not in self.shadow.requests.left  # a damaged one is moved aside unread
        if taken_up and held is not None and self.learner.made.get(held.version) == data:
            there = self.world.checkpoints.holds(held.checkpoint_digest)
            require(there, "installing who speaks puts a lost checkpoint back", held)

    def leave(
        self, directive: str, *, what: str = "", damage: bytes | None = None, keep_heads: tuple[str, ...] = ()
    ) -> tuple[str, bytes]:
        """Leave a request that nobody takes up yet: its id, and the checkpoint that it wants installed."""
        checkpoint, data = "", b""
        if directive == POLICY_INSTALL:
            data = self.learner.wanted(self.service, what)
            path = self.world.requests.path.parent / f"{len(self.learner.made)}.checkpoint"
            path.write_bytes(data)
            checkpoint = str(path)
        self._asked += 1
        reason, leave = f"reason {self._asked}", self.shadow.requests.leave
        return leave(directive, reason=reason, checkpoint=checkpoint, damage=damage, keep_heads=keep_heads), data

    def publish_meanwhile(self, data: bytes) -> None:
        """A step is answered while the bus takes its time."""
        if self._would_run_beside:
            return
        self.world.publish_meanwhile(self.service, lambda: self._answer(data))
        self.settle()

    def publish(self) -> bool:
        """Hand over to the bus what is due."""
        if self._would_run_beside:
            return False
        asked, may_ask = self.world.bus.calls["publish"], self._may_ask("publishing")
        complete = self.world.publish(self.service)
        law = "while a breaker is open its call is not attempted"
        require(may_ask or self.world.bus.calls["publish"] == asked, law, "the bus was asked")
        self.settle()
        return complete

    @property
    def _patience_s(self) -> float:
        """How long to wait for the disk, in the machine's time: not at all where it hangs."""
        return 0.0 if self.world.commits_hang else 60.0

    def be_calm(self, data: bytes, *, steps: int, seconds: float) -> None:
        """Several steps of the same kind, so much time apart."""
        for _ in range(steps):
            self.world.clock.advance(seconds)
            self._answer(data)
        self.shadow.rebuild(self.service)

    def recover(self, data: bytes) -> None:
        """End every fault: within a few calm steps the controller must be back by itself, and all of it published."""
        self.world.heal()
        self.world.calm()
        self.settle()
        for _ in range(RECOVERY_STEPS):
            self.keep_up()
            self.world.clock.advance(RECOVERY_PAUSE_S)
            last = self._answer(data)
        self.shadow.rebuild(self.service)
        law = "it recovers by itself when the fault ends"
        require(last.command_id in self.acknowledged, law, last)
        state = self.service.state
        closed = {name: breaker.state for name, breaker in state.breakers.items() if name in ("inference", "log")}
        require(set(closed.values()) == {pb.CIRCUIT_STATE_CLOSED}, law, closed)
        by_operator = bool(state.conservative.operator)
        require(state.conservative.active == by_operator, law, state.conservative)
        for _ in range(RECOVERY_STEPS):
            self.keep_up()
        left = self.shadow.requests.left
        require(not left, "every request is taken up once the log takes records", left)
        self._publish_everything()

    def _require_told(self) -> None:
        """What was answered since the service opened is in the log, or the log says what was released in its place."""
        law = "the log is told of every step and every PAUSE once it takes records again"
        book = self.shadow.decisions
        require(self.service.state.steps_received == self.answered, law, self.answered)
        decided = [command_id for lsn, command_id in book.decided if lsn > self._opened_lsn]
        untold = [name for name in decided if name not in self.acknowledged and name not in book.superseded]
        require(not untold, law, f"decided, and neither given out nor superseded: {untold}")
        waiting = [lsn for lsn in book.undecided if lsn > self._opened_lsn]
        require(not waiting, law, f"received, and neither decided nor paused: {waiting}")

    def _publish_everything(self) -> None:
        """At least once: every report is taken by the bus in the end, unless it was dropped; none before its time."""
        for _ in range(RECOVERY_STEPS):
            if self.publish():
                break
            self.world.clock.advance(RETRY_PAUSE_S)
        state, book = self.service.state, self.shadow.decisions
        law = "what is issued is published in the end, at least once"
        require(not state.outbox.retries, law, state.outbox)
        untold = self.shadow.bus.unpublished(self.service.state.outbox.telemetry_lsn)
        require(not untold, law, untold)
        taken = set(self.world.bus.ids())
        late = {f"fr-{command_id}" for command_id in book.superseded}
        missing = book.reports.keys() - taken - book.dropped - late
        require(not missing, law, missing)

    def restart(self, *, failing: str = "", host_gives: bool = True, kept: str = "whole") -> None:
        """Close, and open again; the first attempt meets an error in the disk operation `failing`, if one is named.

        `host_gives` is whether the host brings its own policy then, `kept` what becomes of the installed one's
        checkpoint meanwhile: it is "whole", "gone" or "damaged".
        """
        self.world.release_disk()
        self.settle()
        with suppress(wal.LogFailed):
            self.service.close()
        self.world.release_calls()
        self.world.host_gives = host_gives
        self.befall_checkpoint(kept)
        if failing:
            self.world.disk.fail(failing, errno.EIO)
            with suppress(wal.LogError):
                self.world.open(self._factory).close()
            self.world.disk.heal()
        self._reopened()

    def die(self, image: MemoryDisk, *, lost_power: bool) -> None:
        """The process is gone; `image` is what its disk holds when it comes up again."""
        self.world.abandon(self.service, image)
        self.shadow.requests.check()
        if lost_power:
            self.shadow.requests.lose_power()
        self._reopened()

    def befall_checkpoint(self, kept: str) -> None:
        """The checkpoint of the installed policy is "gone" or "damaged" from now on, or "whole" as it was."""
        held = self.service.state.policies.current
        if held is None or kept == "whole":
            return
        self._lost.add(held.checkpoint_digest)
        self.world.checkpoints.kept.pop(held.checkpoint_digest, None)
        if kept == "damaged":
            self.world.checkpoints.kept[held.checkpoint_digest] = b"something else"

    def finish(self) -> None:
        """Close in peace, and audit the log from its first byte."""
        self.world.heal()
        self.settle()
        with suppress(wal.LogFailed):
            self.service.close()
        path, disk = self.world.log_path, self.world.memory
        verdict = wal.verify(path, disk=disk)
        require(verdict.status in WHOLE, "the log is intact (audit level 1)", verdict)
        found, again = audited(list(wal.read(path, None, disk=disk)))
        require(found.divergence is None, "every decision follows from its record (audit level 2)", found.divergence)
        require(again.divergence is None, "every graph is what its step was shown (audit level 3)", again.divergence)

    def check_left(self) -> None:
        """After retention: what is left is as the plans say, whole, comes to the same state, and proves the heads."""
        self.shadow.require_kept(self.service, SURVIVES)
        self.shadow.refold(self.service)
        for head in sorted(self.shadow.retention.heads, key=lambda head: head.size):
            found = wal.verify(self.world.log_path, head, disk=self.world.memory)
            require(found.expected == "confirmed", "a head that a run promised to keep stays provable", found)

    def discard(self) -> None:
        """Let go of everything, whatever state it is in."""
        self.world.abandon(self.service, self.world.memory.kill())

    # What must hold.

    def _take(self, command: pb.AdaptationCommand) -> None:
        """A command reached the trainer: it is whole, signed, and durable or the safe PAUSE."""
        check_command(command)
        signed = command.annotations["signature"] == signature_of(command, self.world.secret)
        require(signed, "every command is signed and verifiable", command)
        self.shadow.follow(self.service)
        recorded = self.shadow.decisions.commands.get(command.command_id)
        if recorded is None:
            require(is_bare(command), "nothing but a safe PAUSE leaves without a durable record", command)
            self.released.add(command.command_id)
            return
        require(recorded == unsigned(command), "what is signed is what is durable", command)
        self.acknowledged[command.command_id] = recorded

    def _require_speaker(self) -> None:
        """Who speaks in the service just opened: the host's own, else the installed one, else the baseline."""
        state = self.service.state
        held = state.policies.current
        self._lost = {digest for digest in self._lost if not self.world.checkpoints.holds(digest)}
        expected = baseline_speaker().identity.version
        if self.world.policy is not None:
            expected = self.world.policy.identity.version
        elif held is not None and held.checkpoint_digest not in self._lost:
            expected = held.version
        law = "who speaks is the host's own policy, else the one installed last, else the baseline"
        require(state.policy_version == expected, law, f"{state.policy_version!r}, not {expected!r}")

    def _may_ask(self, breaker: str) -> bool:
        return self.shadow.breakers.admits(breaker, self.service.journal.now_ns() + TICK_SLACK_NS)

    def _reopened(self) -> None:
        """What the log had acknowledged is there; steps that it could not record may be forgotten."""
        self._open()
        self.shadow.require_kept(self.service, SURVIVES)
        recorded = self.service.state.steps_received
        require(recorded <= self.answered, "no step is recorded that was not answered", (recorded, self.answered))
        self.answered = recorded
        self.settle()
        book = self.shadow.decisions
        lost = [name for name, data in self.acknowledged.items() if book.commands.get(name) != data]
        require(not lost, SURVIVES, lost)
        require(self.directed <= book.directives, SURVIVES, self.directed - book.directives)
        require(self.delivered <= book.deliveries, SURVIVES, self.delivered - book.deliveries)
        self._told = set()
