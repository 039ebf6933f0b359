"""What operators ask of the policy desk by a request: each on a thread of its own, because loading takes a while."""

import threading
from concurrent.futures import Future
from pathlib import Path

from tamiyo.errors import RequestRejected, TamiyoError
from tamiyo.policies import PolicyDesk
from tamiyo.policy.store import read_bytes
from tamiyo.requests import POLICY_INSTALL, Request

__all__ = ["begin_policy_job", "carry_out"]


def begin_policy_job(desk: PolicyDesk, request: Request) -> Future[bytes]:
    """Begin it; the answer is a sentence."""
    job: Future[bytes] = Future()

    def run() -> None:
        try:
            job.set_result(carry_out(desk, request).encode())
        except Exception as error:  # noqa: BLE001  whatever it was, whoever waits for the job is to hear of it
            job.set_exception(error)

    # No daemon: a process that ends while the network is being loaded would take its libraries away under it.
    threading.Thread(target=run, name="tamiyo-policy-job").start()
    return job


def carry_out(desk: PolicyDesk, request: Request) -> str:
    """Do what a request asks for; what came of it, in a sentence.

    Raises:
        RequestRejected: it could not be done; the message says why.
        NotRecorded: the log takes no record at the moment.
    """
    if request.directive != POLICY_INSTALL:
        try:
            version = desk.roll_back(operator=request.operator, reason=request.reason, request_id=request.request_id)
        except TamiyoError as error:
            raise RequestRejected(str(error)) from error
        return f"policy {version} speaks again"
    path = Path(request.checkpoint)
    try:
        data = read_bytes(path)
    except OSError as error:
        raise RequestRejected(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    verdict = desk.install(
        data, str(path), operator=request.operator, reason=request.reason, request_id=request.request_id
    )
    if not verdict.installed:
        raise RequestRejected(f"{verdict.reason}: {verdict.detail}")
    return f"policy {verdict.version} speaks from now on"
