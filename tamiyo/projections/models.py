"""The tables. Times are nanoseconds: event time where the name says so, else the wall clock's Unix time.

    applied                how far the log has been projected: one row
    openings               each time a service took up the log
    decisions              one row for each DecisionMade
    undecided_steps        packets that were received and have no decision (yet)
    registries, norms      as the state holds them at the applied LSN
    breaker_moves, conservative_changes   transitions, as they happened

A change here needs a revision in `migrations/versions` that makes the same DDL; a test compares the two.
"""

from typing import Annotated, ClassVar

from sqlalchemy import Double, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tamiyo.projections.columns import Count, JournalText, Number

__all__ = [
    "Applied",
    "Base",
    "BreakerMove",
    "ConservativeChange",
    "Decision",
    "NormRow",
    "Opening",
    "RegistryEntry",
    "UndecidedStep",
]

Lsn = Annotated[int, mapped_column(Count)]
LsnKey = Annotated[int, mapped_column(Count, primary_key=True, autoincrement=False)]
Ns = Annotated[int, mapped_column(Count)]
Words = Annotated[str, mapped_column(JournalText)]
Words0 = Annotated[str | None, mapped_column(JournalText)]
Float0 = Annotated[float | None, mapped_column(Number)]


class Base(DeclarativeBase):
    """All tables; constraints are named so that a migration can refer to them in any database."""

    metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"})
    type_annotation_map: ClassVar = {float: Double}


class Applied(Base):
    """The one row that says which part of which log the other rows are.

    `record_digest` and `log_id` are SHA-256 of the record at `lsn` and of the log's first record: with them a
    projection knows its log again. `projectors` is the version of the code that made the rows.
    """

    __tablename__ = "applied"
    id: Mapped[LsnKey]  # always 1
    lsn: Mapped[Lsn]
    log_id: Mapped[str]
    record_digest: Mapped[str]
    projectors: Mapped[Lsn]


class Opening(Base):
    """A ServiceOpened."""

    __tablename__ = "openings"
    lsn: Mapped[LsnKey]
    opened_unix_ns: Mapped[Ns]
    policy_version: Mapped[Words]
    code_fingerprint: Mapped[Words]


class UndecidedStep(Base):
    """A StepReceived whose DecisionMade has not been seen; what the decision's row will need of it."""

    __tablename__ = "undecided_steps"
    lsn: Mapped[LsnKey]
    step_index: Mapped[Lsn]
    received_unix_ns: Mapped[Ns]
    coverage: Mapped[float | None]


class Decision(Base):
    """A DecisionMade with its command.

    `seed_id` and `blueprint_id` are what the policy selected; `seed_operation` is not 0 where the command acts on
    them. `command_type` and `seed_operation` are Leyline numbers. `coverage` is sum(present) / sum(total) from 0
    to 1, NULL where no graph was recorded. Where the commit was late, `superseded_by` is the safe PAUSE that was
    released in the command's place.
    """

    __tablename__ = "decisions"
    lsn: Mapped[LsnKey]
    step_lsn: Mapped[Lsn]
    step_index: Mapped[Lsn]
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
