"""Operators: directives in code, requests in files, the command; hostile files, crashes in between."""

import json
import logging
import os
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from live import LateClock, Live, reason
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit
from tamiyo.cli.conservative import command
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.directives import Directives
from tamiyo.errors import NotRecorded, RequestRejected, ServiceClosed
from tamiyo.requests import PER_SCAN_MAX, Request, RequestBox
from tamiyo.testing import FixedPolicy

PATIENT = {"step_timeout_ms": 60_000, "commit_timeout_ms": 60_000, "segment_bytes": 2**16}


def opened(directory: Path) -> TamiyoService:
    return TamiyoService.open(directory, policy=FixedPolicy(1), secret=SECRET, settings=Settings(**PATIENT))


def request(directive: str = "conservative_on", **changed: str) -> Request:
    return Request(**{"request_id": "r-1", "directive": directive, "operator": "ada", "reason": "a look"} | changed)


def directed(directory: Path) -> list[journal.OperatorDirected]:
    events = (decode(entry.kind, entry.payload) for entry in wal.read(directory / "wal"))
    return [event for event in events if isinstance(event, journal.OperatorDirected)]


def in_box(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "requests").iterdir() if path.name != "aside")


def aside(directory: Path) -> dict[str, str]:
    """What was moved aside, with the reasons."""
    found = sorted((directory / "requests" / "aside").iterdir())
    return {path.name: path.with_name(path.name + ".reason").read_text() for path in found if path.suffix != ".reason"}


def test_a_directive_is_journaled_and_in_force_from_the_next_decision_on() -> None:
    live = Live(policy=FixedPolicy(1))
    assert reason(live.step(packet())) == "policy"
    assert live.service.direct("conservative_on", operator="ada", reason="a look")
    assert reason(live.step(packet())) == "conservative_mode"
    (event,) = live.events(journal.OperatorDirected)
    assert (event.directive, event.operator, event.reason) == ("conservative_on", "ada", "a look")
    live.check()
    live.close()


def test_what_an_operator_switched_on_only_an_operator_switches_off() -> None:
    live = Live(policy=FixedPolicy(1))
    live.service.direct("conservative_on", operator="ada")
    for _ in range(10):
        live.clock.advance(5)
        assert reason(live.step(packet())) == "conservative_mode"
    live.reopen()
    live.clock.advance(5)
    assert reason(live.step(packet())) == "conservative_mode"
    live.service.direct("conservative_off", operator="grace")
    assert reason(live.step(packet())) == "policy"
    live.check()
    live.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"directive": "be_quick"}, "there is no directive 'be_quick'"),
        ({"operator": ""}, "operator has 0 characters"),
        ({"operator": "a" * 301}, "operator has 301 characters"),
        ({"reason": "\x1b[2J"}, "cannot be printed"),
        ({"reason": "\ud800"}, "cannot be printed"),
        ({"reason": 7}, "reason is a int"),
    ],
)
def test_a_directive_that_cannot_be_recorded_is_refused(changed: dict[str, object], words: str) -> None:
    live = Live()
    asked = {"directive": "conservative_on", "operator": "ada", "reason": ""} | changed
    with pytest.raises(RequestRejected, match=words):
        live.service.direct(asked.pop("directive"), **asked)
    assert live.events(journal.OperatorDirected) == []
    live.close()


def test_a_directive_that_the_log_does_not_take_is_not_in_force_and_may_be_given_again() -> None:
    live = Live()
    live.disk.fail("fdatasync", 5, forever=True)
    live.step(packet())
    with pytest.raises(NotRecorded, match="give it again"):
        live.service.direct("conservative_on", operator="ada")
    assert live.service.state.conservative.operator == ""
    live.disk.heal()
    live.clock.advance(1.5)
    live.step(packet())
    live.service.journal.wait_for_trial()
    assert live.service.direct("conservative_on", operator="ada")
    live.check()
    live.close()


def test_a_directive_on_a_slow_disk_is_in_force_before_it_is_durable() -> None:
    live = Live(clock=LateClock())
    live.disk.hang("fdatasync")
    assert not live.service.direct("conservative_on", operator="ada", timeout_s=0.001)
    assert live.service.state.conservative.operator == "ada"
    live.disk.release()
    assert live.service.flush()
    live.check()
    live.close()


def test_a_flush_says_durable_only_of_what_is() -> None:
    live = Live()
    live.disk.hang("fdatasync")
    assert not live.service.direct("conservative_on", operator="ada", timeout_s=0.0)
    assert not live.service.flush(0.0), "nothing is left to say, and what was said is not durable"
    live.disk.release()
    assert live.service.flush(60.0)
    assert len(live.events(journal.OperatorDirected)) == 1
    live.close()


def test_after_close_nothing_is_directed_or_flushed() -> None:
    live = Live()
    live.close()
    for call in (lambda: live.service.direct("conservative_on", operator="ada"), live.service.flush):
        with pytest.raises(ServiceClosed):
            call()


def test_a_request_is_taken_up_with_a_flush_once_and_goes(tmp_path: Path) -> None:
    with opened(tmp_path) as tamiyo:
        RequestBox(tmp_path).leave(request())
        assert tamiyo.flush()
        assert tamiyo.state.conservative.operator == "ada"
        assert in_box(tmp_path) == []
        assert tamiyo.flush()
    assert [event.request_id for event in directed(tmp_path)] == ["r-1"]
    assert audit(tmp_path).passed


def test_a_request_is_taken_up_without_a_flush_or_a_step(tmp_path: Path) -> None:
    with opened(tmp_path) as tamiyo:
        path = RequestBox(tmp_path).leave(request())
        while path.exists():
            threading.Event().wait(0.001)
        assert tamiyo.state.conservative.operator == "ada"


def test_requests_are_taken_up_in_the_order_they_were_left(tmp_path: Path) -> None:
    box, count = RequestBox(tmp_path), 2 * PER_SCAN_MAX + 3
    for number in range(count):
        box.leave(request("conservative_on" if number % 2 else "conservative_off", request_id=f"r-{number}"))
    with opened(tmp_path) as tamiyo:
        assert tamiyo.flush()
    assert [event.request_id for event in directed(tmp_path)] == [f"r-{number}" for number in range(count)]


def test_a_crash_between_taking_up_and_removing_applies_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies when the directive is in the log and its file is still there."""
    path = RequestBox(tmp_path).leave(request())
    monkeypatch.setattr(RequestBox, "done", lambda *_: None)
    with opened(tmp_path) as tamiyo:
        tamiyo.flush()
        tamiyo.direct("conservative_off", operator="grace")
    monkeypatch.undo()
    assert path.exists()
    with opened(tmp_path) as tamiyo:
        assert tamiyo.flush()
        assert tamiyo.state.conservative.operator == ""
    assert not path.exists()
    assert [event.request_id for event in directed(tmp_path)].count("r-1") == 1


def test_a_request_goes_only_once_its_record_is_durable(tmp_path: Path) -> None:
    live = Live()
    box = RequestBox(tmp_path)
    path = box.leave(request())
    directives = Directives(live.service.journal, RequestBox(tmp_path))
    live.disk.hang("fdatasync")
    assert not directives.take_up(0.001)
    assert not directives.take_up(0.001), "known to the state is not durable yet"
    assert path.exists()
    live.disk.release()
    assert directives.take_up()
    assert not path.exists()
    assert len(live.events(journal.OperatorDirected)) == 1
    live.check()
    live.close()


def test_a_request_whose_record_the_disk_lost_is_taken_up_again(tmp_path: Path) -> None:
    live = Live()
    path = RequestBox(tmp_path).leave(request())
    directives = Directives(live.service.journal, RequestBox(tmp_path))
    live.step(packet())
    live.disk.fail("pwrite", 5)
    assert not directives.take_up()
    assert path.exists()
    live.clock.advance(1.5)
    live.step(packet())
    live.clock.advance(1.5)
    live.step(packet())
    live.service.journal.wait_for_trial()
    assert live.service.state.conservative.operator == ""
    assert directives.take_up()
    assert live.service.state.conservative.operator == "ada"
    assert not path.exists()
    live.check()
    live.close()


def test_requests_wait_in_their_place_while_the_log_takes_no_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = Live()
    path = RequestBox(tmp_path).leave(request())
    directives = Directives(live.service.journal, RequestBox(tmp_path))
    live.disk.fail("fdatasync", 5, forever=True)
    live.step(packet())
    for _ in range(5):
        assert not directives.take_up()
    assert path.exists()
    assert caplog.text.count("stays in its place") == 1
    live.disk.heal()
    live.close()


HOSTILE = {
    "empty": b"",
    "half": b'{"version": 1, "request_id": "r-',
    "null": b"null",
    "list": b"[1]",
    "deep": b"[" * 15_000,
    "long": b'{"version": 1, "reason": "' + b"x" * 20_000 + b'"}',
    "newer": b'{"version": 2}',
    "no version": b"{}",
    "a number": json.dumps({"version": 1, "request_id": 7, "directive": "", "operator": "", "reason": ""}).encode(),
    "one more": json.dumps({"version": 1, "sudo": True} | dict.fromkeys(Request.__slots__, "x")).encode(),
    "unknown": json.dumps({"version": 1} | dict.fromkeys(Request.__slots__, "x")).encode(),
    "not utf-8": b'{"version": 1, "reason": "\xff\xfe"}',
    "surrogate": b'{"version":1,"request_id":"r","directive":"conservative_on","operator":"\\ud800","reason":""}',
    "terminal": b'{"version":1,"request_id":"r","directive":"conservative_on","operator":"\\u001b[2J","reason":""}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_request_is_moved_aside_with_its_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "1.json").write_bytes(HOSTILE[name])
    RequestBox(tmp_path).leave(request())
    with opened(tmp_path) as tamiyo:
        assert tamiyo.flush()
        assert tamiyo.state.conservative.operator == "ada", "the one behind it is taken up"
    ((moved, why),) = aside(tmp_path).items()
    assert moved == "1.json"
    assert len(why) > 10
    assert (tmp_path / "requests" / "aside" / "1.json").read_bytes() == HOSTILE[name], "nothing is lost"
    assert in_box(tmp_path) == []


def test_what_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    box = tmp_path / "requests"
    box.mkdir()
    secret = tmp_path / "elsewhere"
    secret.write_bytes(json.dumps({"version": 1} | {"request_id": "x", "operator": "eve", "reason": ""}).encode())
    (box / "a-link").symlink_to(secret)
    (box / "b-dangling").symlink_to("/nowhere")
    os.mkfifo(box / "c-pipe")
    (box / "d-directory").mkdir()
    (box / "d-directory" / "inside").write_text("kept")
    (box / ("e" * 250)).write_bytes(b"{")
    os.close(os.open(os.fsencode(box) + b"/f-\xff\xfe", os.O_CREAT))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(box)  # a socket's path may not be long
        listener.bind("g-socket")
    RequestBox(tmp_path).leave(request())
    with opened(tmp_path) as tamiyo:
        assert tamiyo.flush()
        assert tamiyo.state.conservative.operator == "ada"
    assert in_box(tmp_path) == []
    assert len(aside(tmp_path)) == 7
    assert secret.exists()
    assert (box / "aside" / "d-directory" / "inside").read_text() == "kept"


@pytest.fixture(autouse=True)
def _come_back() -> object:
    here = Path.cwd()
    yield
    os.chdir(here)


def test_a_request_that_is_still_being_written_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / ".half.tmp").write_bytes(b'{"version"')
    with opened(tmp_path) as tamiyo:
        assert tamiyo.flush()
    assert in_box(tmp_path) == [".half.tmp"]


def test_the_same_name_twice_aside_loses_neither(tmp_path: Path) -> None:
    with opened(tmp_path) as tamiyo:
        for text in ("one", "two"):
            (tmp_path / "requests").mkdir(exist_ok=True)
            (tmp_path / "requests" / "same").write_text(text)
            tamiyo.flush()
    found = sorted(p.read_text() for p in (tmp_path / "requests" / "aside").iterdir() if p.suffix != ".reason")
    assert found == ["one", "two"]


def test_a_request_that_cannot_be_moved_stays_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "aside").write_text("in the way")
    (tmp_path / "requests" / "1.json").write_text("{")
    RequestBox(tmp_path).leave(request())
    with caplog.at_level(logging.WARNING), opened(tmp_path) as tamiyo:
        for _ in range(3):
            assert not tamiyo.flush()
        assert tamiyo.state.conservative.operator == "ada"
    assert caplog.text.count("stays in its place") == 1


def test_requests_that_cannot_be_listed_keep_no_step_from_its_answer(tmp_path: Path) -> None:
    (tmp_path / "requests").write_text("no directory")
    with opened(tmp_path) as tamiyo:
        assert not tamiyo.flush()
        assert tamiyo.evaluate_step(packet()).command_id


def test_leaving_a_request_that_fails_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        RequestBox(tmp_path).leave(request())
    assert in_box(tmp_path) == []


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_the_command_leaves_a_live_service_its_request_and_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as tamiyo:
        result = run("on", tmp_path, "--reason", "a look", "--operator", "ada")
        assert (result.exit_code, result.output) == (0, "taken up by the live service\n")
        assert tamiyo.state.conservative.operator == "ada"
        assert reason(tamiyo.evaluate_step(packet())) == "conservative_mode"
        assert run("off", tmp_path, "--operator", "ada").exit_code == 0
        assert tamiyo.state.conservative.operator == ""
    assert audit(tmp_path).passed


def test_the_command_writes_to_the_log_where_no_service_lives(tmp_path: Path) -> None:
    opened(tmp_path).close()
    result = run("on", tmp_path)
    assert result.exit_code == 0
    assert result.output.startswith("recorded at LSN ")
    assert len(list((tmp_path / "wal").glob("*.wal"))) == 1, "it begins no segment of another length"
    with opened(tmp_path) as tamiyo:
        assert reason(tamiyo.evaluate_step(packet())) == "conservative_mode"
    assert audit(tmp_path).passed


def test_the_command_says_where_the_request_lies_when_the_service_does_not_take_it(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path / "wal"):  # a writer that looks at no requests
        result = run("on", tmp_path, "--wait", 0)
    assert result.exit_code == 0
    assert "the service takes it up as soon as its log takes records" in result.output
    assert len(in_box(tmp_path)) == 1


def test_the_command_names_what_it_cannot_do(tmp_path: Path) -> None:
    assert "has no log" in run("on", tmp_path).output
    assert run("on", tmp_path).exit_code == 2
    opened(tmp_path).close()
    assert "cannot be printed" in run("on", tmp_path, "--reason", "\x07").output
    (tmp_path / "requests").write_text("in the way")
    refused = run("on", tmp_path)
    assert (refused.exit_code, "cannot be left" in refused.output) == (1, True)


def test_the_command_takes_its_request_back_where_the_log_is_damaged(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (segment,) = (tmp_path / "wal").glob("*.wal")
    segment.write_bytes(b"x" * 4_096 + segment.read_bytes()[4_096:])
    refused = run("on", tmp_path)
    assert refused.exit_code == 1
    assert "does not take it" in refused.output
    assert in_box(tmp_path) == []
