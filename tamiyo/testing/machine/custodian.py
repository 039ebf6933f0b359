"""Who has old records taken from a log: lets it grow and age, and calls for retention runs, or asks for them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import wal
from tamiyo.errors import TamiyoError
from tamiyo.requests import RETAIN
from tamiyo.testing.machine.law import require
from tamiyo.testing.machine.subject import Subject

__all__ = ["AGES_S", "FAILURES", "Custodian"]

ENDS = "a retention run comes to its end, unless disk or log fail"
TAKES_ALL = "a retention run takes all that is due"
FAILURES = (TamiyoError, wal.LogError, OSError)
"""What a run may raise whose disk or log fails meanwhile."""
AGES_S = (60.0, 25.0)
"""By `SETTINGS`, after so much time the window of the whole log has passed, or that of reports alone."""


class Custodian:
    """The custodian of one subject's log. While the disk hangs it does nothing: a run would wait for the disk."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._world = subject.world

    def let_grow(self, lengthy: bytes, calm: bytes, *, age_s: float) -> None:
        """Fill a segment, look back, publish, and let time pass."""
        subject = self._subject
        subject.be_calm(lengthy, steps=2, seconds=0.0)
        with self._looking_back():
            subject.be_calm(calm, steps=1, seconds=0.0)
        subject.keep_up()
        subject.publish()
        self._world.clock.advance(age_s)

    def retain(self, *, keep: wal.Head | None = None, asked: bool = False) -> None:
        """Have taken what is due, by a call, or `asked` for by a request; the head `keep` stays provable."""
        if self._world.disk.hanging:
            return
        subject = self._subject
        well = subject.is_well
        heads = () if keep is None or subject.service.log.durable_lsn < keep.size else (keep,)
        if asked:
            subject.ask(RETAIN, keep_heads=tuple(str(head) for head in heads))
        else:
            self._call(heads, well=well)
        subject.settle()
        subject.check_left()

    def _call(self, heads: tuple[wal.Head, ...], *, well: bool) -> None:
        subject, log = self._subject, self._subject.service.log
        try:
            report = subject.service.retain(keep_heads=heads)
        except FAILURES as failure:
            subject.settle()
            # A log that takes records may be on a full disk all the same: their place was allocated with the segment.
            well = well and subject.is_well and subject.service.log is log and not self._world.disk.is_full
            require(not well, ENDS, repr(failure))
            return
        subject.settle()
        book = subject.shadow.retention
        for outcome in report.outcomes:
            require(book.completed.get(outcome.completed.run_id) == outcome.completed, ENDS, outcome)
        require(not book.unfinished, ENDS, book.unfinished)
        preview = subject.service.preview_retention()
        require(not preview.plan.segments and not preview.payloads.total, TAKES_ALL, preview.text)

    def die(self, *, keep: wal.Head, asked: bool, operations: int) -> None:
        """A run amid which the process dies, after so many operations of the disk; the caller buries it."""
        if self._world.disk.hanging:
            return
        self._world.memory.power_off_after(operations)
        with suppress(*FAILURES):
            if asked:
                self._subject.ask(RETAIN, keep_heads=(str(keep),))
            else:
                self._subject.service.retain(keep_heads=(keep,))

    @contextmanager
    def _looking_back(self) -> Iterator[None]:
        """The next step leaves its state for whoever looks back, which else one in a thousand does."""
        journal_ = self._subject.service.journal
        every, journal_.checkpoint_steps = journal_.checkpoint_steps, 1
        try:
            yield
        finally:
            journal_.checkpoint_steps = every
