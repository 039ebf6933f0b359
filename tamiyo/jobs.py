"""What a request may ask for besides directives: a retention run, another policy, the way back to the last one."""

from concurrent.futures import Future
from pathlib import Path

import wal
from tamiyo.errors import RequestRejected
from tamiyo.policies import PolicyDesk
from tamiyo.policy_jobs import begin_policy_job
from tamiyo.requests import RETAIN, Request
from tamiyo.retention.beside import Retainer, answered
from tamiyo.retention.run import Order

__all__ = ["begin_job"]


def begin_job(retainer: Retainer, desk: PolicyDesk, request: Request) -> Future[bytes]:
    """Begin the job that a request asks for, on a thread of its own; the answer is for its asker.

    Raises:
        RequestRejected: a head that it names is none.
    """
    if request.directive != RETAIN:
        return begin_policy_job(desk, request)
    folder = Path(request.archive) if request.archive else None
    try:
        heads = tuple(wal.Head.parse(head) for head in request.keep_heads)
    except ValueError as error:
        raise RequestRejected(str(error)) from error
    return answered(retainer.begin(Order(request.request_id, folder, heads)))
