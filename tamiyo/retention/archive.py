"""Segments that are about to go, kept as files: compressed with zstd, named for their log, complete or not there.

    <folder>/<log id, 32 hex digits>-<segment file name>.zst    00ff...-00000003-00000000000000012345.wal.zst
    <folder>/.<anything>.tmp                                    being written; nobody reads it

A file appears whole and durable, by an atomic rename. One that is there already is used when it holds the very segment,
and else refused: nothing is written over. `zstd -d` gives the segment back, byte for byte.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tamiyo.core.paced import Pace
from tamiyo.errors import ArchiveUnusable
from tamiyo.whole import sync_folder, whole_file

__all__ = ["Archive"]

LEVEL = 3
"""zstd's own default: 200 MB/s and more on one core."""
CHUNK_BYTES = 1 << 20
SUFFIX = ".zst"


class Archive:
    """One folder."""

    def __init__(self, folder: Path, log_id: bytes) -> None:
        """`folder` is made when something is kept; `log_id` is the log's.

        Raises:
            ArchiveUnusable: the package that compresses is not installed.
        """
        try:
            import zstandard  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ArchiveUnusable(
                f"segments cannot be archived in {folder}: the package zstandard is missing; pip install "
                "'tamiyo[archive]', or run without an archive"
            ) from error
        self._zstd = zstandard
        self.folder = folder
        self._log_id = log_id

    def require(self) -> None:
        """Make the folder, where it is not there: nothing is planned for one that cannot be had.

        Raises:
            ArchiveUnusable: it cannot be made, or written.
        """
        try:
            self._make_folder()
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ArchiveUnusable(
                f"nothing can be kept in {self.folder}: {error}. Nothing was changed; give another folder"
            ) from error

    def keep(self, segment: Path, pace: Pace) -> tuple[str, str]:
        """Keep one segment; doing it again keeps it once.

        Returns:
            The file's name and its SHA-256, hex. It is durable by then.

        Raises:
            ArchiveUnusable: the folder takes nothing, or holds something else under that name.
        """
        target = self.folder / self._name(segment.name)
        try:
            self._make_folder()
            if not target.exists():
                self._write(segment, target, pace)
            self._require_same(segment, target, pace)
            return target.name, _sha256(_chunks_of(target), pace)
        except (OSError, self._zstd.ZstdError) as error:
            raise ArchiveUnusable(
                f"{segment.name} cannot be kept as {target}: {error}. Nothing was taken away; free space or give "
                "another folder, then run again"
            ) from error

    def sha256(self, name: str, pace: Pace) -> str:
        """Of a file that an interrupted run has kept; empty where it is not there any more."""
        target = self.folder / name
        return _sha256(_chunks_of(target), pace) if target.exists() else ""

    def name_of(self, number: int, first_lsn: int) -> str:
        """What a segment is kept as."""
        return self._name(f"{number:08d}-{first_lsn:020d}.wal")

    def _name(self, segment_name: str) -> str:
        return f"{self._log_id.hex()}-{segment_name}{SUFFIX}"

    def _make_folder(self) -> None:
        missing = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        for place in missing:
            sync_folder(place.parent)

    def _write(self, segment: Path, target: Path, pace: Pace) -> None:
        with whole_file(target) as file:
            compressor = self._zstd.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()
            for chunk in _chunks_of(segment):
                file.write(compressor.compress(chunk))
                pace()
            file.write(compressor.flush())

    def _require_same(self, segment: Path, target: Path, pace: Pace) -> None:
        """Read back what was kept: the segment is about to go."""
        with target.open("rb") as file:
            found = _sha256(self._unpacked(file), pace)
        if found != _sha256(_chunks_of(segment), pace):
            raise ArchiveUnusable(
                f"{target} holds something else than segment {segment.name}. Nothing was taken away; give another "
                "folder"
            )

    def _unpacked(self, file: BinaryIO) -> Iterator[bytes]:
        yield from self._zstd.ZstdDecompressor().read_to_iter(file, read_size=CHUNK_BYTES, write_size=CHUNK_BYTES)


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _sha256(chunks: Iterator[bytes], pace: Pace) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        pace()
    return digest.hexdigest()
