"""Who may speak in a world: the host's own policy, and those that checkpoints become, all of which can go wrong.

A checkpoint here is a line of JSON: the version that it speaks as, and what is wrong with it.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

import orjson

from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.registries import Registries, RegistryStamp
from tamiyo.errors import CheckpointRejected
from tamiyo.graph import Graph
from tamiyo.policy import Policy
from tamiyo.testing.policies import FaultPolicy, ScriptedPolicy
from tamiyo.testing.strategies.proposals import CALM

__all__ = ["FAULTS", "Cast", "checkpoint"]

FAULTS = ("", "no checkpoint", "other registries", "raises", "proposes nonsense")
"""What can be wrong with a checkpoint; "" is nothing."""
STEPS_ASK = "tamiyo-inference"
"""The thread on which a step has its policy asked; try-outs are on others, and may be beside a step."""
NOBODY_S = RegistryStamp(1, "0" * 64)


def checkpoint(version: str, fault: str = "") -> bytes:
    """The bytes of a checkpoint; `fault` is one of `FAULTS`."""
    return orjson.dumps({"version": version, "fault": fault})


@dataclass
class _Loaded(ScriptedPolicy):
    """What a checkpoint becomes."""

    fault: str = ""
    registry_stamps: dict[str, RegistryStamp] = field(default_factory=dict)

    def propose(self, graph: Graph) -> Proposal:
        """The script, or what its checkpoint has it do."""
        if self.fault == "raises":
            raise RuntimeError("a network that cannot propose")
        if self.fault == "proposes nonsense":
            return "nonsense"  # type: ignore[return-value]  # it is none: that is the point
        return super().propose(graph)


class _Actor(FaultPolicy):
    """A policy that tells who asks: a step, or somebody who tries it out beside the steps."""

    def __init__(self, inner: Policy | None = None) -> None:
        super().__init__(inner)
        self.asked_by_steps = 0

    def propose(self, graph: Graph) -> Proposal:
        """What `inner` proposes."""
        asking = threading.current_thread()
        self.asked_by_steps += asking.name == STEPS_ASK or asking is threading.main_thread()
        return super().propose(graph)


class _FaultSpeaker(_Actor):
    """A loaded policy with a switchboard of its own."""

    @property
    def registry_stamps(self) -> dict[str, RegistryStamp]:
        """What it was trained on."""
        return getattr(self.inner, "registry_stamps", {})


class Cast:
    """The policies of one world; `host` is the one that the host gives when it gives one."""

    def __init__(self, host: Policy) -> None:
        self.host = _Actor(host)
        self._script: Proposal = CALM
        self._loaded: list[_FaultSpeaker] = []

    def load(self, data: bytes, name: str, _: Registries) -> Policy:
        """A policy from a checkpoint: what a factory gives a service as `load`."""
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise CheckpointRejected(f"{name} is no checkpoint: {error}") from error
        if said["fault"] == "no checkpoint":
            raise CheckpointRejected(f"{name} is no checkpoint")
        identity = PolicyIdentity(said["version"], "fixed", "python", sha256(data).hexdigest())
        stamps = {"seed_id": NOBODY_S} if said["fault"] == "other registries" else {}
        speaker = _FaultSpeaker(_Loaded(self._script, identity, said["fault"], stamps))
        self._loaded.append(speaker)
        return speaker

    def asked(self) -> Counter[str]:
        """How often each version was asked, trying out included."""
        found: Counter[str] = Counter()
        for speaker in self.all():
            found[speaker.identity.version] += speaker.calls["propose"]
        return found

    def asked_by_steps(self) -> Counter[str]:
        """How often each version was asked by steps."""
        found: Counter[str] = Counter()
        for actor in self.all():
            found[actor.identity.version] += actor.asked_by_steps
        return found

    def follow(self, script: Proposal) -> None:
        """Let all who follow a script propose this one."""
        self._script = script
        for speaker in self.all():
            if isinstance(speaker.inner, ScriptedPolicy):
                speaker.inner.script = script

    def all(self) -> Iterator[_Actor]:
        """Everybody, in the order in which they came."""
        yield self.host
        yield from self._loaded
