"""Signatures on commands: made from durable bytes, checked before anything is applied.

The signed form is the command without its `signature` annotation, in protobuf's deterministic serialisation:
fields by number, map entries sorted by key, no unknown fields. The signature is HMAC-SHA-256 over it, base64.

Rule 1: `release` takes a log entry, and only the log makes one once its bytes are durable. The one other way
        out is `sign_safe_pause`, which takes nothing but a PAUSE.
Rule 2: a rejection is a value with a reason, never an exception, and leaves no trace in the nonce ledger.
"""

import base64
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.errors import InvariantViolation, SecretMissing
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.stored import event_of
from tamiyo.whole import whole_file

__all__ = [
    "REASONS",
    "SECRET_VARIABLE",
    "Verdict",
    "Verifier",
    "read_secret",
    "release",
    "secret_for",
    "sign_safe_pause",
    "sign_update",
    "signature_of",
    "update_signature",
]

SECRET_VARIABLE = "ESPER_LEYLINE_SECRET"  # noqa: S105  the variable's name, not a secret
SIGNATURE = "signature"
SECRET_BYTES_MIN = 16  # 128 bits: below that the key, not SHA-256, is what an attacker would go for
_MAKE_ONE = (
    f'set {SECRET_VARIABLE}, for example to the output of: python -c "import secrets; print(secrets.token_hex(32))"'
)


def read_secret(secret: str | bytes | None) -> bytes:
    """The signing key: what is given, else the environment's.

    Raises:
        SecretMissing: there is none, it is shorter than 16 bytes, or it is no text.
    """
    found = secret if secret is not None else os.environ.get(SECRET_VARIABLE, "")
    if not isinstance(found, str | bytes):
        raise SecretMissing(f"a {type(found).__name__} is no secret: give text or bytes; {_MAKE_ONE}")
    try:
        key = found.encode() if isinstance(found, str) else found
    except UnicodeEncodeError:  # so Python reads a variable of other bytes; that error would carry the secret along
        raise SecretMissing(f"the secret is no UTF-8 text; {_MAKE_ONE}") from None
    if not key:
        raise SecretMissing(f"commands cannot be signed without a secret; {_MAKE_ONE}")
    if len(key) < SECRET_BYTES_MIN:
        raise SecretMissing(f"the secret has {len(key)} bytes, fewer than {SECRET_BYTES_MIN}; {_MAKE_ONE}")
    return key


def secret_for(directory: Path | str, *, create: bool = False) -> bytes:
    """The environment's secret, else the directory's own in the file `secret`; with `create` one is made, mode 0600.

    Raises:
        SecretMissing: there is none and `create` is off, or the one found is too short.
    """
    if os.environ.get(SECRET_VARIABLE):
        return read_secret(None)
    path = Path(directory) / "secret"
    if create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), whole_file(path, mode=0o600, replace=False) as file:  # whoever is first
            file.write(secrets.token_hex(32).encode("ascii"))
    return read_secret(path.read_bytes() if path.exists() else None)


def signature_of(command: pb.AdaptationCommand, key: bytes) -> str:
    """HMAC-SHA-256, base64, over the command without its `signature` annotation."""
    bare = command
    if SIGNATURE in command.annotations:
        bare = type(command)()  # of a host's own bindings, it may be
        bare.CopyFrom(command)
        del bare.annotations[SIGNATURE]
    return _hmac(bare.SerializeToString(deterministic=True), key)


def release(entry: wal.Entry, key: bytes) -> pb.AdaptationCommand:
    """The signed command of a durable `DecisionMade` record.

    Raises:
        InvariantViolation: the entry is not a decision.
    """
    event = event_of(entry)
    if not isinstance(event, journal.DecisionMade):
        raise InvariantViolation(f"LSN {entry.lsn} is {event.DESCRIPTOR.name}, not a decision; nothing was signed")
    command = pb.AdaptationCommand.FromString(event.command)
    command.annotations[SIGNATURE] = _hmac(event.command, key)
    return command


def sign_safe_pause(command: pb.AdaptationCommand, key: bytes) -> pb.AdaptationCommand:
    """Sign the one command that may leave without a durable record.

    Raises:
        InvariantViolation: it is not a bare PAUSE.
    """
    if command.command_type != pb.COMMAND_PAUSE or command.WhichOneof("payload") is not None:
        raise InvariantViolation("only a bare PAUSE may be released without a durable record; nothing was signed")
    command.annotations[SIGNATURE] = signature_of(command, key)
    return command


def sign_update(update: pb.PolicyUpdate, secret: str | bytes) -> str:
    """A policy update's signature; it travels beside it. Raises `SecretMissing`."""
    return update_signature(update.SerializeToString(deterministic=True), read_secret(secret))


def update_signature(data: bytes, key: bytes) -> str:
    """HMAC-SHA-256, base64, over the bytes of an update as they came."""
    return _hmac(data, key)


def _hmac(data: bytes, key: bytes) -> str:
    return base64.b64encode(hmac.digest(key, data, hashlib.sha256)).decode("ascii")


REASONS = (
    "missing_signature",
    "invalid_signature",
    "missing_command_id",
    "nonce_replayed",
    "missing_timestamp",
    "stale_command",
    "issued_in_future",
)
"""Why a verifier rejects, in the order it asks."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's answer; `reason` is empty when accepted, else one of `REASONS`."""

    accepted: bool
    reason: str = ""


class Verifier:
    """Checks commands before they are applied; remembers the last 65,536 ids it accepted. Safe between threads.

    Its memory lives with the process: a command can be replayed to a new verifier until it is stale.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        stale_after_s: float = 60.0,
        future_tolerance_s: float = 5.0,
        nonces_max: int = 65_536,  # more than a minute's commands at 1,000 a second
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._key = read_secret(secret)
        self._stale_after_ns = int(stale_after_s * 1e9)
        self._future_tolerance_ns = int(future_tolerance_s * 1e9)
        self._nonces_max = nonces_max
        self._wall_ns = wall_ns
        self._nonces: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, command: pb.AdaptationCommand) -> Verdict:
        """Accept a command once, or say why not."""
        with self._lock:
            reason = self._signature_fault(command) or self._nonce_fault(command) or self._time_fault(command)
            if reason:
                return Verdict(accepted=False, reason=reason)
            self._nonces[command.command_id] = None
            if len(self._nonces) > self._nonces_max:
                self._nonces.popitem(last=False)
        return Verdict(accepted=True)

    def _signature_fault(self, command: pb.AdaptationCommand) -> str:
        signature = command.annotations.get(SIGNATURE, "")
        if not signature:
            return "missing_signature"
        expected = signature_of(command, self._key)
        return "" if hmac.compare_digest(signature.encode(), expected.encode()) else "invalid_signature"

    def _nonce_fault(self, command: pb.AdaptationCommand) -> str:
        if not command.command_id:
            return "missing_command_id"
        return "nonce_replayed" if command.command_id in self._nonces else ""

    def _time_fault(self, command: pb.AdaptationCommand) -> str:
        if not command.HasField("issued_at"):
            return "missing_timestamp"
        issued_ns = command.issued_at.seconds * 10**9 + command.issued_at.nanos
        age_ns = self._wall_ns() - issued_ns
        if age_ns > self._stale_after_ns:
            return "stale_command"
        return "issued_in_future" if -age_ns > self._future_tolerance_ns else ""
