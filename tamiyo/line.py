"""Telemetry in line for a bus: a packet that is refused for good gets out of the way, a bus that is down loses none.

    in line ──taken──▶ gone ───────────────┐
       │ refused                           ├─▶ settled, once all before it are
       ▼                                   │
    in doubt ──taken──▶ gone               │
       │ refused in 4 flushes, and each time a later packet was taken
       └──────────────▶ dropped ───────────┘

Rule 1: a bus does not say whether it refuses a packet or everything. So a refusal counts against a packet only where
        the bus took a later one of the same stream after it, in the same flush; after one that counted it waits.
Rule 2: packets after one in doubt go ahead, as many as are in line. Where the line is full and none but those in doubt
        are left, the bus is asked to take one of those again: that shows as well that it takes any, of the same
        stream where there is one, else of the other. So telemetry does not stop for one stream.
Rule 3: two refusals in a row are the bus's: the flush asks no more. What was refused often is asked for only where the
        bus is known to take others, or where nothing else is left; once one of these was refused, the flush asks for
        no other of them. So a run of bad packets, shorter than the line, hides no good one.
Rule 4: it lives in memory alone. A restart counts anew, and what went ahead goes out again, under the same id.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tamiyo.bus import Letter

__all__ = ["STRIKES_MAX", "Doubt", "Line"]

STRIKES_MAX = 4
"""As many attempts as a field report has by default."""
RUN_MAX = 2
"""Refusals in a row after which a flush asks no more: fewer than open the breaker."""
PATIENCE = 3
"""So often a packet is asked for in its turn, whatever the bus does; from then on it is suspect."""


@dataclass(slots=True)
class Doubt:
    """A letter that was refused: how often, why last, and how often while a later one was taken."""

    letter: Letter
    refusals: int = 0
    cause: str = ""
    strikes: int = 0
    due_ns: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it was refused so often that it says nothing of the bus."""
        return self.refusals >= PATIENCE


class Line:
    """The telemetry of one backlog, flush by flush. Not for several threads."""

    def __init__(self, backoff_ns: Callable[[int], int]) -> None:
        """`backoff_ns` says how long a packet waits after so many refusals that counted against it."""
        self._backoff_ns = backoff_ns
        self._gone: set[str] = set()  # what was taken or dropped, and is not settled, by id
        self._dropped: dict[str, Doubt] = {}
        self._doubts: dict[str, Doubt] = {}
        self._open: list[Letter] = []  # what this flush may ask for yet, in order
        self._ahead: list[Letter] = []  # what was taken and is not settled
        self._full = False
        self._refused: list[Doubt] = []  # in this flush, and no later one was taken yet
        self._run = 0  # refusals since the last letter that was taken
        self._any_refused = self._suspect_refused = self._other_asked = False
        self._is_up = False  # what the bus did with the last letter that was no suspect
        self._probe: Letter | None = None

    def begin(self, letters: Sequence[Letter], *, full: bool) -> None:
        """A flush begins, with all that is in line; `full` says that no more is read before some of it is settled."""
        here = {letter.message_id for letter in letters}
        self._gone &= here
        self._dropped = {name: doubt for name, doubt in self._dropped.items() if name in here}
        self._doubts = {name: doubt for name, doubt in self._doubts.items() if name in here}
        taken = self._gone - self._dropped.keys()
        self._open = [letter for letter in letters if letter.message_id not in self._gone]
        self._ahead = [letter for letter in letters if letter.message_id in taken]
        self._full = full
        self._refused, self._run, self._probe = [], 0, None
        self._any_refused = self._suspect_refused = self._other_asked = False

    def next(self, now_ns: int, *, on_trial: bool) -> Letter | None:
        """What the bus is to be asked to take next, at event time `now_ns`; None where this flush asks no more.

        On trial, the bus's breaker not being CLOSED, no suspect is asked for while there is another.
        """
        if self._run >= RUN_MAX:
            return None
        if self._refused and self._probe is None and self._ahead and self._full and self._only_doubts():
            self._probe = self._again(self._refused[-1].letter.stream)
            return self._probe
        suspects_too, waiting = self._is_up and not on_trial and not self._suspect_refused, None
        for place, letter in enumerate(self._open):
            doubt = self._doubts.get(letter.message_id)
            if doubt is None or (doubt.due_ns <= now_ns and (suspects_too or not doubt.is_suspect)):
                self._other_asked |= doubt is None or not doubt.is_suspect
                return self._open.pop(place)
            if waiting is None and doubt.due_ns <= now_ns:
                waiting = place
        if waiting is None or self._any_refused or self._other_asked:
            return None
        return self._open.pop(waiting)  # none else is there to ask whether the bus is

    def taken(self, letter: Letter, now_ns: int) -> None:
        """The bus has it."""
        any_stream = letter is self._probe
        if not any_stream:
            self._gone.add(letter.message_id)
            self._doubts.pop(letter.message_id, None)
            self._ahead.append(letter)
        self._run, self._is_up = 0, True
        for doubt in [refused for refused in self._refused if any_stream or refused.letter.stream == letter.stream]:
            self._strike(doubt, now_ns)

    def refused(self, letter: Letter, cause: str) -> None:
        """The bus does not take it, or not now."""
        self._run, self._any_refused = self._run + 1, True
        if letter is self._probe:
            self._is_up = False
            return
        doubt = self._doubts.setdefault(letter.message_id, Doubt(letter))
        if doubt.is_suspect:
            self._suspect_refused = True
        else:
            self._is_up = False
        doubt.refusals, doubt.cause = doubt.refusals + 1, cause
        self._refused.append(doubt)

    @property
    def is_done(self) -> bool:
        """Whether this flush took all that is in line, and refused nothing."""
        return not (self._open or self._doubts or self._any_refused)

    def is_settled(self, letters: Sequence[Letter]) -> bool:
        """Whether these are all taken or dropped."""
        return all(letter.message_id in self._gone for letter in letters)

    def dropped(self, letters: Sequence[Letter]) -> list[Doubt]:
        """Those of them that were dropped."""
        return [self._dropped[letter.message_id] for letter in letters if letter.message_id in self._dropped]

    def forget(self, message_ids: Collection[str]) -> None:
        """They are settled, and in line no more."""
        self._gone.difference_update(message_ids)
        for message_id in message_ids:
            self._dropped.pop(message_id, None)

    def _only_doubts(self) -> bool:
        return all(letter.message_id in self._doubts for letter in self._open)

    def _again(self, stream: str) -> Letter:
        """The last letter that was taken, of this stream where there is one."""
        return next((letter for letter in reversed(self._ahead) if letter.stream == stream), self._ahead[-1])

    def _strike(self, doubt: Doubt, now_ns: int) -> None:
        self._refused.remove(doubt)
        doubt.strikes += 1
        doubt.due_ns = now_ns + self._backoff_ns(doubt.strikes)
        if doubt.strikes >= STRIKES_MAX:
            message_id = doubt.letter.message_id
            del self._doubts[message_id]
            self._gone.add(message_id)
            self._dropped[message_id] = doubt
