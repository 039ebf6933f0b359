"""What became of a command, told by whoever was to apply it; it rides with the next batch."""

from tamiyo.core.directives import command_delivered
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.errors import DeliveryRejected
from tamiyo.riders import Make
from tamiyo.words import fault_of_text, printable

__all__ = ["delivery"]

ID_CHARS_MAX = 128
OUTCOME_CHARS_MAX = 64


def delivery(command_id: str, outcome: str, detail: str) -> Make:
    """The record of a delivery; `detail` may be any text and is cut to 300 characters.

    Raises:
        DeliveryRejected: the id or the outcome cannot be recorded.
    """
    for name, text, most in (("command_id", command_id, ID_CHARS_MAX), ("outcome", outcome, OUTCOME_CHARS_MAX)):
        fault = fault_of_text(text, 1, most)
        if fault:
            raise DeliveryRejected(f"the {name} of a delivery {fault}; give the command's own id and a word")
    words = printable(str(detail))

    def told(_: State, now_ns: int) -> tuple[Event, ...]:
        return command_delivered(command_id, outcome, words, now_ns=now_ns)

    return told
