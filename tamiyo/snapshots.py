"""Snapshots: the state in a file beside the log, so that opening a long log takes no longer than a short one.

    <dir>/snapshots/<LSN, 20 digits>.snapshot    one line of JSON that says what it is, then a StateBase
    <dir>/snapshots/.<anything>                  being written; nobody reads it

A snapshot is a cache and nothing else. It is used only where it was written by this very code, of this very log, and
reads as the state that its digest names; else it is discarded, a line says why, and the log itself is folded.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import orjson
from google.protobuf.message import DecodeError

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import contents_of, read_base
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.whole import whole_file

__all__ = ["SNAPSHOTS", "Snapshot", "Snapshots", "record_digest"]

logger = logging.getLogger(__name__)

SNAPSHOTS = "snapshots"
SUFFIX = ".snapshot"
FORMAT = "tamiyo-snapshot-1"
KEPT = 2
"""The newest, and the one before it: the newest may speak of records that a failing disk lost."""
HEADER_MAX_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state that was read, the contents of its blueprints by digest, and the record that it was taken after."""

    state: State
    contents: Mapping[str, bytes]
    last: wal.Entry


@dataclass(frozen=True, slots=True)
class _Header:
    format: str
    fingerprint: str
    log_id: str
    lsn: int
    record: str  # SHA-256 of the record at `lsn`
    payload: str  # SHA-256 of what follows


class _Unusable(Exception):
    """Why a snapshot is discarded, in words."""


class Snapshots:
    """The snapshots of one directory."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        """`directory` is the service's; `fingerprint` is of the code and schema that run here."""
        self.path = directory / SNAPSHOTS
        self._fingerprint = fingerprint

    def write(self, base: journal.StateBase, log_id: bytes, record: wal.Entry) -> Path:
        """Write a snapshot, whole and durable when this returns, and remove all but the newest two.

        Args:
            base: the state, with the contents of all its blueprints.
            log_id: the log's.
            record: what the log holds at `base.at_lsn`.

        Raises:
            OSError: the directory cannot be written; nothing is left behind.
        """
        payload = base.SerializeToString()
        header = _Header(
            FORMAT, self._fingerprint, log_id.hex(), base.at_lsn, record_digest(record), sha256(payload).hexdigest()
        )
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / f"{base.at_lsn:020d}{SUFFIX}"
        with whole_file(target) as file:
            file.write(orjson.dumps(asdict(header)) + b"\n")
            file.write(payload)
        for old in self._newest_first()[KEPT:]:
            old.unlink(missing_ok=True)
        return target

    def newest(self, log: wal.Log, upto_lsn: int | None = None) -> Snapshot | None:
        """The newest that can be used, of the records up to `upto_lsn`; those that cannot are removed.

        Raises:
            wal.LogError: the log cannot be read.
        """
        for path in self._newest_first():
            try:
                if upto_lsn is None or _lsn_of(path) <= upto_lsn:
                    return self._read(path, log)
            except (_Unusable, OSError) as error:
                logger.warning("the snapshot %s is discarded, and the log is read instead: %s", path, str(error))
                _remove(path)
        return None

    def drop_before(self, lsn: int) -> None:
        """Remove the snapshots of states before `lsn`: what follows from them will not be there to be folded."""
        for path in self._newest_first():
            if _lsn_of(path) < lsn:
                _remove(path)

    def _newest_first(self) -> list[Path]:
        try:
            found = [path for path in self.path.iterdir() if path.suffix == SUFFIX and path.stem.isdecimal()]
        except OSError:  # there is none, or nobody may look: a cache that is not there
            return []
        return sorted(found, key=_lsn_of, reverse=True)

    def _read(self, path: Path, log: wal.Log) -> Snapshot:
        if not path.is_file():  # nothing is waited for, as a pipe would want it
            raise _Unusable("it is no file")
        with path.open("rb") as file:
            header = _header(file.readline(HEADER_MAX_BYTES))
            if header.format != FORMAT or header.fingerprint != self._fingerprint:
                raise _Unusable(f"it was written by {header.fingerprint}, and this is {self._fingerprint}")
            payload = file.read()
        if sha256(payload).hexdigest() != header.payload:
            raise _Unusable("its bytes are not those that were written")
        last = _record_at(log, header.lsn)
        if header.log_id != log.head().log_id.hex() or last is None or record_digest(last) != header.record:
            raise _Unusable(f"the log has another record at LSN {header.lsn}, or none")
        try:
            base = journal.StateBase.FromString(payload)
            state = read_base(base)
        except (DecodeError, JournalUnreadable) as error:
            raise _Unusable(str(error)) from error
        if state.last_lsn != header.lsn:
            raise _Unusable(f"it names LSN {header.lsn} and holds the state of LSN {state.last_lsn}")
        return Snapshot(state, contents_of(base), last)


def record_digest(record: wal.Entry) -> str:
    """SHA-256, hex, of a record: its LSN, its kind, its bytes."""
    head = record.lsn.to_bytes(8, "big") + record.kind.to_bytes(2, "big")
    return sha256(head + record.payload).hexdigest()


def _header(line: bytes) -> _Header:
    try:
        header = _Header(**orjson.loads(line))
    except (ValueError, TypeError) as error:
        raise _Unusable(f"its first line does not say what it is: {error}") from error
    if not isinstance(header.lsn, int):  # the others are compared, and nothing else is done with them
        raise _Unusable(f"its first line names LSN {header.lsn!r:.80}")
    return header


def _record_at(log: wal.Log, lsn: int) -> wal.Entry | None:
    if not 0 < lsn <= log.durable_lsn:
        return None
    try:
        return next(log.read(lsn - 1), None)
    except wal.Trimmed:
        return None


def _lsn_of(path: Path) -> int:
    return int(path.stem)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("and it cannot be removed: %s", str(error))
