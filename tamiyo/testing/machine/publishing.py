"""The laws of publishing, kept by a second bookkeeper that reads the log and sees the bus.

It knows the requirements, not the code: nothing goes out before it is durable, or of a step before it is certain what
was released for it; a cursor moves after the bus has the message; the same message always has the same words.
"""

from collections.abc import Iterable, Sequence

from tamiyo.bus import NORMAL, telemetry_letter
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.bus import MemoryBus, Message
from tamiyo.testing.machine.law import require

__all__ = ["BusBook"]

DURABLE = "nothing is published that is not durable"
CURSOR = "a cursor moves once the bus has the message"
DROPPED = "telemetry is dropped only where the bus refuses that packet by name"


class BusBook:
    """Follows the events of a log in order, and the messages of the bus beside it; raises `LawBroken`.

    `telemetry` has the packets' bytes by id, `dropped` the ids of those that were refused for good.
    """

    def __init__(self, bus: MemoryBus, published_at: Sequence[int]) -> None:
        """`published_at`: how far the log was durable when each message of the bus was handed over."""
        self.telemetry: dict[str, bytes] = {}
        self.dropped: set[str] = set()
        self._reader = TelemetryReader()
        self._places: dict[str, int] = {}  # the LSN with which each message was complete
        self._reports: dict[str, bytes] = {}
        self._bus = bus
        self._published_at = published_at
        self._checked = 0
        self._payloads: dict[str, bytes] = {}

    def take(self, lsn: int, event: Event) -> None:
        """One more event."""
        packet = self._reader.take(lsn, event)
        if packet is not None:
            letter = telemetry_letter(packet)
            self.telemetry[letter.message_id] = letter.payload
            self._places[letter.message_id] = lsn
        if isinstance(event, journal.FieldReportIssued):
            report_id = pb.FieldReport.FromString(event.report).report_id
            self._reports[report_id] = event.report
            self._places[report_id] = lsn
        elif isinstance(event, journal.TelemetryDropped):
            require(event.packet_id in self.telemetry and event.packet_id in self._bus.named, DROPPED, event)
            self.dropped.add(event.packet_id)
        elif isinstance(event, journal.TelemetryDrained):
            self._require_taken(self._through(event.through_lsn))
        elif isinstance(event, journal.PublishAttempted) and event.succeeded:
            self._require_taken(event.report_ids)

    def check(self, superseded: Iterable[str]) -> None:
        """What went out since the last time stands in the log; `superseded` are commands whose commit was late."""
        late = {f"fr-{command_id}" for command_id in superseded}
        fresh = self._bus.messages[self._checked :]
        for message, durable_lsn in zip(fresh, self._published_at[self._checked :], strict=True):
            known = self._payloads.setdefault(message.message_id, message.payload)
            require(known == message.payload, "a message that comes again is the same", message.message_id)
            require(message.message_id not in late, "no report of a superseded command goes out", message.message_id)
            self._require_durable(message, durable_lsn)
        self._checked = len(self._bus.messages)

    def next_telemetry(self) -> list[str]:
        """The id of the first telemetry packet that the bus does not have; none where it has all."""
        taken = self._taken() | self.dropped
        return [name for name in self.telemetry if name not in taken][:1]

    def unpublished(self, through_lsn: int) -> set[str]:
        """The telemetry packets up to an LSN that the bus does not have, and that were not dropped."""
        return self._through(through_lsn) - self._taken()

    def untold(self, lsn: int) -> set[str]:
        """The telemetry packets, but for dropped ones, and field reports up to an LSN that the bus does not have."""
        return {name for name, place in self._places.items() if place <= lsn} - self._taken() - self.dropped

    def _through(self, lsn: int) -> set[str]:
        return {name for name in self.telemetry if self._places[name] <= lsn} - self.dropped

    def _require_durable(self, message: Message, durable_lsn: int) -> None:
        stored = self._reports if message.stream == NORMAL else self.telemetry
        require(stored.get(message.message_id) == message.payload, DURABLE, message.message_id)
        place = self._places[message.message_id]
        require(place <= durable_lsn, DURABLE, f"{message.message_id} of LSN {place}, when {durable_lsn} was durable")

    def _require_taken(self, ids: Iterable[str]) -> None:
        missing = set(ids) - self._taken()
        require(not missing, CURSOR, missing)

    def _taken(self) -> set[str]:
        """The ids of what the bus has, those that were not looked at yet included."""
        return self._payloads.keys() | {message.message_id for message in self._bus.messages[self._checked :]}
