"""What a service keeps in its directory beside the log: requests, checkpoints, snapshots, what is made for others.

A service on a simulated disk has none of it but what its test brings along: what survives a crash there is up to the
test as well.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tamiyo.derived import Derived
from tamiyo.fingerprint import code_fingerprint
from tamiyo.policy.store import MemoryStore, PolicyStore
from tamiyo.requests import RequestBox
from tamiyo.snapshots import Snapshots

__all__ = ["Files"]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one directory; of nowhere, and in memory, where nothing is said."""

    policies: PolicyStore
    """The checkpoints that were installed."""
    requests: RequestBox | None = None
    """Where the command line leaves what it asks for; None: nobody does."""
    snapshots: Snapshots | None = None
    derived: Derived = field(default_factory=lambda: Derived(None))

    @classmethod
    def of(cls, directory: Path) -> Self:
        """All of them, in the service's directory."""
        return cls(
            policies=PolicyStore(directory),
            requests=RequestBox(directory),
            snapshots=Snapshots(directory, code_fingerprint()),
            derived=Derived(directory),
        )

    @classmethod
    def none(cls) -> Self:
        """None of them; checkpoints live as long as the process."""
        return cls(policies=MemoryStore())
