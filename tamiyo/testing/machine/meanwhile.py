"""Policies that come and go while commits are late: what is asked for is in force at once, and durable later.

As with a learner's calls and the upkeep, it is asked for on a thread beside the steps, which go on.

Rule: before a step begins, what was asked for has ended or waits for the disk, so that a history means the same each
time.
"""

from collections.abc import Iterable
from functools import partial
from itertools import product

from tamiyo.requests import POLICY_INSTALL, POLICY_ROLLBACK
from tamiyo.testing.machine.subject import Subject

__all__ = ["MEANWHILE", "Meanwhile"]

UPDATE, ROLL_BACK = "update", "roll_back"
MEANWHILE = (
    (POLICY_INSTALL,),
    (UPDATE,),
    *product((POLICY_INSTALL, UPDATE), (POLICY_ROLLBACK, ROLL_BACK)),
    (POLICY_INSTALL, UPDATE),
    (UPDATE, POLICY_INSTALL),
    (POLICY_ROLLBACK,),
    (ROLL_BACK,),
)
"""What may be asked for, one after the other: a roll-back where there is something to roll back, most of the time."""


class Meanwhile:
    """What is asked for while commits hang."""

    def __init__(self, subject: Subject) -> None:
        """Before the disk hangs: where a job is left from before, no request is, for which is done first is open."""
        self._subject = subject
        self._may_ask = not any(left.is_job for left in subject.shadow.requests.left.values())

    def do(self, deeds: Iterable[str], data: bytes) -> None:
        """One of `MEANWHILE`, beside a step with the packet `data`."""
        subject = self._subject
        subject.world.do_beside(partial(self._do, deeds), partial(subject.answer, data))

    def _do(self, deeds: Iterable[str]) -> None:
        subject = self._subject
        if self._may_ask:
            subject.world.flush_beside(subject.service)  # who fails on probation gives way before a job begins
        for deed in deeds:
            if deed == UPDATE:
                subject.learner.send(subject.service, "")
            elif deed == ROLL_BACK:
                subject.learner.roll_back(subject.service)
            elif self._may_ask:
                self._ask(deed)

    def _ask(self, directive: str) -> None:
        subject = self._subject
        subject.leave(directive)
        for _ in range(2):  # a job that does not wait for the disk is answered in the second
            subject.world.flush_beside(subject.service)
