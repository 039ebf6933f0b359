"""Scrubbing: a little at a time, at a bounded rate, and nothing in a finished segment goes unnoticed."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest
from log_rig import PATH, SEGMENT_BYTES, AtCall, open_log, overwrite, segment, segments, written

import wal
from wal.progress import STEP_BYTES, Meter
from wal.scrub import Scrubbed, scrub
from wal.testing import FaultDisk, MemoryDisk

RECORDS = [(n, bytes([n]) * (300 + 150 * n)) for n in range(14)]
BATCHES = [RECORDS[:2], RECORDS[2:3], RECORDS[3:6], *[[record] for record in RECORDS[6:]]]


def several() -> MemoryDisk:
    return written(BATCHES)


FINISHED = len(segments(several())) - 1


def scrubbed(disk: wal.Disk, **options: object) -> Scrubbed:
    return scrub(PATH, disk=disk, **options)  # type: ignore[arg-type]


def test_a_sound_log_is_scrubbed_in_one_round() -> None:
    disk = several()
    found = scrubbed(disk)
    last = segments(disk)[-1]
    assert found == Scrubbed(
        first_segment=1, last_segment=FINISHED, segments=FINISHED, records=int(last.name[9:29]) - 1,
        read_bytes=FINISHED * SEGMENT_BYTES, next_segment=1, went_round=True, problems=(),
    )  # fmt: skip


def test_a_budget_ends_the_call_and_the_next_goes_on_from_there() -> None:
    disk = several()
    number = 1
    for done in range(1, FINISHED + 1):
        found = scrubbed(disk, first_segment=number, budget_bytes=1)
        assert (found.first_segment, found.last_segment, found.segments) == (done, done, 1)
        assert found.went_round == (done == FINISHED)
        number = found.next_segment
    assert number == 1
    two = scrubbed(disk, budget_bytes=SEGMENT_BYTES + 1)
    assert (two.segments, two.next_segment) == (2, 3)


def test_every_byte_of_every_finished_segment_is_watched() -> None:
    sound = several()
    for place in segments(sound)[:-1]:
        image = sound.peek(place)
        for offset in range(0, SEGMENT_BYTES, 97):
            disk = sound.copy()
            overwrite(disk, place, offset, bytes([image[offset] ^ 0x40]))
            found = scrubbed(disk)
            number = int(place.name[:8])
            assert number in {problem.segment for problem in found.problems}, offset
            assert found.segments == FINISHED, "damage in one segment keeps no other from being scrubbed"


def test_a_problem_has_its_place() -> None:
    disk = several()
    overwrite(disk, segments(disk)[1], 512 + 130, b"\xff")
    (problem,) = scrubbed(disk).problems
    assert (problem.path, problem.segment, problem.offset_bytes) == (PATH, 2, 512)
    assert "damaged" in problem.problem
    assert scrubbed(disk, first_segment=3).problems == ()


def test_a_missing_segment_is_a_problem_and_stops_the_scrub() -> None:
    disk = several()
    disk.unlink(segments(disk)[1])
    found = scrubbed(disk, first_segment=1)
    assert [(problem.path, problem.segment) for problem in found.problems] == [(PATH, 2)]
    assert (found.segments, found.next_segment, found.went_round) == (0, 1, False)


def test_a_log_with_nothing_finished_is_gone_round_at_once(tmp_path: Path) -> None:
    assert scrubbed(written(BATCHES[:1])) == Scrubbed(0, 0, 0, 0, 0, 1, went_round=True, problems=())
    assert scrub(tmp_path) == Scrubbed(0, 0, 0, 0, 0, 1, went_round=True, problems=())
    with pytest.raises(FileNotFoundError):
        scrub(tmp_path / "nowhere")


def test_a_number_past_the_last_finished_segment_begins_a_new_round() -> None:
    assert scrubbed(several(), first_segment=99).first_segment == 1


def test_a_pruned_log_is_scrubbed_from_where_it_begins() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for batch in BATCHES:
            log.append(batch)
        log.prune(7)
    first = int(segments(disk)[0].name[:8])
    assert first > 1
    found = scrubbed(disk)
    assert (found.first_segment, found.next_segment, found.problems) == (first, first, ())


def test_a_redacted_segment_is_sound() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for batch in BATCHES:
            log.append(batch)
        assert log.redact(lambda entry: entry.lsn < 6).records
    assert scrubbed(disk).problems == ()


def test_a_live_log_is_scrubbed_up_to_its_last_segment() -> None:
    with open_log(disk := MemoryDisk()) as log:
        for batch in BATCHES:
            log.append(batch)
            assert scrubbed(disk).problems == ()
        assert scrubbed(disk).segments > 0


def test_a_segment_whose_seal_is_still_due_is_no_problem() -> None:
    disk = several()
    places = segments(disk)
    image = disk.peek(places[1])
    seal = (len(image.rstrip(b"\0")) - 1) // 512 * 512
    overwrite(disk, places[1], seal, bytes(512))
    disk.poke(places[2], disk.peek(places[2])[:512].ljust(SEGMENT_BYTES, b"\0"))
    for place in places[3:]:
        disk.unlink(place)
    found = scrubbed(disk)
    assert (found.problems, found.segments) == ((), 2)


def test_a_seal_that_is_written_while_its_segment_is_read_is_seen() -> None:
    disk = several()
    places = segments(disk)
    sealed, following = disk.peek(places[1]), disk.peek(places[2])
    seal = (len(sealed.rstrip(b"\0")) - 1) // 512 * 512
    overwrite(disk, places[1], seal, bytes(512))
    disk.poke(places[2], following[:512].ljust(SEGMENT_BYTES, b"\0"))
    for place in places[3:]:
        disk.unlink(place)

    for at in range(1, 400):
        meddled_with = disk.copy()

        def finish(there: MemoryDisk = meddled_with) -> None:
            for place, offset, data in ((places[1], seal, sealed[seal : seal + 512]), (places[2], 0, following)):
                fd = there.open(place, write=True)
                there.pwrite(fd, data, offset)
                there.close(fd)

        meddled = AtCall(meddled_with, at, finish)
        assert scrubbed(meddled, first_segment=2).problems == ()  # type: ignore[arg-type]
        if meddled.left > 0:
            return
    pytest.fail("not every moment was tried")


@pytest.mark.parametrize("what", ["prune", "redact", "append"])
def test_whatever_the_writer_does_meanwhile_is_no_problem(what: str) -> None:
    at = 0
    while True:
        at += 1
        disk = MemoryDisk()
        with open_log(disk) as log:
            for batch in BATCHES[:8]:
                log.append(batch)
            act: Callable[[], object] = {
                "prune": lambda log=log: log.prune(9),
                "redact": lambda log=log: log.redact(lambda entry: entry.lsn % 2 == 0),
                "append": lambda log=log: [log.append([(1, b"more" * 400)]) for _ in range(3)],
            }[what]
            meddled = AtCall(disk, at, act)
            assert scrubbed(meddled, progress=lambda *_: None).problems == ()  # type: ignore[arg-type]
        if meddled.left > 0:
            break
    assert at > 20


def test_a_medium_that_does_not_give_a_segment_back_is_a_problem() -> None:
    disk = several()
    reads = FaultDisk(disk)
    scrubbed(reads)
    for nth in (1, 2):  # BASE, without which nobody knows which segments there must be
        with pytest.raises(OSError, match="Input/output error"):
            scrubbed(_failing(disk, nth))
    places = {
        (problem.segment, "medium" in problem.problem)
        for nth in range(3, reads.calls["pread"] + 1)
        for problem in scrubbed(_failing(disk, nth)).problems
    }
    assert places == {(number, True) for number in range(1, FINISHED + 1)}


def _failing(disk: MemoryDisk, nth: int) -> FaultDisk:
    faults = FaultDisk(disk)
    faults.fail("pread", errno.EIO, nth)
    return faults


def test_a_file_that_goes_without_a_prune_is_a_problem() -> None:
    disk = several()
    place = segments(disk)[0]
    meddled = AtCall(disk, 3, lambda: disk.unlink(place) if place in disk.files() else None)
    (problem,) = scrubbed(meddled).problems  # type: ignore[arg-type]
    assert (problem.segment, problem.problem) == (1, "the segment is missing")


def test_bytes_are_read_from_the_medium_and_leave_the_cache_alone() -> None:
    faults = FaultDisk(several())
    scrubbed(faults)
    assert faults.calls["drop_cache"] == 2 * FINISHED


class Clock:
    """A clock that only waiting moves."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []
        self._stop_after_s = stop_after_s

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now_s += seconds
        return self._stop_after_s is not None and self.now_s - 100 >= self._stop_after_s


def test_no_more_is_read_than_the_rate_allows() -> None:
    clock = Clock()
    found = scrubbed(several(), bytes_per_s=1000, pause=clock.wait, clock=clock)
    assert found.read_bytes / 1000 - 1 <= clock.now_s - 100 <= found.read_bytes / 1000
    assert len(clock.waits) >= found.read_bytes // 8192
    fast = Clock()
    scrubbed(several(), bytes_per_s=100 * STEP_BYTES, pause=fast.wait, clock=fast)
    assert fast.waits == [], "nothing is waited for before a step is full"


def test_a_reader_that_is_late_anyway_does_not_wait() -> None:
    class Late(Clock):
        def __call__(self) -> float:
            self.now_s += 60
            return self.now_s

    late = Late()
    scrubbed(several(), bytes_per_s=1000, pause=late.wait, clock=late)
    assert late.waits == []


def test_whoever_paces_it_can_stop_it_and_nothing_is_skipped() -> None:
    clock = Clock(stop_after_s=9)
    found = scrubbed(several(), bytes_per_s=1000, pause=clock.wait, clock=clock)
    assert (found.segments, found.next_segment, found.went_round) == (1, 2, False)
    again = scrubbed(several(), first_segment=found.next_segment)
    assert (again.first_segment, again.went_round) == (2, True)
    stopped = threading.Event()
    stopped.set()
    nothing = scrubbed(several(), bytes_per_s=1, pause=stopped.wait)
    assert (nothing.segments, nothing.next_segment) == (0, 1)


def test_progress_counts_the_budget_or_the_whole() -> None:
    disk = several()
    told: list[tuple[int, int]] = []
    scrubbed(disk, progress=lambda done, total: told.append((done, total)))
    assert told == [(FINISHED * SEGMENT_BYTES, FINISHED * SEGMENT_BYTES)]
    told.clear()
    scrubbed(disk, budget_bytes=2 * SEGMENT_BYTES, progress=lambda done, total: told.append((done, total)))
    assert told == [(2 * SEGMENT_BYTES, 2 * SEGMENT_BYTES)]


def test_progress_is_told_in_steps_and_grows_with_what_turns_up() -> None:
    told: list[tuple[int, int]] = []
    meter = Meter(lambda done, total: told.append((done, total)), 3 * STEP_BYTES)
    for _ in range(8):
        meter.add(STEP_BYTES // 2)
    meter.add(0)
    half = STEP_BYTES // 2
    assert told == [
        (2 * half, 6 * half),
        (4 * half, 6 * half),
        (6 * half, 6 * half),
        (7 * half, 7 * half),
        (8 * half, 8 * half),
    ]


def test_a_seal_that_states_another_tree_is_a_problem() -> None:
    disk = several()
    image = bytearray(disk.peek(segment()))
    start = (len(image.rstrip(b"\0")) - 1) // 512 * 512
    image[start + 130] ^= 1
    image[start + 508 : start + 512] = google_crc32c.value(bytes(image[start : start + 508])).to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    problems = scrubbed(disk).problems
    assert isinstance(problems[0], wal.LogTampered)
    assert [problem.segment for problem in problems] == [1]


def test_a_scrub_on_a_real_file_system(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path, segment_bytes=8192) as log:
        for batch in BATCHES:
            log.append(batch)
        assert scrub(tmp_path).problems == ()
