"""Readers beside a writer that loses its power, is killed, fails or hangs: they never see what is lost, and go on."""

import errno
import os
from collections.abc import Callable

import pytest
from log_rig import PATH, Record, abandon, entries, numbered, open_log, segments
from sim_rig import Acknowledged, Judge, Player, Promise, Script, held_by

import wal
from wal.testing import SYNC_MODELS, FaultDisk, MemoryDisk, SyncModel, crash_states

LONG_S = 30


class Watched(Player):
    """A player beside whom others read: in the writer's process, and elsewhere. What they saw counts as promised."""

    seen = 0

    def _settle(self) -> None:
        super()._settle()
        self.look(self.log.durable_lsn)

    def kill(self) -> None:
        super().kill()
        self.look(0)

    def look(self, durable_lsn: int) -> None:
        elsewhere = [entry.lsn for entry in wal.read(PATH, None, disk=self.memory)]
        here = [entry.lsn for entry in self.log.read(None)] if durable_lsn else []
        seen = max([self.seen, *elsewhere[-1:], *here[-1:]])
        if seen > self.seen:
            self.seen = seen
            self.memory.note(Acknowledged(max(seen, durable_lsn)))


def watched(player: Watched) -> None:
    player.append(10)
    player.stage(300)
    player.append(900, 40)
    player.group([5], [700])
    player.append(2400)
    player.stage(20)
    player.kill()
    player.open()
    player.append(2300)
    player.stage(0)
    player.append(1)
    player.close()


def test_what_a_reader_saw_is_there_after_any_power_loss() -> None:
    player = Watched(MemoryDisk(record=True))
    watched(player)
    assert player.seen == 11
    judge = Judge()
    judge.check(crash_states(player.memory.trace, sectors_max=4, samples=8))
    assert judge.states > 1000


# A process that is killed at any operation: what it wrote stays in the page cache.


def maintained(player: Player) -> None:
    player.append(2300)
    player.head()
    player.stage(10)
    player.append(300, 1400)
    player.append(2300)
    player.redact(1, 3)
    player.append(1400)
    player.head()
    player.append(2300)
    player.prune(4)
    player.redact(4, 5)
    player.append(1400)
    player.close()


def killed_at(script: Script, operations: int) -> tuple[MemoryDisk, Promise, bool]:
    """Play a script, and kill it after so many operations; return the disk, what was promised, and if it ended."""
    memory = MemoryDisk(record=True)
    memory.power_off_after(operations)
    player, finished = None, False
    try:
        player = Player(memory)
        script(player)
        finished = True
    except wal.LogError:
        pass
    after = memory.kill()
    if player is not None:
        abandon(player.log)
    return after, Promise([operation.note for operation in memory.trace.operations]), finished


def test_a_process_killed_at_any_operation_leaves_what_it_promised_and_no_half_of_anything() -> None:
    operations, finished = 0, False
    while not finished:
        after, promise, finished = killed_at(maintained, operations)
        seen = list(wal.read(PATH, None, disk=after))
        open_log(after).close()
        found = held_by(after)
        promise.check(found)
        assert list(found.entries)[-len(seen) :] == seen or not seen
        for head in promise.heads:
            assert wal.verify(PATH, head, disk=after).expected == "confirmed", operations
        assert not [place.name for place in after.files() if place.suffix == ".tmp"], operations
        operations += 1
    assert operations > 60


def test_a_reader_goes_on_after_a_writer_was_killed_without_gap_or_repeat() -> None:
    def script(player: Player) -> None:
        for length in (10, 1500, 2400, 300, 2400):
            player.append(length)

    operations, finished = 0, False
    while not finished:
        after, promise, finished = killed_at(script, operations)
        reader = wal.Reader(PATH, disk=after)
        found = reader.poll(2)
        with open_log(after) as log:
            for number in range(3):
                while more := reader.poll(2):
                    found += more
                log.append([(number, b"the next writer's" * 90)])
        while more := reader.poll():
            found += more
        kept = len(found) - 3
        assert found[:kept] == list(promise.entries[:kept])
        assert kept >= promise.acked
        assert found[kept:] == numbered([(n, b"the next writer's" * 90) for n in range(3)], kept + 1)
        operations += 1


# A disk that fails under the writer.


@pytest.mark.parametrize("model", [model for model in SYNC_MODELS if not model.late], ids=lambda model: model.name)
def test_a_failed_sync_moves_no_durable_mark(model: SyncModel) -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    log.append([(1, b"one"), (2, b"two")])
    log.append([(3, b"three")])
    reader, elsewhere = log.reader(), wal.Reader(PATH, disk=disk)
    assert [entry.lsn for entry in reader.poll()] == [1, 2, 3]
    assert [entry.lsn for entry in elsewhere.poll()] == [1, 2]
    head = log.head()
    disk.fail_sync(model)
    with pytest.raises(wal.OutcomeUnknown):
        log.append([(4, b"perhaps")])
    assert (log.durable_lsn, log.head()) == (3, head)
    assert reader.poll() == []
    assert [entry.lsn for entry in elsewhere.poll()] in ([], [3])
    assert list(log.read()) == numbered([(1, b"one"), (2, b"two"), (3, b"three")])
    log.close()


def append_all(log: wal.Log, records: list[Record]) -> None:
    for record in records:
        log.append([record])


@pytest.mark.parametrize("op", ["rename", "fsync_dir"])
@pytest.mark.parametrize("what", ["rotate", "redact"])
def test_readers_go_on_where_a_rename_or_a_directory_sync_fails(op: str, what: str) -> None:
    disk = FaultDisk(MemoryDisk())
    log = open_log(disk)
    records = [(n, bytes([n]) * 2300) for n in range(5)]
    for record in records[:4]:
        log.append([record])
    elsewhere = wal.Reader(PATH, disk=disk)
    found = elsewhere.poll(1)
    disk.fail(op, errno.EIO)
    if what == "redact":
        with pytest.raises(wal.LogFailed):
            log.redact(lambda entry: entry.lsn == 1)
    else:
        with pytest.raises(wal.OutcomeUnknown):
            append_all(log, records * 9)
    acked = log.durable_lsn
    assert [entry.lsn for entry in log.read()] == list(range(1, acked + 1))
    log.close()
    while more := elsewhere.poll(1):
        found += more
    assert [entry.lsn for entry in found][:acked] == list(range(1, acked + 1))
    with open_log(disk) as log:
        log.append([(9, b"on")])
    written = numbered(records[:4])
    assert entries(disk)[:4] in (written, [wal.Redacted(1, 0, b""), *written[1:]])


def test_how_far_a_slow_disk_is_behind_can_be_seen_and_readers_wait_with_it() -> None:
    disk = FaultDisk(MemoryDisk())
    log = open_log(disk, segment_bytes=1 << 20)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    pending = [log.submit([(n, b"late")]) for n in range(1, 4)]
    assert disk.wait_until_hung("fdatasync")
    reader = log.reader()
    assert (log.durable_lsn, log.next_lsn - 1) == (1, 4)
    assert [entry.lsn for entry in reader.poll()] == [1]
    assert [entry.lsn for entry in wal.read(PATH, disk=disk)] == [1]
    disk.release()
    assert [each.result(LONG_S).last_lsn for each in pending] == [2, 3, 4]
    assert (log.durable_lsn, log.next_lsn - 1) == (4, 4)
    assert [entry.lsn for entry in reader.poll()] == [2, 3, 4]
    log.close()


# A disk that refuses the reader.

LOOKS: dict[str, Callable[[wal.Disk], object]] = {
    "read": lambda disk: list(wal.read(PATH, disk=disk)),
    "verify": lambda disk: wal.verify(PATH, disk=disk).status,
    "head": lambda disk: wal.head(PATH, disk=disk),
    "prove": lambda disk: wal.prove_inclusion(PATH, 2, disk=disk),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("error_no", [errno.EMFILE, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_a_look_that_the_system_refuses_says_why_and_works_once_it_does_not(look: str, error_no: int) -> None:
    disk = FaultDisk(MemoryDisk())
    with open_log(disk) as log:
        for n in range(6):
            log.append([(n, bytes(2000))])
    expected = LOOKS[look](disk)
    counted = disk.calls["open"]
    LOOKS[look](disk)
    for nth in range(1, disk.calls["open"] - counted + 1):
        disk.fail("open", error_no, nth, forever=True)
        with pytest.raises(OSError, match=os.strerror(error_no)) as caught:
            LOOKS[look](disk)
        assert caught.value.errno == error_no
        disk.heal()
        assert LOOKS[look](disk) == expected


@pytest.mark.parametrize("op", ["open", "unlink", "rename"])
@pytest.mark.parametrize("error_no", [errno.EMFILE, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_maintenance_that_the_system_refuses_is_an_error_of_the_log_s_own(op: str, error_no: int) -> None:
    disk = FaultDisk(MemoryDisk())
    with open_log(disk) as log:
        for n in range(8):
            log.append([(n, bytes(2000))])
        head, refused = log.head(), 0
        maintenance: tuple[Callable[[], object], ...] = (
            lambda: log.redact(lambda entry: entry.lsn == 2), lambda: log.prune(4),
        )  # fmt: skip
        for maintain in maintenance:
            for nth in range(1, 4):
                disk.fail(op, error_no, nth)
                try:
                    maintain()
                except wal.LogFailed as error:
                    assert os.strerror(error_no) in str(error)  # noqa: PT017  some calls need not come to the fault
                    refused += 1
                disk.heal()
                assert log.failure is None
                assert wal.verify(PATH, head, disk=disk).expected == "confirmed"
        assert refused > 0
        assert log.append([(9, b"on")])


def test_nobody_who_reads_needs_room() -> None:
    memory = MemoryDisk()
    disk = FaultDisk(memory)
    log = open_log(disk)
    for n in range(6):
        log.append([(n, bytes(2000))])
    disk.no_space()
    assert len(list(log.read())) == 6
    assert len(entries(disk)) >= 5
    killed = FaultDisk(memory.kill())
    abandon(log)
    killed.no_space()
    assert [len(entries(killed)), wal.verify(PATH, disk=killed).records, wal.head(PATH, disk=killed).size] == [6, 6, 6]
    assert len(segments(memory)) > 1
