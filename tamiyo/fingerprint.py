"""What runs here: recorded when a service opens, so that a log says what wrote it."""

import platform
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tamiyo import __version__
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import CURRENT
from tamiyo.core.proposal import PolicyIdentity

__all__ = ["code_fingerprint", "service_opened"]

LIBRARIES = ("numpy", "protobuf", "torch", "torch-geometric")


@cache
def code_fingerprint() -> str:
    """The package version and SHA-256 over the sources of the decision core, in name order."""
    digest = sha256()
    for path in sorted((Path(__file__).parent / "core").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:16]}"


def service_opened(
    settings: Settings, identity: PolicyIdentity, event_time_ns: int, unix_ns: int, log_id: str = ""
) -> journal.ServiceOpened:
    """The event that a service begins with: what is in force from here on."""
    return journal.ServiceOpened(
        event_time_ns=event_time_ns,
        opened_unix_ns=unix_ns,
        code_fingerprint=code_fingerprint(),
        thresholds=settings.thresholds.of_the_wire().as_map(),
        environment=_environment(),
        policy_version=identity.version,
        step_budget_ms=settings.step_timeout_ms,
        epoch_budget_ms=settings.epoch_timeout_ms,
        metadata_budget_ms=settings.metadata_timeout_ms,
        commit_budget_ms=settings.commit_timeout_ms,
        behaviour_flags=CURRENT,
        options=settings.options().message(),
        log_id=log_id,
    )


@cache
def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
