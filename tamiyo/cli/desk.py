"""What `tamiyo policy` and `tamiyo registries` do to a directory, beside a live service or without one."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

import wal
from tamiyo.errors import RequestRejected, TamiyoError

if TYPE_CHECKING:
    from tamiyo.journal import Journal
    from tamiyo.requests import Request

__all__ = ["WAIT_S", "CannotSay", "asked", "cannot_go_on", "has_log", "journal_of", "require_log"]

WAIT_S = 30.0
"""A live service loads and tries out a network first."""
LOOK_EVERY_S = 0.05
ANY_SEGMENT_BYTES = 2**20


class CannotSay(click.ClickException):
    """A command came to no verdict, and its exit status 1 may be one."""

    exit_code = 3


def cannot_go_on(what: str, error: OSError) -> str:
    """What a command says of a path that it cannot use: the system names neither what was wanted nor what to do."""
    return f"{what} cannot go on: {error}; look at the path, its permissions and its disk"


def require_log(directory: Path) -> None:
    """Refuse a directory without a log."""
    if not has_log(directory):
        log = directory / "wal"
        raise click.UsageError(f"{directory} has no log: {log} holds no segment. Name the directory of a service.")


def has_log(directory: Path) -> bool:
    """Whether a directory has a log; one that may not be looked into is another matter, and refused."""
    log = directory / "wal"
    try:
        return any(entry.name.endswith(".wal") for entry in log.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise click.ClickException(f"the log in {log} cannot be read: {error}") from error


def _segment_bytes(log: Path) -> int:
    """As the service has it: another length begins a new segment. Of a damaged log any will do, and of none.

    Opening that one says first who has it open, who may well go on, and only then what is wrong with it.
    """
    try:
        found = wal.segments(log)
    except wal.LogError:
        found = []
    return found[-1].size_bytes if found else ANY_SEGMENT_BYTES


@contextmanager
def journal_of(directory: Path) -> Iterator["Journal"]:
    """The journal of a directory that no service has open and that has a log. Raises what opening raises."""
    from tamiyo.clock import SystemClock
    from tamiyo.fingerprint import code_fingerprint
    from tamiyo.journal import Journal
    from tamiyo.snapshots import Snapshots

    log = directory / "wal"
    segment_bytes = _segment_bytes(log)
    snapshots = Snapshots(directory, code_fingerprint())
    journal = Journal(lambda: wal.Log.open(log, segment_bytes=segment_bytes), SystemClock(), snapshots)
    try:
        yield journal
    finally:
        journal.close()


def asked(directory: Path, request: "Request", wait_s: float) -> str:
    """Carry a request out here, or leave it to whoever has the log open; where they go without, carry it out here.

    Raises:
        click.ClickException: it was refused, or nobody could do it.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return _here(directory, request)
        except wal.LogLocked as locked:
            holder = "the live service" if locked.holder_pid is None else f"process {locked.holder_pid}"
        except (wal.LogError, TamiyoError, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        answer = _beside(directory, request, deadline_s, holder)
        if answer is not None:
            return answer


def _here(directory: Path, request: "Request") -> str:
    from tamiyo.clock import SystemClock
    from tamiyo.policies import PolicyDesk
    from tamiyo.policy.baseline import BaselinePolicy
    from tamiyo.policy.store import PolicyStore
    from tamiyo.policy_jobs import carry_out
    from tamiyo.speakers import Speakers, opening_speaker
    from tamiyo.speakers import load_checkpoint as load

    # What a service would log is this command's answer: without a handler of its own it would be printed twice.
    logging.getLogger("tamiyo.policies").addHandler(logging.NullHandler())
    with journal_of(directory) as journal:
        store = PolicyStore(directory)
        speaker, _ = opening_speaker(BaselinePolicy(), journal.state, store, load)
        return carry_out(PolicyDesk(journal, store, Speakers(speaker), clock=SystemClock()), request)


def _beside(directory: Path, request: "Request", deadline_s: float, holder: str) -> str | None:
    """What whoever has the log open says; None where the request was taken back, because nobody has it open now."""
    from tamiyo.requests import RequestBox
    from wal.lock import is_locked

    box = RequestBox(directory)
    try:
        path = box.leave(replace(request))
        while path.exists():
            if not is_locked(wal.OsDisk(), directory / "wal"):  # it ended, or it was a command like this one
                box.done(path)
                return None
            if time.monotonic() >= deadline_s:
                return f"left in {path}: {holder} has the log open, and takes it up as soon as its log takes records"
            time.sleep(LOOK_EVERY_S)
        aside = path.parent / "aside" / path.name
        if aside.exists():
            raise click.ClickException(aside.with_name(f"{path.name}.reason").read_text("utf-8").strip())
        answer = box.take_answer(path)
    except RequestRejected as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"a request cannot be left in {directory / 'requests'}: {error}") from error
    return "taken up by the live service" if answer is None else answer.decode()
