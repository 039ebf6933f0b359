"""Requests that stay in their place: they cannot be removed, the log refuses them for now, or they are for another."""

import os
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from live import PATIENT, Live
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.cli import conservative
from tamiyo.cli.conservative import command
from tamiyo.core.state import DIRECTIVES_MAX
from tamiyo.directives import Directives
from tamiyo.errors import NotRecorded
from tamiyo.records import Recorded
from tamiyo.requests import PER_SCAN_MAX, POLICY_ROLLBACK, RETAIN, Request, RequestBox
from tamiyo.testing import FixedPolicy
from tamiyo.testing.requests import FaultRequests


def request(directive: str = "conservative_on", request_id: str = "r-1") -> Request:
    return Request(request_id, directive, "ada", "a look")


def test_a_request_that_cannot_be_removed_is_not_in_force_again_once_its_id_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live, box = Live(), FaultRequests(tmp_path)
    path = box.leave(request())
    directives = Directives(live.service.journal, box)
    box.faults.fail(op="done")
    assert directives.take_up(), "nobody waits: it is in force, and durable"
    for number in range(DIRECTIVES_MAX + 1):
        directives.direct(request("conservative_off", request_id=f"later-{number}"))
    assert "r-1" not in live.service.state.directives
    assert directives.take_up()
    assert live.service.state.conservative.operator == ""
    assert caplog.text.count("was taken up, and cannot be removed") == 1
    box.faults.heal()
    assert directives.take_up()
    assert not path.exists(), "it goes when it can"
    live.check()
    live.close()


def test_a_request_that_is_aside_says_why_from_the_first_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, said, rename = RequestBox(tmp_path), list[str](), Path.rename

    def looked_at(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        said.append(target.with_name(f"{target.name}.reason").read_text())
        return moved

    path = box.leave(request())
    monkeypatch.setattr(Path, "rename", looked_at)
    box.put_aside(path, "it is of no use")
    assert said == ["it is of no use\n"]
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        box.put_aside(path.with_name("taken back"), "nobody will read this")
    assert [place.name for place in sorted((box.path / "aside").iterdir())] == [path.name, f"{path.name}.reason"]


def test_a_request_is_aside_under_its_own_name_also_after_a_crash_before_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = RequestBox(tmp_path)
    path = box.leave(request())
    with monkeypatch.context() as crash:
        crash.setattr(Path, "rename", lambda *_: path.with_name("no such file").stat())
        crash.setattr(Path, "unlink", lambda *_args, **_options: None)  # and nobody is left to clear up
        with pytest.raises(FileNotFoundError):
            box.put_aside(path, "it is of no use")
    assert path.exists()
    box.put_aside(path, "it is still of no use")
    assert [place.name for place in sorted((box.path / "aside").iterdir())] == [path.name, f"{path.name}.reason"]
    assert (box.path / "aside" / f"{path.name}.reason").read_text() == "it is still of no use\n"


def test_a_request_that_is_called_as_the_reason_of_another_is_not_written_over(tmp_path: Path) -> None:
    box = RequestBox(tmp_path)
    path = box.leave(request())
    named = path.rename(path.with_name(f"{path.name}.reason"))
    box.put_aside(named, "it has another's name")
    path.write_text("another")
    box.put_aside(path, "it is of no use")
    kept = {place.read_text() for place in (box.path / "aside").iterdir()}
    assert {"it has another's name\n", "it is of no use\n", "another"} < kept
    assert len(kept) == 4


@pytest.mark.parametrize("is_live", [True, False])
def test_a_request_that_was_refused_is_not_said_to_be_taken_up(
    is_live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TamiyoService.open(tmp_path, secret=SECRET).close()
    box = RequestBox(tmp_path)

    def refused(_: Path) -> int:
        (path,) = box.waiting()
        box.put_aside(path, "it cannot be read")
        if is_live:
            raise wal.LogLocked(tmp_path, None)
        return 7

    monkeypatch.setattr(conservative, "_take_up_here", refused)
    found = CliRunner().invoke(command, ["on", str(tmp_path)])
    assert found.exit_code == 1
    assert "it was refused: see" in found.output


def test_requests_that_cannot_be_removed_are_in_nobodys_way(tmp_path: Path) -> None:
    live, box, count = Live(), FaultRequests(tmp_path), 2 * PER_SCAN_MAX + 3
    for number in range(count):
        box.leave(request(request_id=f"r-{number}"))
    directives = Directives(live.service.journal, box)
    box.faults.fail(op="done")
    assert directives.take_up()
    assert list(live.service.state.directives) == [f"r-{number}" for number in range(count)]
    box.faults.heal()
    for _ in range(3):
        assert directives.take_up()
    assert box.waiting() == []
    live.check()
    live.close()


def test_a_request_does_not_overtake_one_that_the_log_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log comes back just after the first of two was refused."""
    live = Live()
    for number, directive in enumerate(("conservative_off", "conservative_on")):
        RequestBox(tmp_path).leave(request(directive, request_id=f"r-{number}"))
    directives = Directives(live.service.journal, RequestBox(tmp_path))
    direct, refusals = Directives.direct, ["log_failed"]

    def refused_once(self: Directives, asked: Request) -> Recorded | None:
        if refusals:
            raise NotRecorded(refusals.pop())
        return direct(self, asked)

    monkeypatch.setattr(Directives, "direct", refused_once)
    assert not directives.take_up()
    assert directives.take_up()
    assert list(live.service.state.directives) == ["r-0", "r-1"]
    assert live.service.state.conservative.operator == "ada", "what was asked for last holds"
    live.check()
    live.close()


@pytest.mark.parametrize("asked_for", [RETAIN, POLICY_ROLLBACK])
def test_a_command_without_a_service_leaves_the_service_its_jobs(tmp_path: Path, asked_for: str) -> None:
    """The service ended before it took the job up; then an operator switches conservative mode on."""
    opening = partial(TamiyoService.open, tmp_path, policy=FixedPolicy(1), secret=SECRET, settings=Settings(**PATIENT))
    with opening() as tamiyo:
        tamiyo.evaluate_step(packet())
    box = RequestBox(tmp_path)
    path = box.leave(request(asked_for, "job"))
    done = CliRunner().invoke(command, ["on", str(tmp_path), "--operator", "ada"])
    assert (done.exit_code, done.output.startswith("recorded at LSN ")) == (0, True)
    assert box.waiting() == [path]
    with opening() as tamiyo:
        assert tamiyo.state.conservative.operator == "ada"
        while path.exists():
            tamiyo.flush()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_lies_where_a_reason_would_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    box = RequestBox(tmp_path)
    (box.path / "aside").mkdir(parents=True)
    (box.path / "1.json").write_text("{")
    elsewhere, reason = tmp_path / "elsewhere", box.path / "aside" / "1.json.reason"
    elsewhere.write_text("somebody's")
    if kind == "link":
        reason.symlink_to(elsewhere)
    elif kind == "folder":
        reason.mkdir()
    else:
        os.mkfifo(reason)
    live = Live()
    assert Directives(live.service.journal, box).take_up()
    assert elsewhere.read_text() == "somebody's"
    (moved,) = [path for path in (box.path / "aside").iterdir() if path.suffix != ".reason"]
    assert moved.read_text() == "{"
    assert "JSON" in moved.with_name(f"{moved.name}.reason").read_text()
    live.close()


def test_a_folder_for_refused_requests_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    box = RequestBox(tmp_path)
    box.path.mkdir()
    (box.path / "1.json").write_text("{")
    (tmp_path / "elsewhere").mkdir()
    (box.path / "aside").symlink_to(tmp_path / "elsewhere")
    live = Live()
    assert not Directives(live.service.journal, box).take_up()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (box.path / "1.json").exists()
    live.close()


def test_refused_requests_that_cannot_be_moved_are_in_nobodys_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live, box = Live(), FaultRequests(tmp_path)
    box.path.mkdir()
    for number in range(PER_SCAN_MAX + 3):
        (box.path / f"0-{number:03d}").write_text("{")
    box.leave(request())
    directives = Directives(live.service.journal, box)
    box.faults.fail(op="put_aside")
    for _ in range(3):
        assert not directives.take_up(), "some are still there"
    assert list(live.service.state.directives) == ["r-1"]
    assert "moved aside" not in caplog.text, "none was"
    assert caplog.text.count("'0-000' stays in its place") == 1
    box.faults.heal()
    for _ in range(3):
        directives.take_up()
    assert box.waiting() == []
    assert directives.take_up()
    live.close()
