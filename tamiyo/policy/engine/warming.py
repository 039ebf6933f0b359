"""Nobody who waits for an answer meets a size of graph for the first time, where that size was told ahead.

A compiled form makes its kernels for each padded size when it first meets it, which takes ten times a usual run, and
holds up whoever calls meanwhile. So there are two copies of it: callers are all in front, and the other is tried on
the sizes to come, on a thread of its own. When it is ahead they change places, and the one that was in front catches
up. Both are made from the same weights in the same way: what they answer is the same to the last bit.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tamiyo.ending import is_ending, under_way
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.form import Form, Sample, Size, size_of
from tamiyo.policy.engine.raw import Raw

__all__ = ["SIZES_MAX", "WANTED_MAX", "WarmedForm"]

WANTED_MAX = 8
"""Sizes that wait for their turn; the newest first, and the oldest is forgotten."""

SIZES_MAX = 64
"""Sizes that are remembered as met, then all are forgotten: OpenVINO keeps what it made for twice as many."""

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Copy:
    form: Form
    met: set[Size] = field(default_factory=set)
    inside: int = 0


class WarmedForm:
    """A form in two copies, the second made when a size is first told ahead.

    Args:
        make: compiles one copy. Raises what compiling raises, here and later, where it is only logged.
        sample: any graph of a size.
        own: forms that are made for one size each, which know no other and need no copy.
    """

    def __init__(
        self,
        make: Callable[[], Form],
        sample: Sample,
        own: Mapping[Size, Form] = MappingProxyType({}),
    ) -> None:
        self._make = make
        self._own = own
        self._sample = sample
        self._changed = threading.Condition()
        self._front = _Copy(make())
        self._back: _Copy | None = None
        self._wanted: deque[Size] = deque(maxlen=WANTED_MAX)
        self._thread: threading.Thread | None = None
        self._is_broken = self._is_resting = False
        self.engine = self._front.form.engine

    def run(self, dense: Dense) -> Raw:
        """One graph, on the form of its size, else on the copy that is in front."""
        size = size_of(dense)
        own = self._own.get(size)
        if own is not None:
            return own.run(dense)
        with self._changed:
            copy = self._front
            copy.inside += 1
        try:
            raw = copy.form.run(dense)
        finally:
            with self._changed:
                copy.inside -= 1
                if not copy.inside and copy is not self._front:
                    self._changed.notify_all()
        if size not in copy.met:
            self._remember(copy, size)
        return raw

    def warm_up(self, sizes: Iterable[Size]) -> None:
        """Meet these sizes now, on this thread. For a form that nobody waits for yet. Raises what running raises."""
        for size in sizes:
            if size not in self._front.met:
                self.run(self._sample(size))

    def expect(self, sizes: Iterable[Size]) -> None:
        """Meet these sizes soon, on another thread, the last one first; returns at once."""
        with self._changed:
            for size in sizes:
                if size in self._wanted:
                    self._wanted.remove(size)
                if size not in self._front.met and size not in self._own:
                    self._wanted.append(size)
            if self._wanted:
                self._is_resting = False
                if self._thread is None and not self._is_broken:
                    self._start()

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is expected any more; whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout_s)

    def rest(self) -> None:
        """Nobody calls for now: let the second copy go, until something is expected again."""
        with self._changed:
            self._wanted.clear()
            self._is_resting = True
            if self._thread is None:
                self._back = None

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="tamiyo-warm-up", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: a step will meet the size
            return
        self._thread = thread

    def _work(self) -> None:
        try:
            with under_way():
                self._meet_all()
        except Exception as error:  # noqa: BLE001  whatever it was, steps meet new sizes themselves from now on
            logger.warning("the network cannot be warmed up ahead of its steps, which meet new sizes: %s", str(error))
            with self._changed:
                self._is_broken = True
                self._ended()

    def _meet_all(self) -> None:
        back = self._behind()
        while (size := self._next(back)) is not None:
            back.form.run(self._sample(size))
            self._remember(back, size)
            back = self._behind()

    def _ended(self) -> None:
        self._thread = None
        if self._is_resting or self._is_broken:
            self._back = None
        self._changed.notify_all()

    def _behind(self) -> _Copy:
        """The copy that nobody is in: the one in front gives way to one that has met more."""
        with self._changed:
            back = self._back
        if back is None:
            back = _Copy(self._make())
        with self._changed:
            if back.met > self._front.met:
                self._front, back = back, self._front
            self._back = back
            self._changed.wait_for(lambda: not back.inside)  # who came before they changed places
            return back

    def _next(self, back: _Copy) -> Size | None:
        """What the copy behind lacks of the other, then what is wanted; None where there is no more, or no use."""
        with self._changed:
            is_of_use = not self._is_resting and not is_ending()
            lacking = self._front.met - back.met
            if is_of_use and lacking:
                return lacking.pop()
            while is_of_use and self._wanted:
                size = self._wanted.pop()
                if size not in back.met:
                    return size
            self._ended()  # here, under the lock: whoever expects more from now on starts another thread
            return None

    def _remember(self, copy: _Copy, size: Size) -> None:
        with self._changed:
            if len(copy.met) >= SIZES_MAX:
                for one in (self._front, self._back):
                    if one is not None:
                        one.met.clear()
            copy.met.add(size)
