"""A dataset read from the journal: graphs, what was proposed and commanded on them, and what came of it.

The log is replayed as an audit replays it: every decision is recomputed, every graph built again and held against its
record. Nothing is learned from a log in which something does not follow.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import wal
from tamiyo.audit.graphs import Built, Graphs
from tamiyo.audit.reading import replayed
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.inputs import proposal_of
from tamiyo.core.norms import Norm
from tamiyo.core.observation import Observation
from tamiyo.core.proposal import Proposal, argmax
from tamiyo.core.registries import Registries
from tamiyo.graph import Graph
from tamiyo.integrations.simic.credit import APPLIED, Moment, Outcome, action_of, blames_training, hazard_of, outcomes
from tamiyo.integrations.simic.errors import NothingToLearn
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["HORIZON", "LAST", "Dataset", "Example", "read_dataset"]

HORIZON = 20
"""Decisions in which a command shows what it was good for; a trainer that validates every 20 steps does so in each."""
LAST = 4_096
"""Decisions that are kept, the newest: some 60 kB each."""

NOT_ASKED = "no policy answered"
NOT_KNOWN = "the run, or the log, ends before it is known what came of it, or no newer loss came"
NO_GRAPH = "its graph cannot be built again"


@dataclass(frozen=True, slots=True)
class Example:
    """One decision of which it is known what came of it.

    `is_own`: what was commanded is what the policy proposed, and as far as is known it was carried out; only then
    does what came of it say something of the proposal. `outcome.value` and `outcome.hazard` say what that was.
    """

    step_lsn: int
    run_id: str
    graph: Graph
    proposal: Proposal
    action: int
    is_own: bool
    germinates: bool
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples in the order of the log, and what a network that learns from them is stamped with.

    `registries` and `norms` are those at the end of the log; `skipped` counts decisions that are no example, by reason.
    """

    examples: Sequence[Example] = field(repr=False)
    registries: Registries = field(repr=False)
    norms: tuple[Norm, ...] = field(repr=False)
    directory: Path
    log_id: str
    last_lsn: int
    horizon: int
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Decided:
    """A decision in the order of the log; without a graph it is only something that came after others."""

    moment: Moment
    germinates: bool
    graph: Graph | None
    proposal: Proposal | None


def read_dataset(
    directory: Path | str,
    *,
    horizon: int = HORIZON,
    last: int = LAST,
    progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Read the log of a service's directory; reads only, also beside a live service.

    Args:
        directory: what was given to `TamiyoService.open`.
        horizon: decisions after each that say what came of it, 1 or more.
        last: so many decisions are kept at most, the newest.
        progress: called with the LSN now and then.

    Raises:
        ValueError: the horizon or `last` is below 1.
        FileNotFoundError: there is no log in the directory.
        NothingToLearn: the log was tampered with, or something in it does not follow: nothing is learned from it.
        JournalUnreadable: a record cannot be read.
        wal.LogError: the log is damaged.
    """
    if horizon < 1 or last < 1:
        raise ValueError(f"a dataset has a horizon and a length of 1 or more, not {horizon} and {last}")
    path = Path(directory) / "wal"
    integrity = _integrity(path)
    history = _History(last + horizon)
    found = replayed(path, integrity.first_lsn, progress, history)
    divergence = found.divergence or history.finish().divergence
    if divergence is not None:
        raise NothingToLearn(_words(path, f"at LSN {divergence.lsn}: {divergence.what}"))
    examples, skipped = history.examples(horizon)
    return Dataset(
        examples=examples[-last:],
        registries=found.state.registries,
        norms=found.state.norms,
        directory=Path(directory),
        log_id=integrity.head.log_id.hex() if integrity.head is not None else "",
        last_lsn=found.state.last_lsn,
        horizon=horizon,
        skipped=MappingProxyType(skipped),
    )


class _History(Graphs):
    """Follows a replay and remembers its last decisions."""

    def __init__(self, length: int) -> None:
        self._decided: deque[_Decided] = deque(maxlen=length)
        self._by_command: dict[str, Moment] = {}
        self._by_step: dict[int, Moment] = {}
        self._built: Built | None = None
        super().__init__()

    def begin(self, base: journal.StateBase | None) -> None:
        """Begin, and forget what was read: a record that was taken out lies after it."""
        super().begin(base)
        self._decided.clear()
        self._by_command.clear()
        self._by_step.clear()

    def built(self, lsn: int, decision: journal.DecisionMade, built: Built) -> None:  # noqa: ARG002  it is at hand below
        """Keep the graph for the decision that comes with it."""
        self._built = built

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        """One event that is in order."""
        super().take(lsn, event, standing)
        tell = self._TELLS.get(type(event))
        if tell is not None:
            tell(self, event)

    def examples(self, horizon: int) -> tuple[list[Example], Counter[str]]:
        """All decisions of which enough is known, and how many others there are, by reason."""
        came_of = outcomes([decided.moment for decided in self._decided], horizon)
        made, skipped = list[Example](), Counter[str]()
        for decided, outcome in zip(self._decided, came_of, strict=True):
            if decided.graph is None:
                skipped[NO_GRAPH] += 1
            elif decided.proposal is None:
                skipped[NOT_ASKED] += 1
            elif outcome is None:
                skipped[NOT_KNOWN] += 1
            else:
                made.append(_example(decided, decided.graph, decided.proposal, outcome))
        return made, skipped

    def _tell_decision(self, event: journal.DecisionMade) -> None:
        built, self._built = self._built, None
        command = pb.AdaptationCommand.FromString(event.command)
        observation = None if built is None else built.observation
        moment = Moment(
            run_id=event.training_run_id,
            step_lsn=event.step_lsn,
            action=action_of(command),
            losses=(event.validation_loss if event.has_validation_loss else None, _training_loss(observation)),
            hazard=hazard_of(event.rows),
            blames_training=blames_training(event.risk_reason, event.rows),
        )
        inference = None if built is None else built.step.inference
        decided = _Decided(
            moment,
            bool(event.germinated_seed_id),
            None if built is None else built.graph,
            proposal_of(inference) if isinstance(inference, journal.InferenceObserved) else None,
        )
        self._forget_the_oldest()
        self._decided.append(decided)
        self._by_command[command.command_id] = moment
        self._by_step[event.step_lsn] = moment

    def _forget_the_oldest(self) -> None:
        """What is said of one that is gone finds nobody."""
        if len(self._by_step) >= 2 * (self._decided.maxlen or 0):
            held = {id(decided.moment) for decided in self._decided}
            self._by_command = {key: one for key, one in self._by_command.items() if id(one) in held}
            self._by_step = {key: one for key, one in self._by_step.items() if id(one) in held}

    def _tell_report(self, event: journal.FieldReportIssued) -> None:
        report = pb.FieldReport.FromString(event.report)
        moment = self._by_command.get(report.command_id)
        if moment is not None and not event.synthesised:  # the other kind sums up what this one's followers say
            moment.regressed = moment.blames_training and report.outcome == pb.FIELD_REPORT_OUTCOME_REGRESSION

    def _tell_delivery(self, event: journal.CommandDelivered) -> None:
        moment = self._by_command.get(event.command_id)
        if moment is not None and moment.delivery != APPLIED:  # once more it is refused as a copy
            moment.delivery = event.outcome

    def _tell_late(self, event: journal.CommitLate) -> None:
        moment = self._by_step.get(event.step_lsn)
        if moment is not None:
            moment.superseded = True

    _TELLS: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = MappingProxyType(
        {
            journal.DecisionMade: _tell_decision,
            journal.FieldReportIssued: _tell_report,
            journal.CommandDelivered: _tell_delivery,
            journal.CommitLate: _tell_late,
        }
    )


def _example(decided: _Decided, graph: Graph, proposal: Proposal, outcome: Outcome) -> Example:
    moment = decided.moment
    return Example(
        step_lsn=moment.step_lsn,
        run_id=moment.run_id,
        graph=graph,
        proposal=proposal,
        action=moment.action,
        is_own=moment.action == argmax(proposal.action) and moment.was_applied,
        germinates=decided.germinates,
        outcome=outcome,
    )


def _training_loss(observation: Observation | None) -> float | None:
    if observation is None:
        return None
    loss = observation.training_loss if observation.training_loss is not None else observation.metrics.get("loss")
    return loss if loss is not None and math.isfinite(loss) else None


def _integrity(path: Path) -> wal.Verdict:
    """Level 1 of an audit: a replay looks at no hash, and not all that a graph shows can be recomputed."""
    try:
        verdict = wal.verify(path)
    except (FileNotFoundError, NotADirectoryError):
        verdict = None
    if verdict is None or not verdict.segments:
        raise FileNotFoundError(f"there is no log at {path}; give the directory that the service was opened with")
    if not verdict.sound:
        raise NothingToLearn(_words(path, f"after LSN {verdict.last_lsn}: {verdict.problem}"))
    return verdict


def _words(path: Path, what: str) -> str:
    return (
        f"the log {path} does not pass its audit {what}. Nothing is learned from it; `tamiyo audit --level 3` says more"
    )
