"""verify, head, proof: verdicts in words and in JSON, heads that are kept, proofs that travel."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from log_rig import open_log
from tools_rig import BATCHES, COUNT, flip, harm, run, run_json, segment_files, write_log

import wal
from wal.tools import DAMAGED, UNREADABLE, main
from wal.tools.verify import VERDICTS
from wal.verify import SOUND, Verdict


def head_of(path: Path) -> str:
    return run("head", path).stdout.strip()


def test_every_status_that_verify_knows_has_words_and_a_status_of_its_own() -> None:
    stated = {line.split('"')[1] for line in str(Verdict.__doc__).splitlines() if line.strip().startswith('- "')}
    assert stated | {"unsupported", "empty"} == set(VERDICTS)
    for status, says in VERDICTS.items():
        assert says.sentence.endswith(".")
        assert (says.exit_status == 0) == (status in SOUND - {"empty"})
        assert says.next or says.exit_status == 0


def test_a_sound_log_is_called_so_with_what_there_is_to_know_of_it(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    shown = run("verify", log).stdout
    assert "status    intact\n" in shown
    assert f"records   {COUNT} sound, LSN 1..{COUNT}\n" in shown
    assert f"segments  {len(segment_files(log))}\n" in shown
    assert "ending    closed cleanly\n" in shown
    assert f"head      {head_of(log)}\n" in shown
    assert shown.endswith("The log is intact: every record is there as it was written.\n")


def test_json_has_the_whole_verdict(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    verdict = wal.verify(log)
    assert run_json("verify", log) == {
        "status": "intact", "sound": True, "records": COUNT, "first_lsn": 1, "last_lsn": COUNT, "redacted": 0,
        "segments": verdict.segments, "head": str(verdict.head), "expected": None, "problem": None, "segment": None,
        "offset_bytes": None, "live": False, "clean_close": True,
    }  # fmt: skip


def test_damage_is_named_with_its_place_and_the_next_step(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[1], 512 + 200)
    answer = run("verify", log)
    assert answer.exit_code == DAMAGED
    assert "place     segment 2, offset 512\n" in answer.stdout
    problem = "a frame of a finished segment is damaged (bit 0 of the byte at offset 712 is flipped)"
    assert f"problem   {problem}\n" in answer.stdout
    assert f"python -m wal salvage {log} --to FILE" in answer.stdout
    assert "ending" not in answer.stdout
    assert "head" not in answer.stdout
    found = run_json("verify", log)
    assert (found["status"], found["sound"], found["segment"]) == ("corrupt", False, 2)


def test_an_interrupted_write_is_no_damage(tmp_path: Path) -> None:
    log = open_log(wal.OsDisk(), tmp_path / "log")
    log.append(BATCHES[0])
    log.append(BATCHES[1])
    place = segment_files(tmp_path / "log")[0]
    image = place.read_bytes()
    log.close()
    place.write_bytes(image)  # as if the writer had died before it closed
    flip(place, len(image.rstrip(b"\0")) - 100)
    answer = run("verify", tmp_path / "log")
    assert answer.exit_code == 0
    assert "status    torn\n" in answer.stdout
    assert "it sets that write aside" in answer.stdout


def test_a_live_log_is_verified_beside_its_writer(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        log.append(BATCHES[0])
        answer = run("verify", tmp_path / "log")
    assert answer.exit_code == 0
    assert "ending    a writer has it open\n" in answer.stdout


def test_an_unclosed_log_is_called_so(tmp_path: Path) -> None:
    log = open_log(wal.OsDisk(), tmp_path / "log")
    log.append(BATCHES[0])
    place = segment_files(tmp_path / "log")[0]
    image = place.read_bytes()
    log.close()
    place.write_bytes(image)
    assert "ending    not closed\n" in run("verify", tmp_path / "log").stdout


def test_what_the_owner_took_out_is_said(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        log.redact(lambda entry: entry.lsn == 5)
        redacted = run("verify", tmp_path / "log")
        assert "status    redacted\n" in redacted.stdout
        assert "redacted  1\n" in redacted.stdout
        log.prune(8)
        pruned = run("verify", tmp_path / "log")
    assert "status    pruned\n" in pruned.stdout
    assert (redacted.exit_code, pruned.exit_code) == (0, 0)


def test_a_head_is_one_line_on_standard_output_and_its_meaning_on_the_other(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    answer = run("head", log)
    assert answer.stdout == f"{wal.head(log)}\n"
    assert answer.stderr == f"the head of {COUNT} records; keep it out of reach of whoever can write the log\n"
    found = run_json("head", log)
    assert found["head"] == str(wal.head(log))
    assert (found["size"], len(found["root"]), len(found["chain"]), len(found["log_id"])) == (COUNT, 64, 64, 32)


def test_a_kept_head_confirms_a_log_that_only_grew(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    kept = head_of(log)
    write_log(log)
    answer = run("verify", log, "--head", kept)
    assert answer.exit_code == 0
    assert "expected head  confirmed: " in answer.stdout
    assert run_json("verify", log, "--head", kept)["expected"] == "confirmed"


def test_a_kept_head_exposes_a_log_that_was_rewritten(tmp_path: Path) -> None:
    kept = head_of(write_log(tmp_path / "log"))
    forged = write_log(tmp_path / "forged", [[(1, b"the first record, but another"), (2, b"")], *BATCHES[1:]])
    assert run("verify", forged).exit_code == 0
    answer = run("verify", forged, "--head", kept)
    assert answer.exit_code == DAMAGED
    assert "status         tampered\n" in answer.stdout
    assert "expected head  CONTRADICTED: " in answer.stdout


def test_a_kept_head_exposes_a_log_that_was_cut(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", BATCHES[:1])
    before = {place.name: place.read_bytes() for place in log.iterdir()}
    write_log(log, BATCHES[1:])
    kept = head_of(log)
    for place in log.iterdir():
        place.unlink()
    for name, image in before.items():
        (log / name).write_bytes(image)
    answer = run("verify", log, "--head", kept)
    assert answer.exit_code == DAMAGED
    assert "status    truncated\n" in answer.stdout


def test_a_head_of_which_everything_was_pruned_is_neither_confirmed_nor_denied(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        log.append(BATCHES[0])
        kept = str(log.head())
        for batch in BATCHES[1:]:
            log.append(batch)
        log.prune(8)
    answer = run("verify", tmp_path / "log", "--head", kept)
    assert answer.exit_code == UNREADABLE
    assert "expected head  unprovable: " in answer.stdout
    assert "cannot be told" in answer.stdout


@pytest.mark.parametrize("text", ["", "wal-head-2:00", "nonsense"])
def test_what_is_no_head_is_wrong_usage(text: str, tmp_path: Path) -> None:
    answer = run("verify", tmp_path, "--head", text)
    assert answer.exit_code == 2
    assert "is not a log's head" in answer.stderr


# Proofs.


def proof_of(log: Path, tmp_path: Path, *arguments: object) -> Path:
    made = run("proof", log, *arguments)
    assert made.exit_code == 0, made.output
    place = tmp_path / "proof.json"
    place.write_text(made.stdout, encoding="utf-8")
    return place


def test_every_record_can_be_proven_to_whoever_has_the_head(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    head = head_of(log)
    for lsn in range(1, COUNT + 1):
        answer = run("proof", "--check", proof_of(log, tmp_path, lsn), "--head", head)
        assert answer.exit_code == 0
        assert f"The proof holds: record {lsn}, of kind " in answer.stdout
        assert "--payload-file" in answer.stdout


def test_a_proof_says_what_the_record_says(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    proof, head = proof_of(log, tmp_path, 1), head_of(log)
    payload, other = tmp_path / "payload", tmp_path / "other"
    payload.write_bytes(b"the first record")
    other.write_bytes(b"the first record!")
    right = run("proof", "--check", proof, "--head", head, "--payload-file", payload)
    wrong = run("proof", "--check", proof, "--head", head, "--payload-file", other)
    assert (right.exit_code, wrong.exit_code) == (0, DAMAGED)
    assert right.stdout.endswith("and says what the file does.\n")
    assert "does NOT hold" in wrong.stdout


def test_a_proof_for_an_older_head_is_asked_for_by_size_or_by_the_head(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    old = head_of(log)
    write_log(log)
    by_size = proof_of(log, tmp_path, 3, "--size", COUNT).read_text(encoding="utf-8")
    by_head = proof_of(log, tmp_path, 3, "--head", old)
    assert by_head.read_text(encoding="utf-8") == by_size
    assert run("proof", "--check", by_head, "--head", old).exit_code == 0
    assert run("proof", "--check", by_head, "--head", head_of(log)).exit_code == DAMAGED


def test_that_a_log_only_grew_is_proven_between_two_heads(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    old = head_of(log)
    write_log(log)
    new = head_of(log)
    proof = proof_of(log, tmp_path, "--since", COUNT)
    answer = run("proof", "--check", proof, "--head", new, "--old-head", old)
    assert answer.exit_code == 0
    assert f"the log of {2 * COUNT} records begins with the one of {COUNT}, unchanged" in answer.stdout
    assert run("proof", "--check", proof, "--head", old, "--old-head", new).exit_code == DAMAGED
    assert run_json("proof", "--check", proof, "--head", new, "--old-head", old)["holds"] is True
    lacking = run("proof", "--check", proof, "--head", new)
    assert lacking.exit_code == 2
    assert "--old-head" in lacking.stderr


def test_a_proof_travels_through_a_pipe(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    made = run("proof", log, 2).stdout
    checked = CliRunner().invoke(main, ["proof", "--check", "-", "--head", head_of(log), "--json"], input=made)
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["holds"] is True


@pytest.mark.parametrize("text", ["", "[]", '{"proof": "inclusion"}', '{"proof": "consistency", "path": 3}', "{"])
def test_what_is_no_proof_is_wrong_usage(text: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = tmp_path / "proof.json"
    place.write_text(text, encoding="utf-8")
    answer = run("proof", "--check", place, "--head", head_of(log))
    assert answer.exit_code == 2
    assert "holds no proof" in answer.stderr


def test_what_cannot_be_asked_is_wrong_usage(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    place = proof_of(log, tmp_path, 1)
    for arguments, why in (
        ((), "give a directory and an LSN"),
        ((log,), "give either an LSN"),
        ((log, 1, "--since", 1), "give either an LSN"),
        ((log, COUNT + 1), "is not among"),
        ((log, "--since", COUNT + 1), "does not begin with"),
        (("--check", place), "--check needs --head"),
    ):
        answer = run("proof", *arguments)
        assert answer.exit_code == 2, arguments
        assert why in answer.stderr


def test_a_pruned_record_has_no_proof_and_that_is_no_damage(tmp_path: Path) -> None:
    with open_log(wal.OsDisk(), tmp_path / "log") as log:
        for batch in BATCHES:
            log.append(batch)
        log.prune(8)
    answer = run("proof", tmp_path / "log", 1)
    assert answer.exit_code == UNREADABLE
    assert "was pruned" in answer.stderr


def test_a_damaged_log_makes_no_proof(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    harm(segment_files(log)[0], lambda image: image.__setitem__(slice(512, 1024), bytes(512)))
    assert run("proof", log, 1).exit_code == DAMAGED


def test_a_damaged_log_has_no_head_because_one_of_what_stands_before_would_hide_the_loss(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[-1], 700)
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        wal.head(log)
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        wal.prove_inclusion(log, 1)
