"""What operators ask of the policy desk by a request: each on a thread of its own, because loading takes a while.

Rule: a job that hangs keeps no process from ending. One that is under way when the process ends is given `ENDING_S`
first, because a library that is torn down while it loads a network takes the process down with it.
"""

import atexit
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from tamiyo.errors import NotRecorded, PolicyUnchanged, RequestRejected
from tamiyo.policies import PolicyDesk
from tamiyo.policy.store import read_bytes
from tamiyo.requests import POLICY_INSTALL, Request

__all__ = ["begin_policy_job", "carry_out"]

ENDING_S = 5.0
"""Ten times what loading and trying out the largest network there is takes."""

_under_way: set[threading.Thread] = set()


def begin_policy_job(desk: PolicyDesk, request: Request) -> Future[bytes]:
    """Begin it; the answer is a sentence."""
    job: Future[bytes] = Future()

    def run() -> None:
        try:
            job.set_result(carry_out(desk, request).encode())
        except Exception as error:  # noqa: BLE001  whatever it was, whoever waits for the job is to hear of it
            job.set_exception(error)
        finally:
            _under_way.discard(threading.current_thread())

    thread = threading.Thread(target=run, name="tamiyo-policy-job", daemon=True)
    _under_way.add(thread)
    try:
        thread.start()
    except RuntimeError as error:  # no thread to be had
        _under_way.discard(thread)
        job.set_exception(error)
    return job


@atexit.register
def _let_jobs_end() -> None:
    """Wait for what is under way, all together `ENDING_S` at most."""
    deadline_s = time.monotonic() + ENDING_S
    for thread in tuple(_under_way):
        thread.join(max(0.0, deadline_s - time.monotonic()))


def carry_out(desk: PolicyDesk, request: Request) -> str:
    """Do what a request asks for; what came of it, in a sentence.

    Raises:
        RequestRejected: it could not be done; the message says why.
        NotRecorded: the log takes no record at the moment; it may be asked for again.
    """
    if request.directive != POLICY_INSTALL:
        try:
            version = desk.roll_back(operator=request.operator, reason=request.reason, request_id=request.request_id)
        except PolicyUnchanged as error:
            raise RequestRejected(str(error)) from error
        return f"policy {version} speaks again"
    path = Path(request.checkpoint)
    try:
        data = read_bytes(path)
    except OSError as error:
        raise RequestRejected(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    try:
        verdict = desk.install(
            data, str(path), operator=request.operator, reason=request.reason, request_id=request.request_id
        )
    except NotRecorded as error:
        if isinstance(error.__cause__, OSError):  # the directory takes no checkpoint: not the log's matter
            raise RequestRejected(str(error)) from error
        raise
    if not verdict.installed:
        raise RequestRejected(f"{verdict.reason}: {verdict.detail}")
    if verdict.detail:
        return f"policy {verdict.version} speaks already; {verdict.detail}"
    return f"policy {verdict.version} speaks from now on"
