"""The log beside what one would use instead: one durable payload at a time, all behind one `commit`."""

import os
import sqlite3
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import google_crc32c

import wal

PREALLOCATED_BYTES = 256 << 20


class Rival(Protocol):
    """A store that makes one payload durable before it returns."""

    def commit(self, payload: bytes) -> None: ...

    def close(self) -> None: ...


class Bare:
    """The floor: a frame with a checksum, `pwrite` and `fdatasync` into space that was allocated and written before.

    As long as the log's own frame of the same payload, so that the device gets the same work.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path / "bare", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(self._fd, 0, PREALLOCATED_BYTES)
        for offset in range(0, PREALLOCATED_BYTES, 1 << 20):
            os.pwrite(self._fd, bytes(1 << 20), offset)
        os.fsync(self._fd)
        self._offset = 0
        self._lsn = 0

    def commit(self, payload: bytes) -> None:
        self._lsn += 1
        length = -(-(len(payload) + 180) // 512) * 512
        covered = struct.pack("<QII", self._lsn, length, len(payload)) + payload.ljust(length - 20, b"\0")
        os.pwrite(self._fd, covered + struct.pack("<I", google_crc32c.value(covered)), self._offset)
        os.fdatasync(self._fd)
        self._offset = (self._offset + length) % (PREALLOCATED_BYTES - (1 << 20))

    def close(self) -> None:
        os.close(self._fd)


class Wal:
    def __init__(self, path: Path) -> None:
        self.log = wal.Log.open(path / "log")

    def commit(self, payload: bytes) -> None:
        self.log.append([(1, payload)])

    def close(self) -> None:
        self.log.close()


class Sqlite:
    """SQLite as a log: WAL mode, synchronous=FULL, one INSERT for each commit, checkpoints as it makes them itself."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path / "sqlite", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE log (lsn INTEGER PRIMARY KEY, payload BLOB)")

    def commit(self, payload: bytes) -> None:
        self._db.execute("INSERT INTO log (payload) VALUES (?)", (payload,))

    def close(self) -> None:
        self._db.close()


class Lmdb:
    """LMDB with its default, synced commits; keys ascend."""

    def __init__(self, path: Path) -> None:
        import lmdb

        self._env: Any = lmdb.open(str(path / "lmdb"), map_size=4 << 30)
        self._lsn = 0

    def commit(self, payload: bytes) -> None:
        self._lsn += 1
        with self._env.begin(write=True) as transaction:
            transaction.put(self._lsn.to_bytes(8, "big"), payload, append=True)

    def close(self) -> None:
        self._env.close()


class RocksDb:
    """RocksDB with sync on every write; keys ascend."""

    def __init__(self, path: Path) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        self._db: Any = Rdict(str(path / "rocksdb"), Options(raw_mode=True))
        self._synced: Any = WriteOptions()
        self._synced.sync = True
        self._lsn = 0

    def commit(self, payload: bytes) -> None:
        self._lsn += 1
        self._db.put(self._lsn.to_bytes(8, "big"), payload, write_opt=self._synced)

    def close(self) -> None:
        self._db.close()


RIVALS: dict[str, tuple[Callable[[Path], Rival], str]] = {
    # name: what makes one, and the module that it needs
    "wal": (Wal, "wal"),
    "bare pwrite + fdatasync": (Bare, "os"),
    "SQLite WAL, FULL": (Sqlite, "sqlite3"),
    "LMDB, sync": (Lmdb, "lmdb"),
    "RocksDB, sync": (RocksDb, "rocksdict"),
}


def absent() -> dict[str, str]:
    """Why each rival that cannot run here cannot."""
    return {
        name: f"the package {module} is not installed: pip install tamiyo[bench]"
        for name, (_, module) in RIVALS.items()
        if find_spec(module) is None
    }
