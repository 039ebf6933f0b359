"""The tables. Times are nanoseconds: event time where the name says so, else the wall clock's Unix time.

    applied                how far the log has been projected: one row
    openings               each time a service took up the log
    decisions              one row for each DecisionMade
    undecided_steps        packets that were received and have no decision (yet)
    policies               every policy that the other rows name
    released_pauses, unrecorded_steps     what the trainer was given where no decision was durable in time
    field_reports, deliveries             what was reported, and what became of commands
    directives             what operators asked for
    policy_updates         policies that were installed, refused or rolled back
    breaker_moves, conservative_changes   transitions, as they happened
    bases, snapshots, retention_runs, pruned_segments     the log's own upkeep
    registries, norms, breakers, controller               as the state holds them at the applied LSN

Where a record is gone from the log, the rows made from it are gone, and a column that another record's row has from it
is NULL: `tamiyo.projections.forgetting`.

A change here needs a revision in `migrations/versions` that makes the same DDL; a test compares the two.
"""

from typing import Annotated, ClassVar

from sqlalchemy import Computed, Double, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tamiyo.projections.columns import Count, JournalText, Number

__all__ = [
    "STATUS",
    "Applied",
    "Base",
    "BaseRow",
    "BreakerMove",
    "BreakerRow",
    "ConservativeChange",
    "Controller",
    "Decision",
    "Delivery",
    "Directive",
    "FieldReport",
    "NormRow",
    "Opening",
    "Policy",
    "PolicyUpdateRow",
    "PrunedSegment",
    "RegistryEntry",
    "ReleasedPause",
    "RetentionRun",
    "Snapshot",
    "UndecidedStep",
    "UnrecordedSteps",
]

Lsn = Annotated[int, mapped_column(Count)]
Lsn0 = Annotated[int | None, mapped_column(Count)]
LsnKey = Annotated[int, mapped_column(Count, primary_key=True, autoincrement=False)]
Ns = Annotated[int, mapped_column(Count)]
Ns0 = Annotated[int | None, mapped_column(Count)]
Words = Annotated[str, mapped_column(JournalText)]
Words0 = Annotated[str | None, mapped_column(JournalText)]
Json = Annotated[str, mapped_column(Text)]
Float0 = Annotated[float | None, mapped_column(Number)]

STATUS = (
    "CASE WHEN dropped_lsn IS NOT NULL THEN 'dropped' "
    "WHEN attempt_lsn IS NOT NULL AND succeeded THEN 'published' "
    "WHEN attempt_lsn IS NOT NULL THEN 'retrying' "
    "WHEN superseded_lsn IS NOT NULL THEN 'superseded' "
    "ELSE 'pending' END"
)
"""A report's status, from the records that spoke of it: it cannot disagree with them, whichever of them are gone."""


class Base(DeclarativeBase):
    """All tables; constraints are named so that a migration can refer to them in any database."""

    metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"})
    type_annotation_map: ClassVar = {float: Double}


class Applied(Base):
    """The one row that says which part of which log the other rows are.

    `record_digest` is SHA-256 of the record at `lsn`, and `log_id` the log's own id: with them a projection knows its
    log again. `folded_lsn` is where registries, norms, breakers and controller stand: `lsn`, except while rows are
    made of records that are older than the StateBase these were taken from. `first_lsn` is where the log began when the
    rows were last brought up to date. `projectors` is the version of the code that made the rows.
    """

    __tablename__ = "applied"
    id: Mapped[LsnKey]  # always 1
    lsn: Mapped[Lsn]
    log_id: Mapped[str]
    record_digest: Mapped[str]
    projectors: Mapped[Lsn]
    folded_lsn: Mapped[Lsn]
    first_lsn: Mapped[Lsn]


class Opening(Base):
    """A ServiceOpened."""

    __tablename__ = "openings"
    lsn: Mapped[LsnKey]
    opened_unix_ns: Mapped[Ns]
    policy_version: Mapped[Words]
    code_fingerprint: Mapped[Words]


class Policy(Base):
    """A policy as inferences name it; `id` is made from the other columns. When it decided: see `decisions`."""

    __tablename__ = "policies"
    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[Words]
    architecture: Mapped[Words]
    engine: Mapped[Words]
    checkpoint_digest: Mapped[Words]


class UndecidedStep(Base):
    """A StepReceived whose DecisionMade has not been seen; what the decision's row will need of it.

    `step_index` and `received_unix_ns` are NULL where the StepReceived itself is gone from the log.
    """

    __tablename__ = "undecided_steps"
    lsn: Mapped[LsnKey]
    step_index: Mapped[Lsn0]
    received_unix_ns: Mapped[Ns0]
    coverage: Mapped[float | None]
    graph_lsn: Mapped[Lsn0]
    inference: Mapped[str | None]
    inference_lsn: Mapped[Lsn0]
    inference_elapsed_ns: Mapped[Ns0]
    policy_id: Mapped[str | None]


class Decision(Base):
    """A DecisionMade with its command.

    `seed_id` and `blueprint_id` are what the policy selected; `seed_operation` is not 0 where the command acts on
    them. `command_type` and `seed_operation` are Leyline numbers. `coverage` is sum(present) / sum(total) from 0
    to 1, NULL where no graph was recorded. `inference` is "observed", "timed_out", "failed" or "skipped". The four
    stages' times follow. Where the commit was late, `superseded_by` is the safe PAUSE that was released in the
    command's place.
    """

    __tablename__ = "decisions"
    lsn: Mapped[LsnKey]
    step_lsn: Mapped[Lsn]
    step_index: Mapped[Lsn0]
    event_time_ns: Mapped[Ns]
    issued_unix_ns: Mapped[Ns]
    command_id: Mapped[Words]
    command_type: Mapped[int]
    seed_operation: Mapped[int]
    risk_reason: Mapped[Words]
    policy_version: Mapped[Words]
    training_run_id: Mapped[Words]
    seed_id: Mapped[Words]
    blueprint_id: Mapped[Words]
    coverage: Mapped[float | None]
    receive_ns: Mapped[Ns]
    blueprints_ns: Mapped[Ns]
    graph_ns: Mapped[Ns]
    inference_ns: Mapped[Ns]
    superseded_by: Mapped[Words0]
    superseded_cause: Mapped[Words0]
    superseded_lsn: Mapped[Lsn0]
    loss_delta: Mapped[Float0]
    graph_lsn: Mapped[Lsn0]
    inference: Mapped[str | None]
    inference_lsn: Mapped[Lsn0]
    inference_elapsed_ns: Mapped[Ns0]
    policy_id: Mapped[str | None]


class ReleasedPause(Base):
    """A safe PAUSE that was released without a durable decision: a StepPaused or, with `decision_lsn`, a CommitLate."""

    __tablename__ = "released_pauses"
    lsn: Mapped[LsnKey]
    step_lsn: Mapped[Lsn]
    decision_lsn: Mapped[Lsn0]
    command_id: Mapped[Words]
    cause: Mapped[Words]
    event_time_ns: Mapped[Ns]


class UnrecordedSteps(Base):
    """A StepsUnrecorded: steps that were answered with a safe PAUSE while the log took no records."""

    __tablename__ = "unrecorded_steps"
    lsn: Mapped[LsnKey]
    first_step_index: Mapped[Lsn]
    last_step_index: Mapped[Lsn]
    cause: Mapped[Words]
    event_time_ns: Mapped[Ns]


class FieldReport(Base):
    """A FieldReportIssued, and how far its publishing has come.

    `outcome` is Leyline's FieldReportOutcome, `observation_window` in decisions, `metrics` a JSON object whose values
    that are no finite number are null. `synthesised` is true of the report that ends an observation window. `attempts`,
    `cause` and `attempted_at_ns` (event time) are of the last attempt that the log speaks of.
    """

    __tablename__ = "field_reports"
    lsn: Mapped[LsnKey]
    step_lsn: Mapped[Lsn]
    report_id: Mapped[Words]
    command_id: Mapped[Words]
    training_run_id: Mapped[Words]
    seed_id: Mapped[Words]
    blueprint_id: Mapped[Words]
    policy_version: Mapped[Words]
    outcome: Mapped[int]
    observation_window: Mapped[Lsn]
    synthesised: Mapped[bool]
    issued_unix_ns: Mapped[Ns]
    metrics: Mapped[Json]
    notes: Mapped[Words]
    attempt_lsn: Mapped[Lsn0]
    attempts: Mapped[Lsn0]
    succeeded: Mapped[bool | None]
    cause: Mapped[Words0]
    attempted_at_ns: Mapped[Ns0]
    dropped_lsn: Mapped[Lsn0]
    superseded_lsn: Mapped[Lsn0]
    status: Mapped[str] = mapped_column(Text, Computed(STATUS, persisted=True))


class Delivery(Base):
    """A CommandDelivered: what became of a command."""

    __tablename__ = "deliveries"
    lsn: Mapped[LsnKey]
    command_id: Mapped[Words]
    outcome: Mapped[Words]
    detail: Mapped[Words]
    event_time_ns: Mapped[Ns]


class Directive(Base):
    """An OperatorDirected."""

    __tablename__ = "directives"
    lsn: Mapped[LsnKey]
    directive: Mapped[Words]
    operator: Mapped[Words]
    reason: Mapped[Words]
    request_id: Mapped[Words]
    event_time_ns: Mapped[Ns]


class PolicyUpdateRow(Base):
    """A PolicyInstalled, PolicyRejected or PolicyRolledBack; `what` is "installed", "rejected" or "rolled_back".

    `version` is the policy that speaks after it or, of one that was rejected, the one that was offered. `reason` is why
    it was rejected or rolled back; `detail` says more, in words. `operator` is "" where none had a hand in it.
    """

    __tablename__ = "policy_updates"
    lsn: Mapped[LsnKey]
    what: Mapped[str]
    version: Mapped[Words]
    checkpoint_digest: Mapped[Words]
    policy_id: Mapped[Words]
    reason: Mapped[Words]
    detail: Mapped[Words]
    operator: Mapped[Words]
    event_time_ns: Mapped[Ns]


class RegistryEntry(Base):
    """One key of one categorical registry."""

    __tablename__ = "registries"
    __table_args__ = (UniqueConstraint("kind", "index"),)
    kind: Mapped[Words] = mapped_column(primary_key=True)
    key: Mapped[Words] = mapped_column(primary_key=True)
    index: Mapped[int]


class NormRow(Base):
    """Running mean and variance of one input, in its scaled form; NULL stands for NaN."""

    __tablename__ = "norms"
    name: Mapped[str] = mapped_column(primary_key=True)
    mean: Mapped[Float0]
    variance: Mapped[Float0]


class BreakerMove(Base):
    """A BreakerMoved; states are Leyline's CircuitBreakerState."""

    __tablename__ = "breaker_moves"
    lsn: Mapped[LsnKey]
    breaker: Mapped[Words]
    from_state: Mapped[int]
    to_state: Mapped[int]
    cause: Mapped[Words]
    event_time_ns: Mapped[Ns]
    step_lsn: Mapped[Lsn]


class ConservativeChange(Base):
    """A ConservativeModeChanged."""

    __tablename__ = "conservative_changes"
    lsn: Mapped[LsnKey]
    active: Mapped[bool]
    reason: Mapped[Words]
    event_time_ns: Mapped[Ns]
    step_lsn: Mapped[Lsn]


class BreakerRow(Base):
    """A breaker's state now; Leyline's CircuitBreakerState."""

    __tablename__ = "breakers"
    name: Mapped[Words] = mapped_column(primary_key=True)
    state: Mapped[int]


class Controller(Base):
    """The one row of what else the state holds: counts over the life of the log, and the mode it is in.

    `policy_version` is that of the last ServiceOpened, PolicyInstalled or PolicyRolledBack.
    """

    __tablename__ = "controller"
    id: Mapped[LsnKey]  # always 1
    decisions: Mapped[Lsn]
    commits_late: Mapped[Lsn]
    policy_version: Mapped[Words]
    conservative: Mapped[bool]
    conservative_reason: Mapped[Words]


class BaseRow(Base):
    """A StateBase: the whole state after record `at_lsn`, from which a pruned log is read."""

    __tablename__ = "bases"
    lsn: Mapped[LsnKey]
    at_lsn: Mapped[Lsn]
    needs_lsn: Mapped[Lsn]
    digest: Mapped[Words]
    event_time_ns: Mapped[Ns]


class Snapshot(Base):
    """A SnapshotTaken."""

    __tablename__ = "snapshots"
    lsn: Mapped[LsnKey]
    at_lsn: Mapped[Lsn]
    digest: Mapped[Words]
    stored: Mapped[bool]
    event_time_ns: Mapped[Ns]


class RetentionRun(Base):
    """A RetentionPlanned, and its RetentionCompleted once there is one.

    `payloads` is a JSON array of {"kind", "window_ns", "upto_lsn"}, the kind by its event's name.
    """

    __tablename__ = "retention_runs"
    lsn: Mapped[LsnKey]
    run_id: Mapped[Words]
    event_time_ns: Mapped[Ns]
    prune_before_lsn: Mapped[Lsn]
    base_lsn: Mapped[Lsn]
    payloads: Mapped[Json]
    archive: Mapped[Words]
    completed_lsn: Mapped[Lsn0]
    completed_at_ns: Mapped[Ns0]
    first_lsn: Mapped[Lsn0]
    freed_bytes: Mapped[Lsn0]
    payloads_redacted: Mapped[Lsn0]
    digest_lsn: Mapped[Lsn0]
    digest: Mapped[Words0]
    resumed: Mapped[bool | None]


class PrunedSegment(Base):
    """A segment that a retention run pruned; `lsn` is that of the RetentionCompleted."""

    __tablename__ = "pruned_segments"
    lsn: Mapped[LsnKey]
    segment: Mapped[LsnKey]
    run_id: Mapped[Words]
    first_lsn: Mapped[Lsn]
    last_lsn: Mapped[Lsn]
    size_bytes: Mapped[Lsn]
    archived_as: Mapped[Words]
    archived_sha256: Mapped[Words]
