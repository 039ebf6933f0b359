"""The laws of decisions, kept by a second bookkeeper that reads nothing but the log.

It knows the requirements, not the code: which rows pause and which bring on conservative mode, when that mode ends,
that each decision has its report, and that a late commit supersedes a command which nobody was given.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.machine.breakers import CLOSED, BreakerBook
from tamiyo.testing.machine.commands import check_command, restrictiveness, safe_id
from tamiyo.testing.machine.law import require

__all__ = ["DecisionBook"]

BRING_ON = frozenset(
    {"nonfinite_metric", "rollback_deadline", "bp_quarantine", "bsds_handling_quarantine", "bsds_hazard_critical",
     "policy_risk_critical", "loss_spike"}
)  # fmt: skip
"""Rows that bring on conservative mode."""
HOLD = ("inference", "log")
"""Breakers that bring it on, and hold it until they are CLOSED."""
PAUSE_RANK, DOWNGRADED_RANK = 3, 1


@dataclass(slots=True)
class _Mode:
    """Conservative mode as the log tells it."""

    active: bool = False
    since_ns: int = 0
    clean_steps: int = 0
    held: bool = False  # by an operator


@dataclass(slots=True)
class _Decided:
    """A decision whose consequences are still to come in the log."""

    event: journal.DecisionMade
    command: pb.AdaptationCommand
    was_active: bool
    clean_steps: int
    changed: bool = False


class DecisionBook:
    """Follows the events of a log in order; raises `LawBroken` at the first that breaks a law.

    `commands` are the decided commands in unsigned bytes by id, `superseded` the ids of those whose commit was late,
    `released` the ids of the safe PAUSEs that the log tells of; `reports` the field reports' bytes by id, `dropped`
    the ids of those that are published no more; `directives` the operators' reasons, `deliveries` (id, outcome),
    `decided` (step LSN, command id) in order; `unrecorded` the steps that no record was taken of, `timed_out` those of
    them that the log was too busy for.
    """

    def __init__(self, breakers: BreakerBook) -> None:
        self.commands: dict[str, bytes] = {}
        self.superseded: set[str] = set()
        self.released: set[str] = set()
        self.reports: dict[str, bytes] = {}
        self._breakers = breakers
        self._thresholds = Thresholds()
        self._mode = _Mode()
        self._received: dict[int, journal.StepReceived] = {}
        self._ids: dict[int, str] = {}
        self._open: _Decided | None = None
        self._directed = False  # the event before was an operator's
        self.directives: set[str] = set()
        self.deliveries: set[tuple[str, str]] = set()
        self.dropped: set[str] = set()
        self.decided: list[tuple[int, str]] = []
        self.unrecorded = 0
        self.timed_out = 0

    def take(self, lsn: int, event: Event) -> None:
        """One more event; the breakers' book has it already."""
        directed, self._directed = self._directed, False
        if isinstance(event, journal.ServiceOpened):
            self._thresholds = Thresholds.from_map(event.thresholds)
            self._mode.since_ns = event.event_time_ns if self._mode.active else self._mode.since_ns
        elif isinstance(event, journal.StepReceived):
            self._received[lsn] = event
        elif isinstance(event, journal.DecisionMade):
            self._decided(event)
        elif isinstance(event, journal.ConservativeModeChanged):
            self._changed(event, by_operator=directed)
        elif isinstance(event, journal.OperatorDirected):
            self._mode.held = event.directive == "conservative_on"
            self._directed = True
            self.directives.add(event.reason)
        elif isinstance(event, journal.CommandDelivered):
            self.deliveries.add((event.command_id, event.outcome))
        elif isinstance(event, journal.StepsUnrecorded):
            self.unrecorded += event.count
            self.timed_out += event.timed_out
            self._mode.clean_steps = 0 if event.count else self._mode.clean_steps
        elif isinstance(event, journal.FieldReportsDropped):
            self.dropped.update(event.report_ids)
        elif isinstance(event, journal.FieldReportIssued):
            self._reported(event)
        elif isinstance(event, journal.CommitLate):
            self._superseded(event)
        elif isinstance(event, journal.StepPaused):
            self._told(event)

    @property
    def undecided(self) -> Iterable[int]:
        """The LSNs of packets that were neither decided nor paused."""
        return self._received

    @property
    def kept_back(self) -> set[str]:
        """The ids of reports that need not be published: dropped ones, and those of superseded commands."""
        return self.dropped | {f"fr-{command_id}" for command_id in self.superseded}

    def check(self) -> None:
        """At the end of a batch."""
        told = self._open.event.step_lsn if self._open else 0
        require(self._open is None, "every decision has its field report", f"step LSN {told} has none")

    def _decided(self, event: journal.DecisionMade) -> None:
        self.check()
        command = pb.AdaptationCommand.FromString(event.command)
        received = self._received.pop(event.step_lsn, None)
        require(received is not None, "a decision follows its packet, once", f"step LSN {event.step_lsn}")
        unsigned = pb.AdaptationCommand.FromString(event.command)
        unsigned.annotations["signature"] = "-"  # it comes after the log
        check_command(unsigned)
        asked = {"pause": PAUSE_RANK, "downgrade": DOWNGRADED_RANK, "none": 0}
        least = max((asked[row.effect] for row in event.rows), default=0)
        require(restrictiveness(command) >= least, "the most restrictive of proposal and rows is commanded", event)
        pausing = [row.reason for row in event.rows if row.effect == "pause" and row.reason != "conservative_mode"]
        require(event.clean == (not pausing), "a clean step is one in which no other row paused", pausing)
        if self._mode.active:
            require(command.command_type == pb.COMMAND_PAUSE, "conservative mode commands PAUSE", event)
        self._mode.clean_steps = self._mode.clean_steps + 1 if event.clean else 0
        self._open = _Decided(event, command, self._mode.active, self._mode.clean_steps)
        self.commands[command.command_id] = event.command
        self._ids[event.step_lsn] = command.command_id
        self.decided.append((event.step_lsn, command.command_id))

    def _changed(self, event: journal.ConservativeModeChanged, *, by_operator: bool) -> None:
        require(event.active != self._mode.active, "conservative mode changes when it does", event)
        if not event.active:
            law = "conservative mode that an operator set ends by an operator"
            require(by_operator or not self._mode.held, law, event)
        clean_steps = 0 if event.active else self._mode.clean_steps
        self._mode = _Mode(event.active, event.event_time_ns, clean_steps, self._mode.held)
        if self._open is not None:
            self._open.changed = True

    def _reported(self, event: journal.FieldReportIssued) -> None:
        report = pb.FieldReport.FromString(event.report)
        require(report.report_id not in self.reports, "a field report is issued once", report.report_id)
        self.reports[report.report_id] = event.report
        opened = self._open
        if event.synthesised or opened is None or event.step_lsn != opened.event.step_lsn:
            return
        own = report.report_id == f"fr-{opened.command.command_id}"
        require(own, "a decision's field report names its command", report)
        self._judge_mode(opened)
        self._open = None

    def _judge_mode(self, opened: _Decided) -> None:
        """Whether conservative mode changed with this decision exactly when it had to."""
        held = any(self._breakers.state_of(name) != CLOSED for name in HOLD)
        if not opened.was_active:
            due = held or any(row.reason in BRING_ON for row in opened.event.rows)
            require(opened.changed == due, "conservative mode is entered when a row or breaker says so", opened.event)
            return
        since_ns = self._mode.since_ns if not opened.changed else 0
        cooled = opened.event.event_time_ns - since_ns >= self._thresholds.conservative_cool_down_s * 1e9
        calm = opened.event.clean and opened.clean_steps >= self._thresholds.conservative_clean_steps
        due = cooled and calm and not held and not self._mode.held
        require(opened.changed == due, "conservative mode ends when it has cooled down and calmed", opened.event)

    def _superseded(self, event: journal.CommitLate) -> None:
        command_id = self._ids.get(event.step_lsn, "")
        require(command_id not in self.superseded, "a commit is late once", command_id)
        self.superseded.add(command_id)
        self._release(event, command_id)

    def _told(self, event: journal.StepPaused) -> None:
        received = self._received.pop(event.step_lsn, None)
        require(received is not None, "a packet is decided or paused, once", f"step LSN {event.step_lsn}")
        self._release(event, received.decision_id if received is not None else "")

    def _release(self, event: journal.CommitLate | journal.StepPaused, decision_id: str) -> None:
        expected = safe_id(decision_id, event.cause)
        require(event.released_command_id == expected, "a safe PAUSE's id follows from step and cause", event)
        self.released.add(event.released_command_id)
        self._mode.clean_steps = 0
