"""Files that appear whole: processes killed before every line of a write, calls that fail, writers side by side."""

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tamiyo.whole import whole_file, written_to

OLD, NEW = b"the old one", b"the new one" * 10_000
PIECES = 4

VICTIMS = """
import os, pathlib, signal, sys
from tamiyo import whole

parent, old, new, pieces = pathlib.Path(sys.argv[1]), *(text.encode() for text in sys.argv[2:4]), int(sys.argv[4])

def write(path):
    with whole.whole_file(path) as file:
        for piece in range(pieces):
            file.write(new[piece * len(new) // pieces : (piece + 1) * len(new) // pieces])
            file.flush()

def die_before_line(number):
    passed = 0
    def trace(frame, event, _):
        nonlocal passed
        if event == "line" and (frame.f_code.co_filename == whole.__file__ or frame.f_code is write.__code__):
            if passed == number:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1
        return trace
    sys.settrace(trace)

number = killed = 0
while number == killed:
    folder = parent / f"{number:04d}"
    folder.mkdir()
    (folder / "file").write_bytes(old)
    child = os.fork()
    if not child:
        die_before_line(number)
        write(folder / "file")
        os._exit(0)
    killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    number += 1
print(killed)
"""
"""One victim for each line that a write executes: killed before it. The last one lives."""


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_bytes(OLD)
    return found


def write(path: Path, data: bytes = NEW) -> None:
    with whole_file(path) as file:
        file.write(data)


def test_a_process_that_is_killed_anywhere_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", VICTIMS, str(tmp_path), OLD.decode(), NEW.decode(), str(PIECES)]
    killed = int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == killed + 1
    found = [(folder / "file").read_bytes() for folder in folders]
    change = found.index(NEW)
    assert found == [OLD] * change + [NEW] * (len(found) - change)
    assert 0 < change < killed, "victims died both before the rename and after it"
    drafts = [folder for folder in folders if in_folder(folder) != ["file"]]
    assert len(drafts) > PIECES, "victims died amid the writing"
    for folder in folders:
        write(folder / "file", b"the next one")
        assert (folder / "file").read_bytes() == b"the next one"
        assert in_folder(folder) == ["file"], "what a dead process had begun is gone"


def test_the_bytes_are_on_the_medium_before_the_name_and_the_name_before_the_return(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, synced_bytes = [], []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(("sync", "draft" if place.is_file() else place.name))
        synced_bytes.append(place.stat().st_size)
        fsync(descriptor)

    def renamed(draft: Path, target: Path) -> Path:
        seen.append(("rename", target.name))
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write(path)
    assert seen == [("sync", "draft"), ("rename", "file"), ("sync", path.parent.name)]
    assert synced_bytes[0] == len(NEW)


FAULTS = {
    "making the draft": (os, "open", lambda _path, flags, *_: bool(flags & os.O_CREAT)),
    "syncing it": (os, "fsync", lambda descriptor: stat.S_ISREG(os.fstat(descriptor).st_mode)),
    "renaming it": (Path, "replace", lambda *_: True),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_fails_before_the_rename_keeps_the_old_file_and_leaves_no_draft(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    owner, name, fails = FAULTS[what]
    real = getattr(owner, name)

    def failing(*args: object) -> object:
        if fails(*args):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(OSError, match="No space"):
        write(path)
    monkeypatch.undo()
    assert path.read_bytes() == OLD
    assert in_folder(path.parent) == ["file"]


def test_a_folder_that_cannot_be_synced_is_told_and_the_new_file_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        write(path)
    assert path.read_bytes() == NEW
    assert in_folder(path.parent) == ["file"]


def test_a_draft_that_cannot_be_taken_away_hides_no_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(Path, "unlink", no)
    with pytest.raises(OSError, match="No space"), whole_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no number")])
def test_a_block_that_is_left_by_an_error_changes_nothing(path: Path, error: BaseException) -> None:
    def write_half() -> None:
        with whole_file(path) as file:
            file.write(NEW)
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == OLD
    assert in_folder(path.parent) == ["file"]


def test_a_draft_that_another_process_is_writing_stays(path: Path) -> None:
    with whole_file(path) as file:
        file.write(NEW)
        file.flush()
        write(path, b"another's")
        assert path.read_bytes() == b"another's"
    assert path.read_bytes() == NEW
    assert in_folder(path.parent) == ["file"]


def test_a_draft_that_is_taken_for_one_that_was_left_before_it_is_locked_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, others = fcntl.flock, [b"another's"]

    def late(file: object, operation: int) -> None:
        if others:
            write(path, others.pop())  # it takes the draft away that is there and not locked
        flock(file, operation)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    write(path)
    assert path.read_bytes() == NEW
    assert in_folder(path.parent) == ["file"]


def test_where_there_are_no_locks_files_appear_whole_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with whole_file(path) as file:
        file.write(NEW)
        file.flush()
        write(path, b"another's")
    assert path.read_bytes() == NEW
    assert in_folder(path.parent) == ["file"]


def test_what_is_not_ours_stays_whatever_its_name(path: Path) -> None:
    theirs = {".hidden.tmp": b"x", "file.tmp": b"x", ".tamiyo-notes": b"x"}
    for name, data in theirs.items():
        (path.parent / name).write_bytes(data)
    (path.parent / ".tamiyo-folder.tmp").mkdir()
    (path.parent / ".tamiyo-link.tmp").symlink_to(path)
    os.mkfifo(path.parent / ".tamiyo-pipe.tmp")
    before = in_folder(path.parent)
    write(path)
    assert in_folder(path.parent) == before
    assert path.read_bytes() == NEW


def test_writers_side_by_side_leave_the_whole_file_of_one_of_them(path: Path) -> None:
    contents = [bytes([number]) * 50_000 for number in range(1, 9)]
    failures = []

    def work(data: bytes) -> None:
        try:
            for _ in range(5):
                write(path, data)
                assert path.read_bytes() in contents
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() in contents
    assert in_folder(path.parent) == ["file"]


def test_a_file_that_is_there_is_kept_where_it_must_not_be_replaced(path: Path) -> None:
    with pytest.raises(FileExistsError), whole_file(path, replace=False) as file:
        file.write(NEW)
    assert path.read_bytes() == OLD
    with whole_file(path.with_name("other"), replace=False) as file:
        file.write(NEW)
    assert path.with_name("other").read_bytes() == NEW
    assert in_folder(path.parent) == ["file", "other"]


def test_the_mode_is_the_one_asked_for(tmp_path: Path) -> None:
    with whole_file(tmp_path / "private", mode=0o600) as file:
        file.write(b"x")
        assert all(stat.S_IMODE(draft.stat().st_mode) == 0o600 for draft in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "file")


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        with written_to(pipe) as file:
            file.write(b"figures")
        assert os.read(reader, 100) == b"figures"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


@pytest.mark.parametrize("place", ["", "missing/file"])
def test_a_place_that_cannot_be_is_told_by_its_own_name(tmp_path: Path, place: str) -> None:
    with pytest.raises(OSError, match=re.escape(f"{str(tmp_path / place)!r}") + "$"), written_to(tmp_path / place):
        pytest.fail("nothing is begun")
