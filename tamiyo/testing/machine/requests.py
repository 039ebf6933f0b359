"""The laws of requests, kept by a second bookkeeper that sees the folder and reads the log.

It knows the requirements, not the code: a request counts once, its file goes only once the log has it, and what cannot
be used is moved aside with the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tamiyo.core import state
from tamiyo.core.events import Event
from tamiyo.policies import PUT_BACK
from tamiyo.requests import JOBS, RETAIN, Request, RequestBox
from tamiyo.testing.machine.law import require

__all__ = ["RequestBook"]

GONE = "a request goes only once the log has it, or it is moved aside or answered"


@dataclass(frozen=True, slots=True)
class _Left:
    path: Path
    data: bytes
    directive: str
    is_job: bool


class RequestBook:
    """Follows the events of a log in order, and the requests that were left beside it; raises `LawBroken`.

    `left` are those that nobody has taken up yet.
    """

    def __init__(self, box: RequestBox) -> None:
        self.left: dict[str, _Left] = {}
        self._box = box
        self._number = 0
        self._recorded: dict[str, int] = {}  # how many ids were recorded before the last time of each
        self._records = 0
        self._last_gone: tuple[str, _Left] | None = None

    def leave(
        self,
        directive: str,
        *,
        reason: str = "",
        checkpoint: str = "",
        damage: bytes | None = None,
        keep_heads: tuple[str, ...] = (),
    ) -> str:
        """Leave a request, `damage` in place of its words where it is given; its id."""
        self._number += 1
        request_id = str(UUID(int=self._number))
        request = Request(request_id, directive, "ada", reason, checkpoint=checkpoint, keep_heads=keep_heads)
        path = RequestBox.leave(self._box, request)
        if damage is not None:
            path.write_bytes(damage)
        self.left[request_id] = _Left(path, path.read_bytes(), directive, directive in JOBS or damage is not None)
        return request_id

    def take(self, event: Event) -> None:
        """One more event."""
        request_id = getattr(event, "request_id", "")
        if request_id:
            before = self._recorded.get(request_id)
            remembered = before is not None and self._records - before <= state.DIRECTIVES_MAX
            require(not remembered, "a request counts once", event)
            self._recorded[request_id] = self._records
            self._records += 1

    def check(self) -> None:
        """What is gone is where it belongs."""
        for request_id, left in tuple(self.left.items()):
            if left.path.exists():
                continue
            recorded = request_id in self._recorded
            require(recorded or (left.is_job and self._is_dealt_with(left)), GONE, left.path.name)
            if recorded and not left.is_job:
                self._last_gone = request_id, left
            del self.left[request_id]

    def lose_power(self) -> None:
        """The machine lost its power: the file that went last is back, for nobody synced its folder."""
        if self._last_gone is not None:
            request_id, left = self._last_gone
            left.path.write_bytes(left.data)
            self.left[request_id] = left
            self._last_gone = None

    def _is_dealt_with(self, left: _Left) -> bool:
        aside = self._box.path / "aside" / left.path.name
        if aside.with_name(f"{aside.name}.reason").exists():
            return True
        answer = (self._box.take_answer(left.path) or b"").decode()
        return PUT_BACK in answer or (left.directive == RETAIN and '"runs"' in answer)  # of others the log has a record
