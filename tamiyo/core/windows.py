"""Observation windows: how training went in the decisions after a command.

A window opens with its command's decision and closes N decisions later, with a synthesised report
`fr-synth-<command_id>-<start_epoch>+<N>`. Its own decision is not part of what it observes: that was before the
command. At most `WINDOWS_MAX` are open; past that the oldest closes early, NEUTRAL, and is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.state import WINDOWS_MAX, Sample, Window, Windows
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Observed", "observe", "windows_closed"]

SUCCESS, NEUTRAL = pb.FIELD_REPORT_OUTCOME_SUCCESS, pb.FIELD_REPORT_OUTCOME_NEUTRAL
REGRESSION = pb.FIELD_REPORT_OUTCOME_REGRESSION


@dataclass(frozen=True, slots=True)
class Observed:
    """Samples added up: the loss over the finite ones, the hook latency over those that had one."""

    decisions: int
    loss_delta_total: float
    loss_delta_min: float
    loss_delta_max: float
    avg_hook_latency_ms: float | None
    critical: bool

    @property
    def outcome(self) -> int:
        """SUCCESS where loss fell and nothing CRITICAL happened, REGRESSION where it rose or something did."""
        if self.critical or self.loss_delta_total > 0.0:
            return REGRESSION
        return SUCCESS if self.loss_delta_total < 0.0 else NEUTRAL


def observe(samples: Sequence[Sample]) -> Observed:
    """Add samples up, oldest first."""
    total = hook_total = 0.0
    least = most = None
    hooks = 0
    critical = False
    for sample in samples:
        delta, hook_ms = sample.loss_delta, sample.hook_latency_ms
        critical = critical or sample.critical
        if delta - delta == 0.0:
            total += delta
            least = delta if least is None or delta < least else least
            most = delta if most is None or delta > most else most
        if hook_ms is not None:
            hook_total += hook_ms
            hooks += 1
    average = hook_total / hooks if hooks else None
    return Observed(len(samples), total, least or 0.0, most or 0.0, average, critical)


def windows_closed(
    state: Standing, made: journal.DecisionMade, command: pb.AdaptationCommand, *, step_lsn: int
) -> tuple[Event, ...]:
    """The windows that a decision closes, each with its report; the decision's own is not among them."""
    number = state.decisions + 1
    hook_ms = made.hook_latency_ms if made.has_hook_latency else None
    now = Sample(number, made.loss_delta, hook_ms, made.critical)
    events: list[Event] = []
    for window in _closing(state.windows, number):
        expired = window.closes_at > number
        seen = observe([*state.windows.after(window.opened_at), now])
        outcome = NEUTRAL if expired else seen.outcome
        closed = journal.WindowClosed(
            step_lsn=step_lsn,
            command_id=window.command_id,
            outcome=outcome,
            observed=seen.decisions,
            expired=expired,
        )
        report = _report(window, seen, outcome, command)
        issued = journal.FieldReportIssued(
            step_lsn=step_lsn, report=report.SerializeToString(deterministic=True), synthesised=True
        )
        events += [closed, issued]
    return tuple(events)


def _closing(windows: Windows, number: int) -> list[Window]:
    """Those that close with this decision, and those that have been open for as long as any may be."""
    if len(windows.samples) + 1 < WINDOWS_MAX:  # then none is that old, and the first to close come first
        return list(takewhile(lambda window: window.closes_at <= number, windows.open))
    return [w for w in windows.open if w.closes_at <= number or number - w.opened_at >= WINDOWS_MAX]


def _report(window: Window, seen: Observed, outcome: int, command: pb.AdaptationCommand) -> pb.FieldReport:
    report = pb.FieldReport(
        version=1,
        report_id=f"fr-synth-{window.command_id}-{window.start_epoch}+{window.length}",
        command_id=window.command_id,
        training_run_id=window.training_run_id,
        seed_id=window.seed_id,
        blueprint_id=window.blueprint_id,
        observation_window_epochs=window.length,
        tamiyo_policy_version=window.policy_version,
        notes="synthesised",
    )
    report.outcome = outcome  # type: ignore[assignment]  # a Leyline value
    report.issued_at.CopyFrom(command.issued_at)
    report.metrics["loss_delta_total"] = seen.loss_delta_total
    report.metrics["loss_delta_min"] = seen.loss_delta_min
    report.metrics["loss_delta_max"] = seen.loss_delta_max
    if seen.avg_hook_latency_ms is not None:
        report.metrics["avg_hook_latency_ms"] = seen.avg_hook_latency_ms
    return report
