"""What the tables say of the state itself, at one LSN: registries, norms, breakers, and counts over the log's life.

It is folded from the events one after the other, and so it cannot be had from what is left of a log whose beginning
was pruned: there it is taken from a StateBase, and folded on from the LSN that the base speaks of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.norms import NORM_INPUTS, PRIORS, Norm, recorded, updated
from tamiyo.core.registries import Registries
from tamiyo.core.state import State
from tamiyo.projections import database, queries
from tamiyo.projections.models import Base, BreakerRow, Controller, NormRow, RegistryEntry

__all__ = ["FOLDS", "Standing", "write_empty"]

_NORMS = Base.metadata.tables["norms"]
"""The table behind the model: only on it does an update take a list of rows with a condition of its own."""


@dataclass(slots=True)
class Standing:
    """The fields that are folded. `registered` are new rows of the registries; `anew` are all of them, from a base."""

    norms: list[Norm] = field(default_factory=lambda: list(PRIORS))
    breakers: dict[str, int] = field(default_factory=dict)
    decisions: int = 0
    commits_late: int = 0
    policy_version: str = ""
    conservative: bool = False
    conservative_reason: str = ""
    registered: list[dict[str, Any]] = field(default_factory=list)
    anew: Registries | None = None

    @classmethod
    def of(cls, state: State) -> Self:
        """What a whole state says."""
        return cls(
            norms=list(state.norms),
            breakers={name: int(held.state) for name, held in state.breakers.items()},
            decisions=state.decisions,
            commits_late=state.commits_late,
            policy_version=state.policy_version,
            conservative=state.conservative.active,
            conservative_reason=state.conservative.reason if state.conservative.active else "",
            anew=state.registries,
        )

    @classmethod
    def read(cls, connection: Connection) -> Self:
        """What the tables say. Raises DatabaseDamaged where that makes no sense."""
        with database.sensible(connection):
            return cls._read(connection)

    @classmethod
    def _read(cls, connection: Connection) -> Self:
        row = connection.execute(
            select(
                Controller.decisions,
                Controller.commits_late,
                Controller.policy_version,
                Controller.conservative,
                Controller.conservative_reason,
            )
        ).one()
        breakers = connection.execute(select(BreakerRow.name, BreakerRow.state))
        return cls(
            norms=list(queries.norms(connection)),
            breakers={row.name: int(row.state) for row in breakers},
            decisions=int(row.decisions),
            commits_late=int(row.commits_late),
            policy_version=row.policy_version,
            conservative=bool(row.conservative),
            conservative_reason=row.conservative_reason,
        )

    def write(self, connection: Connection) -> None:
        """Bring the tables to what this says."""
        if self.anew is not None:
            connection.execute(delete(RegistryEntry))
            _insert(connection, RegistryEntry, _entries(self.anew))
        _insert(connection, RegistryEntry, self.registered)
        connection.execute(
            update(_NORMS).where(NormRow.name == bindparam("row")),
            [
                {"row": row.name, "mean": norm.mean, "variance": norm.variance}
                for row, norm in zip(NORM_INPUTS, self.norms, strict=True)
            ],
        )
        connection.execute(delete(BreakerRow))
        _insert(connection, BreakerRow, [{"name": name, "state": state} for name, state in self.breakers.items()])
        connection.execute(
            update(Controller).values(
                decisions=self.decisions,
                commits_late=self.commits_late,
                policy_version=self.policy_version,
                conservative=self.conservative,
                conservative_reason=self.conservative_reason,
            )
        )


def write_empty(connection: Connection) -> None:
    """The rows of an empty log, into tables that hold none."""
    state = State()
    norms = [
        {"name": row.name, "mean": norm.mean, "variance": norm.variance}
        for row, norm in zip(NORM_INPUTS, state.norms, strict=True)
    ]
    connection.execute(insert(NormRow), norms)
    first = {"decisions": 0, "commits_late": 0, "policy_version": "", "conservative": False, "conservative_reason": ""}
    connection.execute(insert(Controller), {"id": 1, **first})
    Standing.of(state).write(connection)


def _entries(registries: Registries) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "key": key, "index": index} for kind, keys in registries.items() for key, index in keys.items()
    ]


def _insert(connection: Connection, table: type[Base], rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _service_opened(standing: Standing, event: journal.ServiceOpened) -> None:
    standing.policy_version = event.policy_version


def _graph_observed(standing: Standing, event: journal.GraphObserved) -> None:
    for index, value in recorded(event):
        if index < len(NORM_INPUTS):  # a row that a newer version knows is not ours to fold
            standing.norms[index] = updated(standing.norms[index], value)


def _policy_changed(standing: Standing, event: journal.PolicyInstalled | journal.PolicyRolledBack) -> None:
    standing.policy_version = event.version


def _registry_assigned(standing: Standing, event: journal.RegistryAssigned | journal.RegistryImported) -> None:
    for index, key in enumerate(event.keys, start=event.first_index):
        standing.registered.append({"kind": event.kind, "key": key, "index": index})


def _decision_made(standing: Standing, _: journal.DecisionMade) -> None:
    standing.decisions += 1


def _commit_late(standing: Standing, _: journal.CommitLate) -> None:
    standing.commits_late += 1


def _breaker_moved(standing: Standing, event: journal.BreakerMoved) -> None:
    standing.breakers[event.breaker] = event.to_state


def _conservative_mode_changed(standing: Standing, event: journal.ConservativeModeChanged) -> None:
    standing.conservative = event.active
    standing.conservative_reason = event.reason if event.active else ""


FOLDS: Mapping[type[Event], Callable[[Standing, Any], None]] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.GraphObserved: _graph_observed,
        journal.RegistryAssigned: _registry_assigned,
        journal.RegistryImported: _registry_assigned,
        journal.PolicyInstalled: _policy_changed,
        journal.PolicyRolledBack: _policy_changed,
        journal.DecisionMade: _decision_made,
        journal.CommitLate: _commit_late,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
    }
)
"""The events that change what stands. Where the payload of one is gone, only a later StateBase says what it came to."""
