"""dump and tail: every record in order, whatever its bytes; every damaged place beside what is sound."""

import base64
import itertools
import json
import threading
from pathlib import Path

import pytest
from log_rig import NEVER_MS, open_log
from tools_rig import BATCHES, COUNT, flip, harm, rows, run, segment_files, write_log

import wal
from wal.tools import DAMAGED
from wal.tools.show import printable

RECORDS = [record for batch in BATCHES for record in batch]


def of(found: list[dict[str, object]], what: str) -> list[dict[str, object]]:
    return [row for row in found if row["what"] == what]


def payload_of(row: dict[str, object]) -> bytes:
    if "base64" in row:
        return base64.b64decode(str(row["base64"]))
    return str(row["text"]).encode()


def test_json_has_every_record_and_its_sums(tmp_path: Path) -> None:
    found = rows("dump", write_log(tmp_path / "log"))
    records = of(found, "record")
    assert [(row["lsn"], row["kind"], payload_of(row)) for row in records] == [
        (lsn, *record) for lsn, record in enumerate(RECORDS, 1)
    ]
    assert all(row["bytes"] == len(payload_of(row)) for row in records)
    assert found[-1] == {
        "what": "end", "records": COUNT, "frames": found[-1]["frames"], "damaged": 0, "cut_short": False,
    }  # fmt: skip
    assert len(of(found, "segment")) == len(segment_files(tmp_path / "log"))
    assert {row["header"] for row in of(found, "segment")} == {"sound"}


def test_payloads_are_shown_as_text_as_hex_or_not_at_all(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    assert "           3      3         13  \\xff\\x00binary\\x1b[31m\n" in run("dump", log).stdout
    assert f"  {b'the first record'.hex()}\n" in run("dump", log, "--payload", "hex").stdout
    assert "           1      1         16\n" in run("dump", log, "--payload", "none").stdout
    assert of(rows("dump", log, "--payload", "hex"), "record")[2]["hex"] == b"\xff\x00binary\x1b[31m".hex()
    assert set(of(rows("dump", log, "--payload", "none"), "record")[0]) == {"what", "lsn", "kind", "bytes"}


@pytest.mark.parametrize("after", range(COUNT + 1))
def test_a_dump_begins_after_any_record(after: int, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    assert [row["lsn"] for row in of(rows("dump", log, "--after", after), "record")] == list(
        range(after + 1, COUNT + 1)
    )
    limited = rows("dump", log, "--after", after, "--limit", 2)
    assert [row["lsn"] for row in of(limited, "record")] == list(range(after + 1, COUNT + 1))[:2]
    assert limited[-1]["cut_short"] == (after <= COUNT - 2)


def test_frames_are_shown_with_what_they_say_and_prove(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    found = of(rows("dump", log, "--frames"), "frame")
    assert [row["type"] for row in found[:4]] == ["open", "data", "data", "data"]
    assert found[-1]["type"] == "close"
    assert [row["type"] for row in found].count("seal") == len(segment_files(log)) - 1
    assert sum([int(str(row["records"])) for row in found]) == COUNT
    for before, after in itertools.pairwise(found):
        if before["segment"] == after["segment"]:
            assert after["offset_bytes"] == int(str(before["offset_bytes"])) + int(str(before["bytes"]))
    shown = run("dump", log, "--frames", "--limit", 3).stdout
    assert "    offset    bytes type      epoch           LSN   durable    offset  chain\n" in shown
    assert "      1024      512 data          1          1..2         0      1024  " in shown
    assert "Up to the limit: 3 records in 3 frames; nothing damaged was met." in shown


def test_frames_after_a_record_begin_with_the_one_that_holds_the_next(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    for after in range(COUNT):
        found = of(rows("dump", log, "--frames", "--after", after), "frame")
        first = next(row for row in found if row["records"])
        assert int(str(first["first_lsn"])) <= after + 1 < int(str(first["first_lsn"])) + int(str(first["records"]))
        assert all(int(str(row["first_lsn"])) > after for row in found if not row["records"])


def test_everything_sound_is_shown_around_damage_and_the_damage_where_it_is(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = segment_files(log)[0]
    flip(place, 1024 + 200)
    answer = run("dump", log)
    assert answer.exit_code == DAMAGED
    lines = answer.stdout.splitlines()
    assert lines[2] == "! offset 1024..1536: a frame whose checksum is wrong, LSN 1..2"
    assert lines[3].split()[0] == "3"
    assert lines[-1] == (
        f"{COUNT - 2} records in {len(of(rows('dump', log, '--frames'), 'frame'))} frames; 1 place not as written."
        " `salvage` says what is lost."
    )
    assert of(rows("dump", log), "damage") == [
        {
            "what": "damage", "file": place.name, "offset_bytes": 1024, "end_bytes": 1536,
            "problem": "a frame whose checksum is wrong, LSN 1..2",
        }
    ]  # fmt: skip


def test_a_damaged_header_hides_no_record(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0], 40)
    answer = run("dump", log)
    assert "segment 1, header damaged" in answer.stdout
    assert (
        "! offset 0..512: the segment header's checksum is wrong (bit 0 of the byte at offset 40 is flipped)\n"
        in answer.stdout
    )
    found = rows("dump", log)
    assert of(found, "segment")[0]["header"] == "damaged"
    assert len(of(found, "record")) == COUNT


def test_a_file_of_which_nothing_is_known_is_shown_as_that(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    (log / "stray.wal").write_bytes(b"no segment at all")
    answer = run("dump", log)
    assert "stray.wal  segment unknown, header damaged, 17 bytes\n" in answer.stdout
    assert "! offset 0..17: the file ends inside its header\n" in answer.stdout


def test_missing_segments_are_named_in_their_place(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    segment_files(log)[1].unlink()
    segment_files(log)[0].unlink()
    answer = run("dump", log)
    assert answer.exit_code == DAMAGED
    for number in (1, 2):
        assert f"! {number:08d}-*.wal: the segment's file is missing\n" in answer.stdout


def test_a_missing_last_segment_is_known_by_the_seal_before_it(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    segment_files(log)[-1].unlink()
    answer = run("dump", log)
    assert "sealed here, so the next segment is missing" in answer.stdout
    assert answer.exit_code == DAMAGED


def test_a_lost_seal_is_damage_only_before_a_segment_with_frames(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = segment_files(log)[0]
    frames = [row for row in rows("dump", log, "--frames") if row["what"] == "frame" and row["type"] == "seal"]
    offset = int(str(frames[0]["offset_bytes"]))
    harm(place, lambda image: image.__setitem__(slice(offset, offset + 512), bytes(512)))
    answer = run("dump", log)
    assert answer.exit_code == DAMAGED
    assert "the segment was never sealed" in answer.stdout
    for extra in segment_files(log)[2:]:
        extra.unlink()
    harm(segment_files(log)[1], lambda image: image.__setitem__(slice(512, None), bytes(len(image) - 512)))
    assert run("dump", log).exit_code == 0


def test_an_interrupted_write_is_shown_and_is_no_damage(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = segment_files(log)[-1]
    end = len(place.read_bytes().rstrip(b"\0")) + 511 & ~511
    harm(place, lambda image: image.__setitem__(slice(end, end + 4), b"torn"))
    answer = run("dump", log)
    assert answer.exit_code == 0
    assert (
        f"~ offset {end}..{end + 512}: an interrupted write that nothing proves acknowledged; opening" in answer.stdout
    )
    assert len(of(rows("dump", log), "torn")) == 1


def test_a_sound_frame_that_is_not_the_next_one_is_told_by_what_differs(tmp_path: Path) -> None:
    """Two histories under one id: a copy was opened for writing, and its segment put beside the log's own."""
    base = write_log(tmp_path / "base", BATCHES[:3])
    histories = []
    for name in (b"one", b"two"):
        path = tmp_path / name.decode()
        wal.copy(base, path)
        with open_log(wal.OsDisk(), path, entropy=lambda length, name=name: name[:1] * length) as log:
            for batch in BATCHES[3:6]:
                log.append(batch)
        histories.append(segment_files(path))
    one, two = histories
    harm(one[0], lambda image: image.__setitem__(slice(6144, None), two[0].read_bytes()[6144:]))
    differs = [row["problem"] for row in of(rows("dump", tmp_path / "one"), "damage")]
    assert "a sound frame that is not the next one: it differs in chain" in differs


def test_a_segment_that_does_not_follow_is_told(tmp_path: Path) -> None:
    log, other = write_log(tmp_path / "log"), write_log(tmp_path / "other", [[(1, b"another")], *BATCHES])
    segment_files(log)[1].write_bytes(segment_files(other)[1].read_bytes())
    answer = run("dump", log)
    assert answer.exit_code == DAMAGED
    assert "! offset 0..512: the segment does not follow from the one before it\n" in answer.stdout


def test_frames_of_another_log_differ_in_every_way(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    with open_log(wal.OsDisk(), tmp_path / "other", entropy=bytes) as other:
        for n in range(5):
            other.append([(n, b"other")])
    place, foreign = segment_files(log)[0], segment_files(tmp_path / "other")[0]
    end = 512 * 3
    harm(place, lambda image: image.__setitem__(slice(end, end + 512), foreign.read_bytes()[end : end + 512]))
    problems = [str(row["problem"]) for row in of(rows("dump", log), "damage")]
    assert any("it differs in log, LSN, chain" in problem for problem in problems), problems


def test_what_was_pruned_is_not_missing_and_what_was_redacted_is_marked(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        log.redact(lambda entry: entry.lsn == 10)
        first = log.prune(8).first_lsn
    answer = run("dump", tmp_path / "log")
    assert answer.exit_code == 0
    assert "          10      4   redacted\n" in answer.stdout
    found = of(rows("dump", tmp_path / "log"), "record")
    assert found[0]["lsn"] == first
    assert next(row for row in found if row["lsn"] == 10) == {"what": "record", "lsn": 10, "kind": 4, "redacted": True}


def test_what_an_interrupted_prune_left_is_not_shown(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        leftover = segment_files(tmp_path / "log")[0]
        image = leftover.read_bytes()
        log.prune(8)
    leftover.write_bytes(image)
    assert leftover.name not in run("dump", tmp_path / "log").stdout
    (tmp_path / "log" / "BASE").write_bytes(b"")
    assert leftover.name in run("dump", tmp_path / "log").stdout


def test_a_base_that_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    (log / "BASE").unlink()
    (log / "BASE").mkdir()
    assert len(of(rows("dump", log), "record")) == COUNT


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"\x1b[2Jwiped", "\\x1b[2Jwiped"),
        (b"a\nb\tc", "a\\nb\\tc"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202ereversed".encode(), "\\u202ereversed"),
    ],
)
def test_no_payload_can_steer_the_terminal(payload: bytes, shown: str) -> None:
    assert printable(payload) == shown


# tail.


@pytest.mark.parametrize("last", [0, 1, 3, 10, COUNT, COUNT + 5])
def test_the_last_records_are_shown_across_segments(last: int, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    found = rows("tail", "-n", last, log)
    assert [row["lsn"] for row in found] == list(range(1, COUNT + 1))[max(COUNT - last, 0) :]
    assert len(run("tail", "-n", last, log).stdout.splitlines()) == 1 + len(found)


def test_tail_begins_where_it_is_told_and_stops_after_so_many(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    assert [row["lsn"] for row in rows("tail", "--after", 3, "--count", 4, log)] == [4, 5, 6, 7]


def test_a_follower_sees_what_a_writer_adds(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(wal.OsDisk(), path) as log:
        log.append([(1, b"one")])

        def write() -> None:
            for payload in (b"two", b"three", b"four"):
                log.append([(1, payload)])

        writer = threading.Timer(0.05, write)
        writer.start()
        found = rows("tail", "-f", "-n", 0, "--count", 3, path)
        writer.join()
    assert [row["text"] for row in found] == ["one", "two", "three"], "each is shown once the next one proves it"


def test_a_follower_of_a_log_that_rests_goes_when_it_is_told_to(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    assert [row["lsn"] for row in rows("tail", "-f", "-n", 2, "--max-idle-s", 0, log)] == [COUNT - 1, COUNT]


def test_what_is_pruned_under_a_follower_is_told_and_skipped(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log", heartbeat_ms=NEVER_MS) as log:
        for batch in BATCHES:
            log.append(batch)
        first = log.prune(8).first_lsn
    answer = run("tail", "--after", 2, "--json", tmp_path / "log")
    assert answer.exit_code == 0
    assert [json.loads(row)["lsn"] for row in answer.stdout.splitlines()] == list(range(first, COUNT + 1))
    assert answer.stderr == f"LSN 3..{first - 1} were pruned; going on after them\n"


def test_the_last_of_a_pruned_log_are_at_most_what_is_left(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        first = log.prune(8).first_lsn
    assert [row["lsn"] for row in rows("tail", "-n", 1000, tmp_path / "log")] == list(range(first, COUNT + 1))


def test_tail_shows_what_is_sound_before_it_stops_at_damage(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", BATCHES[:5])
    flip(segment_files(log)[0], 1536 + 200)
    answer = run("tail", "--after", 0, "--json", log)
    assert answer.exit_code == DAMAGED
    assert [json.loads(row)["lsn"] for row in answer.stdout.splitlines()] == [1, 2]
    assert "LSN 3" in answer.stderr
