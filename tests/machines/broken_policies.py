"""Controllers that are broken where policies come and go, each in one place: the machine must find them all."""

import threading
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from machines.broken_controllers import GOES, Variant

import wal
from tamiyo import policies, stages
from tamiyo.core.registries import Registries
from tamiyo.errors import CheckpointRejected
from tamiyo.policy_updates import Refused
from tamiyo.speakers import Load, Speaker
from tamiyo.stages import Stages
from tamiyo.testing.machine import world


def let_a_policy_request_go_early(patch: pytest.MonkeyPatch) -> None:
    """The file of a request for a policy goes as soon as its record is queued."""
    patch.setattr(policies, "_require_durable", lambda _: None)


def wait_under_the_lock(patch: pytest.MonkeyPatch) -> None:
    """What a request for a policy asked for is waited for under the lock that steps need as well."""
    original = policies.PolicyDesk._record

    def holding(self: policies.PolicyDesk, *arguments: Any) -> Any:
        if threading.current_thread().name != world.POLICY_JOB:
            return original(self, *arguments)
        with self._journal._lock:
            recorded = original(self, *arguments)
            with suppress(wal.LogError):
                recorded.result()
        return recorded

    patch.setattr(policies.PolicyDesk, "_record", holding)
    patch.setattr(world, "GIVE_UP_S", 1.0)


def wait_in_a_call(patch: pytest.MonkeyPatch) -> None:
    """An update or roll-back by a call waits for the disk, however long."""
    original = policies.PolicyDesk._record

    def waiting(self: policies.PolicyDesk, *arguments: Any) -> Any:
        recorded = original(self, *arguments)
        with suppress(wal.LogError):
            recorded.result()
        return recorded

    patch.setattr(policies.PolicyDesk, "_record", waiting)
    patch.setattr(world, "GIVE_UP_S", 1.0)


def check_no_signature(patch: pytest.MonkeyPatch) -> None:
    """Anybody's update is taken."""
    patch.setattr(policies, "require_signature", lambda *_: None)


def trust_a_stranger(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint that can be read is installed without a look at what it does."""
    patch.setattr(policies, "tried_out", _untried)


def _untried(load: Load, data: bytes, name: str, registries: Registries) -> Speaker:
    try:
        policy = load(data, name, registries)
    except CheckpointRejected as rejected:  # no checkpoint at all is not what this controller is broken by
        raise Refused(rejected.reason, str(rejected)) from rejected
    return Speaker(policy, policy.identity)


def keep_no_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """What is installed is said to be kept."""
    patch.setattr(policies.PolicyDesk, "_keep", lambda _, data: sha256(data).hexdigest())


def let_everybody_stay(patch: pytest.MonkeyPatch) -> None:
    """Who fails on probation speaks on."""
    patch.setattr(policies.PolicyDesk, "_failing", lambda *_: "")


def ask_whoever_came_last(patch: pytest.MonkeyPatch) -> None:
    """Whoever was loaded last is asked, whatever the log says."""
    original = Stages._ask

    def eager(self: Stages, step: stages.Step, _: Speaker, graph: Any) -> Any:
        return original(self, step, list(self._speakers._held.values())[-1], graph)

    patch.setattr(Stages, "_ask", eager)


POLICY_VARIANTS = {
    "a policy request that goes before its record is durable": Variant(let_a_policy_request_go_early, (GOES,)),
    "a policy that steps wait for": Variant(wait_under_the_lock, ("a step never waits",)),
    "a call for a policy that waits for the disk": Variant(wait_in_a_call, ("a call that is",)),
    "an update of anybody's": Variant(check_no_signature, ("an update is refused",)),
    "an update that nobody tried out": Variant(trust_a_stranger, ("an update is refused",)),
    "a checkpoint that is not kept": Variant(keep_no_checkpoint, ("who speaks is", "installing who speaks")),
    "a probation that nobody fails": Variant(let_everybody_stay, ("a policy that fails",)),
    "a policy asked that the log does not name": Variant(ask_whoever_came_last, ("a step is answered by",)),
}
