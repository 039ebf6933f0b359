"""Requests that the command line leaves in a directory whose log has a live writer.

    <dir>/requests/<written_unix_ns, 20 digits>-<request id>.json    what is asked for, oldest first by name
    <dir>/requests/.<anything>                                       being written; nobody reads it
    <dir>/requests/aside/<name>, <name>.reason                       what could not be used, and why
    <dir>/requests/answers/<name>                                    what came of one that is answered, the last 16

A request appears whole, by an atomic rename. Whoever takes it up journals its id before the file goes, so that a
crash in between applies it once. What cannot be used is moved aside with the reason and never deleted.

Rule: a name and a file in here are somebody else's input. Nothing is followed, waited for or read past a limit.
"""

import errno
import heapq
import os
import stat
import time
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import orjson

from tamiyo.core.directives import DIRECTIVES
from tamiyo.errors import RequestRejected
from tamiyo.whole import whole_file
from tamiyo.words import WORDS_MAX, fault_of_text

__all__ = ["JOBS", "PER_SCAN_MAX", "POLICY_INSTALL", "POLICY_ROLLBACK", "REQUESTS", "RETAIN", "Request", "RequestBox"]

REQUESTS = "requests"
RETAIN, POLICY_INSTALL, POLICY_ROLLBACK = "retain", "policy_install", "policy_rollback"
JOBS = (RETAIN, POLICY_INSTALL, POLICY_ROLLBACK)
"""Requests that are no directives but jobs: a retention run, another policy, the way back to the last one."""
ASIDE = "aside"
ANSWERS = "answers"
ANSWERS_KEPT = 16
KEEP_HEADS_MAX = 16
PATH_MAX = 4_096
VERSION = 1
BYTES_MAX = 16 * 1024  # a request is a few hundred bytes
PER_SCAN_MAX = 64
TEXTS = ("request_id", "directive", "operator", "reason")
NAME_BYTES_MAX = 240  # so that ".reason" still fits a file name


@dataclass(frozen=True, slots=True)
class Request:
    """What an operator asks for: a directive of `tamiyo.core.directives` or one of `JOBS`, who asks, why, its id.

    `archive`, a folder's absolute path, and `keep_heads`, heads of the log as text, belong to `RETAIN` alone,
    `checkpoint`, a file's absolute path, to `POLICY_INSTALL`.
    """

    request_id: str
    directive: str
    operator: str
    reason: str
    archive: str = ""
    keep_heads: tuple[str, ...] = ()
    checkpoint: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be journaled.

        Raises:
            RequestRejected: naming the field.
        """
        if self.directive not in (*DIRECTIVES, *JOBS):
            raise RequestRejected(f"there is no directive {self.directive!r:.80}; known are {', '.join(DIRECTIVES)}")
        if self.directive != RETAIN and (self.archive or self.keep_heads):
            raise RequestRejected(f"{self.directive} has no archive and keeps no heads; {RETAIN} does")
        if (self.directive == POLICY_INSTALL) != bool(self.checkpoint):
            raise RequestRejected(f"{POLICY_INSTALL} names a checkpoint, and no other request does")
        fault = fault_of_text(self.checkpoint, 0, PATH_MAX)
        if fault or (self.checkpoint and not Path(self.checkpoint).is_absolute()):
            raise RequestRejected(f"a request's checkpoint {fault or 'is no absolute path'}")
        fault = fault_of_text(self.archive, 0, PATH_MAX)
        if fault or (self.archive and not Path(self.archive).is_absolute()):
            raise RequestRejected(f"a request's archive {fault or 'is no absolute path'}")
        if len(self.keep_heads) > KEEP_HEADS_MAX or any(fault_of_text(head, 1, WORDS_MAX) for head in self.keep_heads):
            raise RequestRejected(f"a request's keep_heads are at most {KEEP_HEADS_MAX} heads of the log, a line each")
        for name, least in (("request_id", 1), ("operator", 1), ("reason", 0)):
            fault = fault_of_text(getattr(self, name), least, WORDS_MAX)
            if fault:
                raise RequestRejected(f"a request's {name} {fault}")


class RequestBox:
    """The requests of one directory."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the service's; nothing is made before something is written."""
        self.path = directory / REQUESTS

    def leave(self, request: Request) -> Path:
        """Write a request for whoever holds the log; durable and whole when this returns.

        Raises:
            OSError: the directory cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{request.request_id}.json"
        with whole_file(self.path / name, mode=0o600) as file:
            file.write(orjson.dumps({"version": VERSION} | {k: v for k, v in asdict(request).items() if _says(k, v)}))
        return self.path / name

    def answer(self, path: Path, answer: bytes) -> None:
        """Leave what came of a request, for whoever asked; only the last ones are kept. Raises OSError."""
        answers = _folder(self.path / ANSWERS)
        with whole_file(answers / path.name) as file:
            file.write(answer)
        for old in sorted(answers.iterdir())[:-ANSWERS_KEPT]:
            old.unlink(missing_ok=True)

    def take_answer(self, path: Path) -> bytes | None:
        """What came of a request that is gone, once; None where nothing was said. Raises OSError."""
        answer = self.path / ANSWERS / path.name
        try:
            said = answer.read_bytes()
        except FileNotFoundError:
            return None
        answer.unlink(missing_ok=True)
        return said

    def waiting(self, besides: Container[str] = ()) -> list[Path]:
        """The oldest requests, at most 64, in order, without the names in `besides`; empty where there is no directory.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with os.scandir(self.path) as found:
                counting = (entry.name for entry in found if _counts(entry.name) and entry.name not in besides)
                names = heapq.nsmallest(PER_SCAN_MAX, counting)
        except FileNotFoundError:
            return []
        return [self.path / name for name in names]

    def read(self, path: Path) -> Request:
        """One request.

        Raises:
            RequestRejected: it cannot be used, now or later.
            OSError: it cannot be read at the moment.
        """
        return _request(_bytes_of(path))

    def done(self, path: Path) -> None:
        """A request was taken up, durably. Raises OSError."""
        path.unlink(missing_ok=True)

    def put_aside(self, path: Path, reason: str) -> None:
        """Move what cannot be used out of the way, the reason beside it. Raises OSError."""
        aside = _folder(self.path / ASIDE)
        target = aside / path.name
        if len(os.fsencode(path.name)) > NAME_BYTES_MAX or _is_taken(target):
            target = aside / uuid4().hex
        said = _reason_of(target)
        with whole_file(said) as file:  # first: whoever waits for the request reads it at once
            file.write(f"{reason}\n".encode(errors="replace"))
        try:
            path.rename(target)
        except BaseException:
            said.unlink(missing_ok=True)
            raise


def _folder(path: Path) -> Path:
    """A folder of ours, made when missing. Raises OSError: it cannot be, or it is a link to somewhere else."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "a link is not followed", str(path))
    return path


def _reason_of(moved: Path) -> Path:
    return moved.with_name(f"{moved.name}.reason")


def _is_taken(target: Path) -> bool:
    """Whether something stands in a request's place. Not so a reason alone, which a crash before the move has left.

    Whoever waits for the request looks for it under its own name.
    """
    said = _reason_of(target)
    if os.path.lexists(target) or not os.path.lexists(said):
        return os.path.lexists(target)
    return os.path.lexists(_reason_of(said)) or not said.is_file()


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in (ASIDE, ANSWERS)


def _says(name: str, value: object) -> bool:
    """What a directive does not have is left out, so that an older service reads it."""
    return name in TEXTS or bool(value)


def _bytes_of(path: Path) -> bytes:
    """The bytes of a regular file, unless it is too long; a link is not followed and a pipe is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM):
            raise RequestRejected(f"{path.name!r} is no file that can be read: {error.strerror}") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RequestRejected(f"{path.name!r} is no file but a directory or a device")
        data = os.read(descriptor, BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > BYTES_MAX:
        raise RequestRejected(f"{path.name!r} has more than {BYTES_MAX} bytes")
    return data


def _request(data: bytes) -> Request:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestRejected(f"a request is one JSON object: {error}") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise RequestRejected(f"a request is one JSON object of version {VERSION}")
    wrong = [name for name in TEXTS if not isinstance(found.get(name), str)]
    strange = sorted(set(found) - {"version", "archive", "keep_heads", "checkpoint", *TEXTS})
    archive, heads = found.get("archive", ""), found.get("keep_heads", [])
    checkpoint = found.get("checkpoint", "")
    if not isinstance(checkpoint, str):
        wrong.append("checkpoint")
    if not isinstance(archive, str):
        wrong.append("archive")
    if not isinstance(heads, list) or not all(isinstance(head, str) for head in heads):
        wrong.append("keep_heads")
    if wrong or strange:
        raise RequestRejected(f"a request has the texts {', '.join(TEXTS)} and no more; see {wrong or strange!r:.200}")
    texts = {name: found[name] for name in TEXTS}
    return Request(**texts, archive=archive, keep_heads=tuple(heads), checkpoint=checkpoint)
