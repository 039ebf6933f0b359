"""What operators ask of the policy desk by a request: each on a thread of its own, because loading takes a while.

A job that hangs keeps no process from ending, and one that does not is waited for: `tamiyo.ending`.
"""

import threading
from concurrent.futures import Future
from pathlib import Path

from tamiyo.ending import under_way
from tamiyo.errors import NotRecorded, PolicyUnchanged, RequestRejected
from tamiyo.policies import PolicyDesk
from tamiyo.policy.store import read_bytes
from tamiyo.requests import POLICY_INSTALL, Request

__all__ = ["begin_policy_job", "carry_out"]


def begin_policy_job(desk: PolicyDesk, request: Request) -> Future[bytes]:
    """Begin it; the answer is a sentence."""
    job: Future[bytes] = Future()

    def run() -> None:
        with under_way():
            try:
                job.set_result(carry_out(desk, request).encode())
            except Exception as error:  # noqa: BLE001  whatever it was, whoever waits for the job is to hear of it
                job.set_exception(error)

    try:
        threading.Thread(target=run, name="tamiyo-policy-job", daemon=True).start()
    except RuntimeError as error:  # no thread to be had
        job.set_exception(error)
    return job


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
