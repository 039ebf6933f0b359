"""The shell: one step from packet to signed command.

    packet ─▶ receive ─▶ look up ─▶ build graph ─▶ propose ─▶ decide ─▶ commit ─▶ sign ─▶ command

`_evaluate` below is that line; each stage is a method of `tamiyo.stages.Stages`. Deadlines, threads and faults
live in the stages' own modules, and what comes out of them are values that `decide` reads. A step that the log
cannot take in time is answered with a safe PAUSE, and nothing else leaves without a durable record.
"""

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Self
from uuid import uuid4

from google.protobuf.message import Message

import wal
from tamiyo import signing
from tamiyo.blueprints import Blueprints
from tamiyo.bus import Bus
from tamiyo.clock import Clock, SystemClock
from tamiyo.config import Settings, given_or_loaded
from tamiyo.core import journal_pb2
from tamiyo.core.state import State
from tamiyo.delivery import delivery
from tamiyo.directives import Directives
from tamiyo.errors import InvariantViolation, PacketRejected, ServiceClosed
from tamiyo.files import Files
from tamiyo.fingerprint import service_opened
from tamiyo.graph import GraphBuilder
from tamiyo.jobs import begin_job
from tamiyo.journal import Journal
from tamiyo.keeper import Keeper
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import Library
from tamiyo.outbox import Outbox
from tamiyo.pace import Restful
from tamiyo.policies import PolicyDesk, UpdateVerdict
from tamiyo.policy import Policy, require_policy
from tamiyo.probe import warn_of_a_log_ahead, warn_of_a_slow_disk
from tamiyo.records import JournalUnavailable
from tamiyo.requests import Request
from tamiyo.retention import Order, Preview, Report
from tamiyo.retention.beside import Retainer
from tamiyo.retention.preview import preview_of, untrimmed
from tamiyo.speakers import Load, Speakers, as_this_thread_has, load_checkpoint, opening_speaker
from tamiyo.stages import Stages, Step, StepTimings, Watch
from tamiyo.upkeep import Upkeep

__all__ = ["StepTimings", "TamiyoService"]

logger = logging.getLogger(__name__)

TIMINGS_KEPT = 16_384
FLUSH_TIMEOUT_S = 5.0


class TamiyoService:
    """The controller of one directory. Open it, hand it packets, apply the commands it returns, close it."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        stages: Stages,
        settings: Settings,
        clock: Clock,
        *,
        files: Files,
        desk: PolicyDesk,
    ) -> None:
        """Assembled by `open`."""
        self.directory = directory
        self.settings = settings
        self.packets_rejected = 0
        self.timings: deque[StepTimings] = deque(maxlen=TIMINGS_KEPT)
        self._journal = journal
        self._stages = stages
        self._derived = files.derived
        self._keeper = Keeper(journal, files.snapshots)
        self._retainer = Retainer(journal, settings.windows())
        self._desk = desk
        self._directives = Directives(journal, files.requests, partial(begin_job, self._retainer, desk))
        self._outbox = Outbox(journal, clock, self._keep_up, budget_ms=settings.publish_timeout_ms)
        self._upkeep = Upkeep(journal, self._directives, self._keeper, desk, period_ms=settings.upkeep_period_ms)
        self._upkeep.start()
        # A service that is dropped without close() leaves no thread at work. Only the event is kept for that: the
        # upkeep leads to the log, and what is kept for ever must not lead back here.
        weakref.finalize(self, self._upkeep.ended.set)
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False  # no more steps
        self._released = False  # the log's lock is given up
        self._broken: InvariantViolation | None = None

    @classmethod
    def open(
        cls,
        directory: Path | str = "var/tamiyo",
        *,
        policy: Policy | None = None,
        urza: Library | None = None,
        secret: str | bytes | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
        disk: wal.Disk | None = None,
        files: Files | None = None,
        load: Load | None = None,
    ) -> Self:
        """Open a directory and go on from its log; an empty one begins a new log.

        Args:
            directory: where the log (`wal/`) and what is derived from it live; made when missing.
            policy: what proposes until another is installed; when None the one that was installed last, and where
                none was the documented baseline.
            urza: the blueprint library; without one the host's own id is the one candidate.
            secret: the signing key, 16 bytes or more as UTF-8; `ESPER_LEYLINE_SECRET` when None.
            settings: budgets and thresholds; from the environment when None.
            clock: another clock than the machine's, for tests.
            disk: another disk than the machine's, for tests.
            files: what lies beside the log, for tests; when None all of it in the directory, or where there is another
                disk none of it.
            load: how a checkpoint becomes a policy, for tests; else on the device of the settings.

        Raises:
            SecretMissing: there is no key to sign with, or one of fewer than 16 bytes.
            SettingsInvalid: a setting or environment variable is out of range.
            TypeError: what is given as a policy is none.
            JournalUnreadable: the log was written by a newer version.
            CheckpointRejected: the policy that is given was trained on other registries than this log's.
            wal.LogError: the log is locked, damaged or cannot be written.
        """
        key = signing.read_secret(secret)
        settings = given_or_loaded(settings)
        device = as_this_thread_has(settings.policy_device)
        clock = clock or SystemClock()
        if policy is not None:
            require_policy(policy)
        path = Path(directory) / "wal"
        files = files or (Files.of(Path(directory)) if disk is None else Files.none())
        journal = Journal(
            lambda: wal.Log.open(path, segment_bytes=settings.segment_bytes, disk=disk), clock, files.snapshots
        )
        try:
            log_id = journal.log.head().log_id.hex()
            speaker, unusable = opening_speaker(
                policy, journal.state, files.policies, load or partial(load_checkpoint, device=device)
            )
            identity = speaker.identity
            warn_of_a_log_ahead(journal.state.event_time_ns, clock.wall_ns())
            journal.begin(lambda _, now_ns: (service_opened(settings, identity, now_ns, clock.wall_ns(), log_id),))
            if unusable is not None:
                journal.ride(lambda _, now_ns: (_at(unusable, now_ns),))
            if disk is None:
                warn_of_a_slow_disk(path, settings.commit_timeout_ms)
            builder, budget_ms = GraphBuilder(), settings.metadata_timeout_ms
            speakers = Speakers(speaker)
            blueprints = Blueprints(
                urza, journal, clock, budget_ms=budget_ms, prepare=builder.prepare,
                foresee=lambda seeds, known: speakers.expect(
                    journal.state.policy_version, builder.node_counts(seeds, known)
                ),
            )  # fmt: skip
            speakers.warm_up(identity.version, partial(builder.node_counts, blueprints=blueprints.known()))
            stages = Stages(journal, blueprints, builder, speakers, key, settings, clock)
            desk = PolicyDesk(
                journal,
                files.policies,
                speakers,
                load=load or partial(load_checkpoint, device=device, may_capture=False),
                key=key,
                clock=clock,
                freshness_s=settings.update_freshness_sec,
            )
            return cls(Path(directory), journal, stages, settings, clock, files=files, desk=desk)
        except BaseException:  # whatever it was, the log's lock must not stay behind
            journal.abandon()
            raise

    def evaluate_step(self, packet: Message | bytes) -> pb.AdaptationCommand:
        """Answer one training step with a signed command, within the budgets.

        Args:
            packet: a `SystemStatePacket`, of our bindings or the host's own, or its bytes.

        Raises:
            PacketRejected: undecodable or over a limit; counted, not journaled.
            ServiceClosed: after `close()`.
            InvariantViolation: a rule of the core was broken; the service answers no more.
        """
        return self._guarded(packet, "step", self.settings.step_timeout_ms)

    def evaluate_epoch(self, packet: Message | bytes) -> pb.AdaptationCommand:
        """The same at the end of an epoch, with a budget of its own. Raises as `evaluate_step`."""
        return self._guarded(packet, "epoch", self.settings.epoch_timeout_ms)

    def direct(self, directive: str, *, operator: str, reason: str = "", timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Take down what an operator asks for; it is in force from the next decision on.

        Args:
            directive: "conservative_on" or "conservative_off". Conservative mode that was set so ends only so.
            operator: who asks.
            reason: why, in their words.
            timeout_s: how long to wait for the disk.

        Returns:
            Whether the record is durable; where it is not within `timeout_s`, the directive is in force all the same.

        Raises:
            RequestRejected: there is no such directive, or a text cannot be recorded.
            NotRecorded: the log takes no record at the moment; nothing was changed.
            ServiceClosed: after `close()`.
        """
        request = Request(uuid4().hex, directive, operator, reason)
        self._require_open("direct")
        recorded = self._directives.direct(request)
        return recorded is None or recorded.is_durable(timeout_s)

    def ingest_policy_update(self, update: Message | bytes, signature: str = "") -> UpdateVerdict:
        """Let a learner's policy speak from the next step on, or refuse it and say why; either is journaled.

        Loading and trying it out take a while on the caller's thread, and steps on another go on meanwhile. It is on
        probation until it has proposed three times: where it raises or proposes what is no proposal, or the inference
        breaker opens, the last good policy speaks again by itself.

        Args:
            update: a `PolicyUpdate`, of our bindings or the host's own, or its bytes.
            signature: of `tamiyo.signing.sign_update`, over these bytes.

        Raises:
            NotRecorded: the log, or the directory, takes nothing at the moment; nothing was changed.
            ServiceClosed: after `close()`.
        """
        self._require_open("ingest_policy_update")
        return self._desk.ingest(update, signature)

    def roll_back_policy(self, *, operator: str, reason: str = "") -> str:
        """Let the last good policy speak again; its version.

        Raises:
            PolicyUnchanged: no policy that was installed here speaks.
            NotRecorded: the log takes no record at the moment; nothing was changed.
            ServiceClosed: after `close()`.
        """
        self._require_open("roll_back_policy")
        return self._desk.roll_back(operator=operator, reason=reason)

    def record_delivery(self, command_id: str, outcome: str, detail: str = "") -> bool:
        """Take down what became of a command. Returns at once: the record rides with the next step's batch.

        Args:
            command_id: the command's own.
            outcome: a word: "applied", "refused", "rejected", "timed_out".
            detail: more of it, in words; cut to 300 characters.

        Returns:
            False where it was not taken: 1,024 wait already, because the log takes no records.

        Raises:
            DeliveryRejected: the id or the outcome cannot be recorded.
            ServiceClosed: after `close()`.
        """
        self._require_open("record_delivery")
        return self._journal.ride(delivery(command_id, outcome, detail))

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Take up requests, look back, write what waits for a step, rewrite the exported files. May wait for the disk.

        Returns:
            Whether everything said so far is durable, and no request waits to be taken up. A request for a policy or
            for retention is taken up when its work has begun, and answered once that has ended.

        Raises:
            ServiceClosed: after `close()`.
        """
        self._require_open("flush")
        taken_up = self._keep_up(timeout_s)
        try:
            self._journal.flush()
        except JournalUnavailable:
            return False
        return self._journal.is_durable(timeout_s) and taken_up

    async def publish_history(self, bus: Bus) -> bool:
        """Publish what the journal holds past its cursor: telemetry, and the field reports that are due.

        For a host's periodic flush. It never blocks a step, and waits for bus and disk within budgets. At least once:
        what went out just before a crash goes out again, under the same ids.

        Returns:
            Whether everything went. False, too, while another call is at it.

        Raises:
            ServiceClosed: after `close()`.
            TamiyoError: the history itself cannot be read.
        """
        self._require_open("publish_history")
        return await self._outbox.publish(bus)

    def retain(self, *, archive: Path | str | None = None, keep_heads: Iterable[wal.Head] = ()) -> Report:
        """Take from the log what is older than its window and nothing needs any more; `Settings` has the windows.

        For a host's worker, now and then: it is done on a thread of its own beside the steps, and this call waits for
        it. What was begun before a crash is finished first. Closing the service stops it.

        Args:
            archive: the folder where pruned segments are kept, compressed; None where they are not.
            keep_heads: heads of this log, kept elsewhere, that are to stay provable although their records go.

        Raises:
            ServiceClosed: after `close()`, or stopped by it; the next run goes on with it.
            RetentionBusy: another run is at work.
            NotRecorded: the log takes no record at the moment; nothing was changed.
            ArchiveUnusable: the archive folder takes nothing; nothing was taken away.
            HeadNotKept: a head is not one of this log; nothing was changed.
            RetentionUnproven: what would be left does not come to the same state; nothing more was taken away.
            JournalUnreadable: the history itself cannot be read.
            wal.LogError: the disk failed or is full. What was begun is finished by the next run.
        """
        self._require_open("retain")
        folder = None if archive is None else Path(archive)
        return self._retainer.begin(Order(uuid4().hex, folder, tuple(keep_heads))).result()

    def preview_retention(self) -> Preview:
        """What `retain` would take now, and what could not be recomputed any more; changes nothing.

        Raises:
            ServiceClosed: after `close()`.
            JournalUnreadable: the history itself cannot be read.
            wal.LogError: the log cannot be read.
        """
        self._require_open("preview_retention")
        journal, windows = self._journal, self.settings.windows()
        return untrimmed(lambda: preview_of(journal.log, journal.state, windows, journal.now_ns(), Restful()))

    def watch(self, watch: Watch | None) -> None:
        """Let `watch` (see `tamiyo.step.Watch`) see the stages of the steps that begin from now on; None ends it."""
        self._stages.watch = watch

    @property
    def state(self) -> State:
        """The controller's state after everything that was journaled; frozen."""
        return self._journal.state

    @property
    def policy(self) -> Policy | None:
        """The policy that the next step asks; None while the one in force is not loaded."""
        return self._stages.policy

    @property
    def log(self) -> wal.Log:
        """The log in use, to read from; only the service writes it."""
        return self._journal.log

    @property
    def journal(self) -> Journal:
        """The log and the state together, for hosts that wait for a log to come back."""
        return self._journal

    def close(self) -> None:
        """Finish what is owed, close the log, then bring the projection and the exported files up to date.

        Raises:
            wal.LogBusy: the disk does not answer; the lock is still held, and close may be called again.
            wal.LogFailed: closing failed; open again to recover.
        """
        self._closed = True  # a step that waits for its turn is refused, and waits for no disk
        with self._lock:
            pass  # the step that is under way is finished
        with self._closing:
            if self._released:
                return
            self._upkeep.stop()
            self._retainer.stop(FLUSH_TIMEOUT_S)
            self._stages.close()
            self._journal.close()
            self._released = True
            self._keeper.finish()
            self._derived.finish(self._journal.state)

    def __enter__(self) -> Self:
        """Return the service itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the service."""
        self.close()

    def _evaluate(self, step: Step) -> pb.AdaptationCommand:
        """The step, a stage a line."""
        stages = self._stages
        try:
            stages.receive(step)
            stages.look_up_blueprints(step)
            stages.build_graph(step)
            stages.propose(step)
            stages.decide(step)
            commit = stages.commit(step)
        except JournalUnavailable as unavailable:
            return stages.pause(step, unavailable)
        return stages.sign(step, commit)

    def _keep_up(self, timeout_s: float) -> bool:
        """What every flush does besides; it may wait for the disk."""
        self._desk.watch()
        taken_up = self._directives.take_up(timeout_s)
        self._keeper.keep()
        self._derived.export(self._journal.state)
        return taken_up

    def _require_open(self, call: str) -> None:
        if self._closed:
            raise ServiceClosed(f"{call} was called after close(); open {self.directory} again")

    def _guarded(self, packet: Message | bytes, call: str, budget_ms: int) -> pb.AdaptationCommand:
        """Serialise calls, keep out what cannot be decided, and stop for good when an invariant broke."""
        with self._lock:
            self._require_open(f"evaluate_{call}")
            if self._broken is not None:
                raise self._broken
            started_ns = time.perf_counter_ns()
            try:
                step = self._stages.arrive(packet, call, budget_ms)
                command = self._evaluate(step)
            except PacketRejected:
                self.packets_rejected += 1
                raise
            except InvariantViolation as error:
                self._broken = error
                raise
            except Exception as error:  # a fault of ours: stop rather than go on from a guess
                self._broken = InvariantViolation(f"evaluate_{call} met {type(error).__name__}: {error}; open again")
                raise self._broken from error
            step.timings.total_ns = time.perf_counter_ns() - started_ns
            self.timings.append(step.timings)
            return command


def _at(event: journal_pb2.PolicyRejected, now_ns: int) -> journal_pb2.PolicyRejected:
    event.event_time_ns = now_ns
    return event
