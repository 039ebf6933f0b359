"""What operators ask of the policy desk in files: durable before a request goes, put back what is lost, hang nobody."""

import errno
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from live import PATIENT
from rig import SECRET, packet

from tamiyo import Settings, TamiyoService
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.core.registries import Registries
from tamiyo.errors import NotRecorded
from tamiyo.files import Files
from tamiyo.policies import PUT_BACK
from tamiyo.policy import store
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.requests import POLICY_INSTALL, POLICY_ROLLBACK, Request, RequestBox
from tamiyo.testing import FixedPolicy, ManualClock
from wal.testing import FaultDisk, MemoryDisk

BASELINE = BaselinePolicy().identity.version


def loaded(data: bytes, _: str, __: Registries) -> FixedPolicy:
    """A checkpoint is a word, and the policy is called so."""
    return FixedPolicy(1, identity=PolicyIdentity(data.decode(), "words", "python", sha256(data).hexdigest()))


class Directory:
    """Requests and checkpoints in files, the log on a disk that can go wrong. Nothing is done but by a flush."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.memory = MemoryDisk()
        self.clock = ManualClock()
        self.box = RequestBox(path)
        self.asked = 0
        self.open()

    def open(self) -> None:
        self.disk = FaultDisk(self.memory)
        self.service = TamiyoService.open(
            self.path, secret=SECRET, settings=Settings(**PATIENT, upkeep_period_ms=600_000), clock=self.clock,
            disk=self.disk, files=Files.of(self.path), load=loaded,
        )  # fmt: skip

    def ask(self, directive: str, checkpoint: str = "") -> Path:
        """Leave a request; of an installation, of a file with that word in it."""
        place = self.path / "given"
        place.write_text(checkpoint)
        self.asked += 1
        return self.box.leave(
            Request(f"r-{self.asked}", directive, "ada", "", checkpoint=str(place) if checkpoint else "")
        )

    def flush_until(self, holds: Any) -> None:
        for _ in range(10_000):
            self.service.flush(0.001)
            if holds():
                return
        raise AssertionError("it never came")

    def events(self, *kinds: type) -> list[Any]:
        found = [decode(entry.kind, entry.payload) for entry in self.service.log.read()]
        return [event for event in found if isinstance(event, kinds)]

    def crash(self) -> None:
        self.memory = self.memory.kill()
        self.open()


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.mark.parametrize("directive", [POLICY_INSTALL, POLICY_ROLLBACK])
def test_a_policy_request_goes_only_once_its_record_is_durable(directory: Directory, directive: str) -> None:
    if directive == POLICY_ROLLBACK:
        installed = directory.ask(POLICY_INSTALL, "first")
        directory.flush_until(lambda: not installed.exists())
    directory.disk.hang("fdatasync")
    path = directory.ask(directive, "other" if directive == POLICY_INSTALL else "")
    speaks = BASELINE if directive == POLICY_ROLLBACK else "other"
    directory.flush_until(lambda: directory.service.state.policy_version == speaks)
    for _ in range(5):
        directory.service.flush(0.001)
    assert path.exists(), "known to the state is not durable yet"
    directory.disk.release()
    directory.flush_until(lambda: not path.exists())
    assert directory.box.take_answer(path) is not None
    kind = journal.PolicyInstalled if directive == POLICY_INSTALL else journal.PolicyRolledBack
    assert directory.events(kind)[-1].request_id == f"r-{directory.asked}"
    directory.service.close()


def test_a_policy_request_whose_record_was_lost_with_the_process_is_taken_up_again(directory: Directory) -> None:
    directory.disk.hang("fdatasync")
    path = directory.ask(POLICY_INSTALL, "other")
    directory.flush_until(lambda: directory.service.state.policy_version == "other")
    directory.memory = directory.memory.crash(lambda count: 0)
    directory.disk.release()
    directory.open()
    assert path.exists()
    assert directory.service.state.policy_version == BASELINE
    directory.flush_until(lambda: not path.exists())
    assert directory.service.state.policy_version == "other"
    assert len(directory.events(journal.PolicyInstalled)) == 1
    directory.service.close()


def test_a_policy_request_waits_in_its_place_while_the_log_takes_no_records(directory: Directory) -> None:
    directory.disk.fail("fdatasync", errno.EIO, forever=True)
    directory.service.evaluate_step(packet())
    path = directory.ask(POLICY_INSTALL, "other")
    for _ in range(5):
        assert not directory.service.flush()
    assert path.exists()
    assert directory.service.state.policy_version == BASELINE
    directory.disk.heal()
    for _ in range(3):
        directory.clock.advance(1.5)
        directory.service.evaluate_step(packet())
        directory.service.journal.wait_for_trial()
    directory.flush_until(lambda: not path.exists())
    assert directory.service.state.policy_version == "other"
    directory.service.close()


def test_an_update_that_comes_while_the_log_takes_no_records_is_not_even_read(directory: Directory) -> None:
    directory.disk.fail("fdatasync", errno.EIO, forever=True)
    directory.service.evaluate_step(packet())
    with pytest.raises(NotRecorded, match="asked for again"):
        directory.service.ingest_policy_update(b"whatever it is")
    directory.disk.heal()
    directory.service.close()


@pytest.mark.parametrize("fate", ["gone", "damaged"])
def test_installing_who_speaks_puts_a_lost_checkpoint_back(directory: Directory, fate: str) -> None:
    path = directory.ask(POLICY_INSTALL, "other")
    directory.flush_until(lambda: not path.exists())
    kept = directory.path / "policies" / f"{sha256(b'other').hexdigest()}.checkpoint"
    kept.unlink() if fate == "gone" else kept.write_bytes(b"otter")
    before = directory.service.state.last_lsn
    path = directory.ask(POLICY_INSTALL, "other")
    directory.flush_until(lambda: not path.exists())
    assert directory.box.take_answer(path) == f"policy other speaks already; {PUT_BACK}".encode()
    assert kept.read_bytes() == b"other"
    assert directory.service.state.last_lsn == before, "who speaks is the same"
    directory.service.close()


def test_a_crash_never_brings_back_a_policy_whose_checkpoint_was_dropped_for_the_next(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but what must stay has room, and the record of the next one is lost."""
    monkeypatch.setattr(store, "STORE_MAX_BYTES", 0)
    for word in ("first", "second"):  # neither has proven itself
        path = directory.ask(POLICY_INSTALL, word)
        directory.flush_until(lambda: not path.exists())  # noqa: B023  at once
    directory.disk.hang("fdatasync")
    for word in ("third", "fourth"):
        path = directory.ask(POLICY_INSTALL, word)
        directory.flush_until(lambda: directory.service.state.policy_version == word)  # noqa: B023  at once
        path.unlink()
    directory.memory = directory.memory.crash(lambda count: 0)
    directory.disk.release()
    directory.open()
    assert directory.service.state.policy_version == "second"
    directory.service.close()


def test_a_file_that_is_not_the_lost_one_is_not_put_in_its_place(directory: Directory) -> None:
    path = directory.ask(POLICY_INSTALL, "other")
    directory.flush_until(lambda: not path.exists())
    kept = directory.path / "policies" / f"{sha256(b'other').hexdigest()}.checkpoint"
    kept.unlink()
    path = directory.ask(POLICY_INSTALL, "third")
    directory.flush_until(lambda: not path.exists())
    assert not kept.exists()
    assert directory.service.state.policy_version == "third"
    directory.service.close()


HANGING_HOST = """
import sys, threading
from pathlib import Path

from tamiyo import TamiyoService, ending
from tamiyo.requests import POLICY_INSTALL, Request, RequestBox

begun = threading.Event()

def load(*_):
    begun.set()
    threading.Event().wait()

ending.ENDING_S = 0.01
directory = Path(sys.argv[1])
with TamiyoService.open(directory, secret="a secret of 16 bytes", load=load) as tamiyo:
    RequestBox(directory).leave(Request("r-1", POLICY_INSTALL, "ada", "", checkpoint=sys.argv[2]))
    while not begun.is_set():
        tamiyo.flush()
print("ended")
"""


def test_a_host_ends_although_a_network_hangs_while_it_is_loaded(tmp_path: Path) -> None:
    checkpoint = tmp_path / "given"
    checkpoint.write_bytes(b"other")
    command = [sys.executable, "-c", HANGING_HOST, str(tmp_path / "controller"), str(checkpoint)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert len(RequestBox(tmp_path / "controller").waiting()) == 1, "the next process begins it again"


def test_a_job_under_way_is_waited_for_when_the_process_ends(tmp_path: Path) -> None:
    """The load goes on for a while after the host's last line, and its end is seen."""
    checkpoint = tmp_path / "given"
    checkpoint.write_bytes(b"other")
    waits = "threading.Event().wait()"
    assert waits in HANGING_HOST
    host = HANGING_HOST.replace(waits, "threading.Event().wait(0.2)\n    print('loaded')").replace("0.01", "60.0")
    command = [sys.executable, "-c", host, str(tmp_path / "controller"), str(checkpoint)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, sorted(ended.stdout.split())) == (0, ["ended", "loaded"]), ended.stderr
