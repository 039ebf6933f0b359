"""What may be asked of a projection. Every function reads inside the transaction that it is given."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, func, select

from tamiyo.core.breakers import BREAKERS, CLOSED
from tamiyo.core.norms import NORM_INPUTS, Norm
from tamiyo.core.registries import Registries, initial
from tamiyo.projections.models import (
    Applied,
    Base,
    BreakerRow,
    Controller,
    Decision,
    FieldReport,
    NormRow,
    Opening,
    RegistryEntry,
    UndecidedStep,
    UnrecordedSteps,
)

__all__ = ["Summary", "canonical", "contents", "exact", "norms", "registries", "summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """A directory at a glance, as of `applied_lsn`. Command types and states are Leyline numbers.

    `decisions` and `superseded` count over the life of the log; everything else over the rows that are left of it.
    """

    applied_lsn: int
    policy_version: str  # of the latest decision, else of the latest opening; "" for an empty log
    openings: int
    decisions: int
    last_step_index: int
    undecided: int
    superseded: int  # decisions whose commit was late: a safe PAUSE was released in their place
    unrecorded: int  # steps that were answered with a safe PAUSE while the log took no records
    by_type: Mapping[int, int]
    by_reason: Mapping[str, int]
    coverage_mean: float | None
    registry_sizes: Mapping[str, int]
    norms: Mapping[str, Norm]
    breakers: Mapping[str, int]
    conservative: bool
    conservative_reason: str
    reports: Mapping[str, int]  # field reports by publish status


def summary(connection: Connection) -> Summary:
    """Everything at once, from one state of the database."""
    controller = connection.execute(select(*_columns(Controller))).one()
    last_step_index, coverage_mean = connection.execute(
        select(func.coalesce(func.max(Decision.step_index), 0), func.avg(Decision.coverage))
    ).one()
    return Summary(
        applied_lsn=connection.execute(select(Applied.lsn)).scalar_one(),
        policy_version=_policy_version(connection, controller.policy_version),
        openings=_count(connection, Opening),
        decisions=controller.decisions,
        last_step_index=last_step_index,
        undecided=_count(connection, UndecidedStep),
        superseded=controller.commits_late,
        unrecorded=_unrecorded(connection),
        by_type=_counted(connection, Decision.command_type),
        by_reason=_counted(connection, Decision.risk_reason),
        coverage_mean=coverage_mean,
        registry_sizes=MappingProxyType({kind: len(keys) for kind, keys in registries(connection).items()}),
        norms=MappingProxyType({row.name: norm for row, norm in zip(NORM_INPUTS, norms(connection), strict=True)}),
        breakers=_breakers(connection),
        conservative=controller.conservative,
        conservative_reason=controller.conservative_reason,
        reports=_counted(connection, FieldReport.status),
    )


def registries(connection: Connection) -> Registries:
    """Every registry with its keys in the order of their indices."""
    found: dict[str, dict[str, int]] = {kind: {} for kind in initial()}
    entries = select(RegistryEntry.kind, RegistryEntry.key, RegistryEntry.index).order_by(RegistryEntry.index)
    for kind, key, index in connection.execute(entries):
        found.setdefault(kind, {})[key] = index
    return MappingProxyType({kind: MappingProxyType(keys) for kind, keys in found.items()})


def norms(connection: Connection) -> tuple[Norm, ...]:
    """One norm for each row of NORM_INPUTS."""
    rows = {name: Norm(mean, variance) for name, mean, variance in connection.execute(select(*_columns(NormRow)))}
    return tuple(rows[row.name] for row in NORM_INPUTS)


def contents(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table in the order of its primary key: what two projections are compared by."""
    return {
        table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
        for table in Base.metadata.sorted_tables
    }


def canonical(connection: Connection) -> bytes:
    """Every row as a line of JSON, floats by their bits: two projections with the same bytes hold the same rows."""
    lines = (
        json.dumps([table, *map(exact, row)], separators=(",", ":"))
        for table, rows in contents(connection).items()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def exact(value: Any) -> Any:
    """A value to compare by: floats by their bits, so that NaN is equal to itself and zeros have a sign."""
    return value.hex() if isinstance(value, float) else value


def _columns(table: type[Base]) -> Sequence[Any]:
    return list(table.__table__.columns)


def _policy_version(connection: Connection, opened: str) -> str:
    latest = select(Decision.policy_version).order_by(Decision.lsn.desc()).limit(1)
    return connection.execute(latest).scalar_one_or_none() or opened


def _count(connection: Connection, table: type[Base]) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _unrecorded(connection: Connection) -> int:
    steps = func.sum(UnrecordedSteps.last_step_index - UnrecordedSteps.first_step_index + 1)
    return connection.execute(select(func.coalesce(steps, 0))).scalar_one()


def _counted(connection: Connection, column: Any) -> Mapping[Any, int]:
    """How many rows have each value, the most frequent first."""
    rows = connection.execute(select(column, func.count()).group_by(column)).all()
    return MappingProxyType(dict(sorted(((value, count) for value, count in rows), key=lambda row: (-row[1], row[0]))))


def _breakers(connection: Connection) -> Mapping[str, int]:
    states = dict.fromkeys(BREAKERS, int(CLOSED))
    states.update((name, state) for name, state in connection.execute(select(BreakerRow.name, BreakerRow.state)))
    return MappingProxyType(states)
