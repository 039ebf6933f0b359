"""salvage, scrub, copy, bench from the command line: what they write, what they say, what they leave."""

import base64
import json
import os
from pathlib import Path

import pytest
from log_rig import open_log
from tools_rig import BATCHES, COUNT, flip, harm, run, run_json, segment_files, write_log

import wal
from wal.tools import DAMAGED, UNREADABLE
from wal.tools.show import count, size

RECORDS = [record for batch in BATCHES for record in batch]


def saved(place: Path) -> list[tuple[int, int, bytes]]:
    found = [json.loads(row) for row in place.read_text(encoding="ascii").splitlines()]
    return [(row["lsn"], row["kind"], base64.b64decode(row["payload"])) for row in found]


def everything() -> list[tuple[int, int, bytes]]:
    return [(lsn, *record) for lsn, record in enumerate(RECORDS, 1)]


def test_salvage_writes_every_sound_record_and_reports_every_lost_one(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = segment_files(log)[0]
    flip(place, 1024 + 200)
    answer = run("salvage", log, "--to", tmp_path / "saved.jsonl")
    assert answer.exit_code == DAMAGED
    assert saved(tmp_path / "saved.jsonl") == everything()[2:]
    assert f"records     {COUNT - 2} sound, LSN 3..{COUNT}\n" in answer.stdout
    assert f"written to  {tmp_path}/saved.jsonl\n" in answer.stdout
    assert "1..2        2        1    1024\n" in answer.stdout
    assert "a frame whose checksum is wrong, LSN 1..2\n" in answer.stdout
    assert answer.stdout.endswith("2 records are lost; look for them in a backup, with the LSNs above.\n")
    assert [place.name for place in tmp_path.iterdir() if "partial" in place.name] == []


def test_the_report_is_the_same_in_json(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0], 1024 + 200)
    found = run_json("salvage", log)
    assert (found["complete"], found["records"], found["lost_records"]) == (False, COUNT - 2, 2)
    assert found["lost"] == [{"first_lsn": 1, "last_lsn": 2, "segment": 1, "offset_bytes": 1024}]
    assert [one["offset_bytes"] for one in found["damage"]] == [1024]
    assert (found["written_to"], found["torn"], found["breaks"], found["stale_records"]) == (None, None, [], 0)
    assert len(found["log_id"]) == 32


def test_a_sound_log_is_salvaged_whole(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("salvage", log, "--to", tmp_path / "saved.jsonl")
    assert answer.exit_code == 0
    assert saved(tmp_path / "saved.jsonl") == everything()
    assert answer.stdout.endswith("Nothing that was acknowledged is lost.\n")


def test_saving_many_records_shows_how_far_it_is(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", [[(1, b"")] * 100] * 11)
    answer = run("salvage", log, "--to", tmp_path / "saved.jsonl", TTY_COMPATIBLE="1", COLUMNS="80")
    assert "saving them" in answer.stderr
    assert len(saved(tmp_path / "saved.jsonl")) == 1100


def test_an_unknown_loss_is_called_unknown(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    segment_files(log)[-1].unlink()
    answer = run("salvage", log)
    assert "..?  unknown        3     512\n" in answer.stdout
    assert "An unknown number of records is lost" in answer.stdout
    assert run_json("salvage", log)["lost_records"] is None


def test_one_record_is_one(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0], 1536 + 200)
    assert "1 record is lost" in run("salvage", log).stdout


def test_redacted_records_are_saved_as_such(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        log.redact(lambda entry: entry.lsn == 1)
    run("salvage", tmp_path / "log", "--to", tmp_path / "saved.jsonl")
    first, second = (tmp_path / "saved.jsonl").read_text(encoding="ascii").splitlines()[:2]
    assert json.loads(first) == {"lsn": 1, "kind": 1, "payload": "", "redacted": True}
    assert "redacted" not in json.loads(second)


def test_an_interrupted_write_is_told_from_a_loss(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", BATCHES[:2])
    end = len(segment_files(log)[0].read_bytes().rstrip(b"\0"))
    harm(segment_files(log)[0], lambda image: image.__setitem__(slice(end, end + 4), b"torn"))
    answer = run("salvage", log)
    assert answer.exit_code == 0
    assert "torn     an interrupted write that nothing proves acknowledged (" in answer.stdout
    assert run_json("salvage", log)["torn"]["offset_bytes"] == end


def test_records_that_a_recovery_had_cut_are_counted_apart(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", BATCHES[:2])
    before = segment_files(log)[0].read_bytes()
    data, ending = 1536, 2048
    harm(segment_files(log)[0], lambda image: image.__setitem__(slice(data + 130, ending + 512), bytes(382 + 512)))
    with open_log(wal.OsDisk(), log) as opened:
        assert opened.recovery.last_lsn == 2
    (log / "old.wal").write_bytes(before)
    assert "stale    1 record left out: an earlier recovery had cut them\n" in run("salvage", log).stdout


def test_two_histories_in_one_directory_are_told_by_where_they_part(tmp_path: Path) -> None:
    base = write_log(tmp_path / "base", BATCHES[:1])
    for name in (b"one", b"two"):
        wal.copy(base, tmp_path / name.decode())
        with open_log(wal.OsDisk(), tmp_path / name.decode(), entropy=lambda n, name=name: name[:1] * n) as fork:
            fork.append([(1, name)])
            fork.append([(1, name)])
    one, two = (segment_files(tmp_path / name)[0] for name in ("one", "two"))
    third, fourth = 512 * 5, 512 * 6  # after the header, an epoch of three frames, and the next one's opening
    flip(one, fourth + 130)
    flip(two, third + 130)
    (tmp_path / "one" / "two.wal").write_bytes(two.read_bytes())
    found = run_json("salvage", tmp_path / "one")
    assert (found["breaks"], found["lost"], found["complete"]) == ([4], [], False)
    answer = run("salvage", tmp_path / "one")
    assert answer.exit_code == DAMAGED
    assert answer.stdout.endswith("two histories are mixed: see LSN 4, which does not follow.\n")


def test_no_file_is_replaced_unasked(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    target = tmp_path / "saved.jsonl"
    target.write_text("mine")
    refused = run("salvage", log, "--to", target)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert target.read_text() == "mine"
    assert run("salvage", log, "--to", target, "--force").exit_code == 0
    assert saved(target) == everything()


def test_a_target_that_cannot_be_written_is_no_damage(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("salvage", log, "--to", tmp_path / "nowhere" / "saved.jsonl")
    assert answer.exit_code == UNREADABLE
    assert "No such file or directory" in answer.stderr


# scrub.


def test_scrub_goes_round_a_sound_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("scrub", log)
    assert answer.exit_code == 0
    assert answer.stdout.endswith("All that was read is sound.\n")
    finished = len(segment_files(log)) - 1
    assert f"segments  {finished} read, 1 to {finished}\n" in answer.stdout


def test_scrub_stops_at_its_budget_and_says_how_to_go_on(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("scrub", log, "--budget-mb", 0.001, "--rate-mb-s", 1000)
    assert answer.stdout.endswith("Go on with --from 2.\n")
    found = run_json("scrub", log, "--from", 2)
    assert (found["first_segment"], found["went_round"], found["next_segment"], found["sound"]) == (2, True, 1, True)


def test_scrub_names_every_damaged_segment(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    for place in segment_files(log)[:-1]:
        flip(place, 512 + 200)
    answer = run("scrub", log)
    assert answer.exit_code == DAMAGED
    assert "2 places damaged. Copy the directory, and restore the segments from a backup.\n" in answer.stdout
    problems = run_json("scrub", log)["problems"]
    assert [(one["segment"], one["offset_bytes"]) for one in problems] == [(1, 512), (2, 512)]
    assert run("scrub", log).stdout.count("a frame of a finished segment is damaged") == 2


def test_a_log_without_its_segments_has_lost_them_all(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    for place in segment_files(log):
        place.unlink()
    assert [place.name for place in log.iterdir() if place.name == "BASE"] == ["BASE"]
    for arguments in ((), ("--json",), ("--to", tmp_path / "saved.jsonl")):
        answer = run("salvage", log, *arguments)
        assert answer.exit_code == DAMAGED
        assert f"no segment is left in {log}" in answer.stderr
        assert answer.stdout == ""
    assert not (tmp_path / "saved.jsonl").exists()


def test_a_log_with_nothing_to_scrub_is_sound(tmp_path: Path) -> None:
    answer = run("scrub", write_log(tmp_path / "log", BATCHES[:1]))
    assert answer.exit_code == 0
    assert "segments  0 read\n" in answer.stdout
    assert answer.stdout.endswith("Nothing was read: no segment of it is finished yet.\n")


def test_the_place_of_a_damaged_header_has_no_lsn(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0], 40)
    assert run_json("scrub", log)["problems"][0]["lsn"] is None
    assert (
        "      1       0       the segment header's checksum is wrong (bit 0 of the byte at offset 40 is flipped)\n"
        in run("scrub", log).stdout
    )


# copy.


def test_a_copy_is_made_and_its_head_is_printed(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("copy", log, tmp_path / "copy")
    assert answer.exit_code == 0
    assert f"records   {COUNT}, LSN 1..{COUNT}\n" in answer.stdout
    assert answer.stdout.endswith("Copied, checked, and durable.\n")
    assert run("verify", tmp_path / "copy", "--head", wal.head(log)).exit_code == 0
    found = run_json("copy", log, tmp_path / "again")
    assert (found["records"], found["head"]) == (COUNT, str(wal.head(log)))


def test_an_empty_log_has_an_empty_copy(tmp_path: Path) -> None:
    answer = run("copy", write_log(tmp_path / "log", []), tmp_path / "copy")
    assert "records   0\n" in answer.stdout


def test_what_cannot_be_copied_says_why(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    onto_itself = run("copy", log, log)
    assert onto_itself.exit_code == UNREADABLE
    assert "it is not empty" in onto_itself.stderr
    flip(segment_files(log)[0], 512 + 200)
    damaged = run("copy", log, tmp_path / "copy")
    assert damaged.exit_code == DAMAGED
    assert list((tmp_path / "copy").iterdir()) == []


# bench.


def test_bench_measures_both_ways_and_leaves_nothing(tmp_path: Path) -> None:
    found = run_json("bench", tmp_path, "--appends", 30, "--mb", 1)
    assert list(tmp_path.iterdir()) == []
    assert (found["appends"], found["record_bytes"], round(found["scanned_mb"])) == (30, 1024, 1)
    for way in ("bare", "append"):
        assert 0 < found[way]["p50_ms"] <= found[way]["p99_ms"]
    assert found["append_to_bare_p50"] == pytest.approx(found["append"]["p50_ms"] / found["bare"]["p50_ms"], abs=0.01)
    assert min(found["scan_mb_s"], found["verify_mb_s"]) > 0


def test_bench_says_it_in_tables(tmp_path: Path) -> None:
    shown = run("bench", tmp_path, "--appends", 1, "--mb", 1, "--record-bytes", 100).stdout
    assert "1 durable write of 100 bytes" in shown
    assert "pwrite + fdatasync, bare" in shown
    assert "times what the disk itself takes.\n" in shown


def test_bench_leaves_nothing_behind_a_failure_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: wal.OsDisk, fd: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(wal.OsDisk, "fdatasync", fail)
    assert run("bench", tmp_path).exit_code == UNREADABLE
    assert list(tmp_path.iterdir()) == []


def test_bench_needs_a_directory_that_is_there(tmp_path: Path) -> None:
    assert run("bench", tmp_path / "nowhere").exit_code == 2


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (64 << 20, "64.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_lengths_are_shown_as_people_read_them(length: int, shown: str) -> None:
    assert size(length) == shown


def test_one_of_a_thing_is_singular() -> None:
    assert (count(1, "frame"), count(0, "frame"), count(12345, "frame")) == ("1 frame", "0 frames", "12,345 frames")
