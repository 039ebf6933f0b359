"""What people and hosts tell the controller between steps: an operator's directive, the fate of a command.

An operator's conservative mode is held until an operator ends it. Ending it also ends a mode that a row brought on;
where a breaker that the step needs is not CLOSED, only the hold ends, and the mode itself once the breaker closes.
"""

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.ledger import Ledger

__all__ = ["CONSERVATIVE_OFF", "CONSERVATIVE_ON", "DIRECTIVES", "command_delivered", "operator_directed"]

CONSERVATIVE_ON, CONSERVATIVE_OFF = "conservative_on", "conservative_off"
DIRECTIVES = (CONSERVATIVE_ON, CONSERVATIVE_OFF)
OPERATOR = "operator"
"""The reason of a mode that an operator changed; who and why stand in the directive before it."""


def operator_directed(
    state: Standing, directive: str, *, operator: str, reason: str, now_ns: int, request_id: str = ""
) -> tuple[Event, ...]:
    """The directive, and the change of mode where it brings one about.

    Args:
        state: the state just before.
        directive: one of `DIRECTIVES`; another is illegal when folded.
        operator: who asks, not empty.
        reason: why, in their words.
        now_ns: event time.
        request_id: of the request that carried it; one that `state.directives` holds was taken up before.
    """
    directed = journal.OperatorDirected(
        directive=directive, operator=operator, reason=reason, event_time_ns=now_ns, request_id=request_id
    )
    on = directive == CONSERVATIVE_ON
    held = not on and Ledger(state.breakers, state.thresholds).holding()
    if on == state.conservative.active or held:
        return (directed,)
    return (directed, journal.ConservativeModeChanged(active=on, reason=OPERATOR, event_time_ns=now_ns))


def command_delivered(command_id: str, outcome: str, detail: str, *, now_ns: int) -> tuple[Event, ...]:
    """What became of a command, in the words of whoever was to apply it."""
    delivered = journal.CommandDelivered(command_id=command_id, outcome=outcome, detail=detail, event_time_ns=now_ns)
    return (delivered,)
