"""BASE, byte by byte: what is written stands where the format says, and nothing else is taken for a beginning."""

import contextlib
import errno
import struct
from collections.abc import Callable
from dataclasses import replace

import google_crc32c
import pytest
from log_rig import PATH, overwrite

import wal
from wal.base import (
    SLOT_BYTES,
    SLOTS,
    Base,
    Step,
    base_of,
    beside_prunes,
    create_base,
    first_base,
    read_base,
    write_base,
)
from wal.segment import Header, Limits, genesis
from wal.testing import FaultDisk, MemoryDisk
from wal.tree import EMPTY_ROOT, Tree

PLACE = PATH / "BASE"
STEP = Step(3, b"a" * 32, 5, b"b" * 32, (b"c" * 32, b"d" * 32))
WAITS = Step(9, b"e" * 32, 9, b"f" * 32, ())
# 10 records before it: two bits of 10 are set.
BASE = Base(6, b"i" * 16, 4, 11, 1024, 7, b"h" * 32, b"r" * 32, (b"s" * 32, b"t" * 32), (STEP, WAITS))
# Its fields, its frontier, a step with two hashes and one with none, its checksum.
LENGTH = 138 + 2 * 32 + (82 + 2 * 32) + 82 + 4
HEADER = Header(
    b"i" * 16, 4, 2, 11, Limits(8192, 100, 200, 300), prev_end=1024, prev_records=7, chain=b"h" * 32, root=b"r" * 32
)


def reserved() -> MemoryDisk:
    disk = MemoryDisk()
    create_base(PATH, disk)
    return disk


def written_slot(base: Base) -> bytes:
    disk = reserved()
    write_base(PATH, disk, base)
    slot = base.number % 2
    image = disk.peek(PLACE)
    assert image[(1 - slot) * SLOT_BYTES :][:SLOT_BYTES] == bytes(SLOT_BYTES), "the other slot is left alone"
    return image[slot * SLOT_BYTES :][:SLOT_BYTES]


def with_checksum(covered: bytes) -> bytes:
    return covered + google_crc32c.value(covered).to_bytes(4, "little")


def test_every_field_stands_where_the_format_says() -> None:
    slot = written_slot(BASE)
    covered = b"".join([
        b"\x89WALBAS\n", struct.pack("<HHI", 2, 0, LENGTH), (6).to_bytes(8, "little"), b"i" * 16,
        struct.pack("<QQQQ", 4, 11, 1024, 7), b"h" * 32, b"r" * 32, (2).to_bytes(2, "little"),
        b"s" * 32, b"t" * 32,
        struct.pack("<QQ", 3, 5), b"a" * 32, b"b" * 32, (2).to_bytes(2, "little"), b"c" * 32, b"d" * 32,
        struct.pack("<QQ", 9, 9), b"e" * 32, b"f" * 32, (0).to_bytes(2, "little"),
    ])  # fmt: skip
    assert slot == with_checksum(covered).ljust(SLOT_BYTES, b"\0")


def test_a_base_comes_back_as_it_was_written() -> None:
    for base in (BASE, replace(BASE, number=7), replace(BASE, steps=())):
        disk = reserved()
        write_base(PATH, disk, base)
        assert read_base(PATH, disk) == base
    assert (STEP.waits, WAITS.waits) == (False, True)
    tree = BASE.tree()
    assert (tree.size, tree.nodes) == (10, [b"s" * 32, b"t" * 32])


def test_of_two_sound_slots_the_one_written_last_counts() -> None:
    for number in (6, 7):
        disk = reserved()
        write_base(PATH, disk, replace(BASE, number=number))
        write_base(PATH, disk, replace(BASE, number=number + 1, segment=5))
        found = read_base(PATH, disk)
        assert found == replace(BASE, number=number + 1, segment=5)
        slot = (number + 1) % 2 * SLOT_BYTES
        overwrite(disk, PLACE, slot, bytes(512))
        assert read_base(PATH, disk) == replace(BASE, number=number)


def test_no_file_and_nothing_in_it_are_no_base() -> None:
    assert read_base(PATH, MemoryDisk()) is None
    assert read_base(PATH, reserved()) is None


def test_a_slot_may_be_used_to_its_last_byte_and_no_further() -> None:
    room = SLOT_BYTES - 138 - 2 * 32 - 82 - 4  # beside the fields, the frontier, one step's own fields, the checksum
    assert room % 32 == 0
    full = replace(BASE, steps=(replace(STEP, path=(b"c" * 32,) * (room // 32)),))
    disk = reserved()
    write_base(PATH, disk, full)
    assert read_base(PATH, disk) == full
    more = replace(BASE, steps=(replace(STEP, path=(b"c" * 32,) * (room // 32 + 1)),))
    with pytest.raises(wal.LogError, match=r"the proofs of 1 heads past a prune: they take 65568 bytes and 65536 are"):
        write_base(PATH, disk, more)
    assert read_base(PATH, disk) == full, "nothing was written"


@pytest.mark.parametrize(("hashes", "reads"), [(119, 2), (120, 3)], ids=["of the usual length", "longer"])
def test_a_slot_takes_one_read_unless_it_is_longer_than_usual(hashes: int, reads: int) -> None:
    base = replace(BASE, steps=(replace(STEP, path=(b"c" * 32,) * hashes),))
    assert (138 + 2 * 32 + 82 + 32 * hashes + 4 > 4096) == (reads == 3)
    memory = reserved()
    write_base(PATH, memory, base)
    disk = FaultDisk(memory)
    assert read_base(PATH, disk) == base
    assert disk.calls["pread"] == reads, "one for each slot, and one more for what a slot has beyond that"


@pytest.mark.parametrize("length", [0, 3, 4, 16, 141, SLOT_BYTES + 1, SLOT_BYTES + 4, 2**32 - 1])
def test_a_slot_whose_length_cannot_be_is_none_though_a_right_checksum_stands_there(length: int) -> None:
    slot = bytearray(written_slot(BASE))
    slot[12:16] = length.to_bytes(4, "little")
    if 20 <= length <= SLOT_BYTES:
        slot[length - 4 : length] = google_crc32c.value(bytes(slot[: length - 4])).to_bytes(4, "little")
    disk = MemoryDisk()
    disk.poke(PLACE, bytes(slot) * 2)
    assert read_base(PATH, disk) is None


def test_a_slot_that_does_not_begin_as_one_is_none_though_its_checksum_is_right() -> None:
    disk = MemoryDisk()
    disk.poke(PLACE, with_checksum(b"\x89WALSEG\n" + written_slot(BASE)[8 : LENGTH - 4]).ljust(SLOT_BYTES, b"\0"))
    assert read_base(PATH, disk) is None


@pytest.mark.parametrize("length", [0, 7, 100, 137, 138, 140, LENGTH - 1])
def test_a_file_that_ends_inside_a_slot_has_none_there(length: int) -> None:
    disk = MemoryDisk()
    disk.poke(PLACE, written_slot(BASE)[:length])
    assert read_base(PATH, disk) is None


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [(8, b"\x03\x00", "format 3 with flags 0x0"), (10, b"\x01\x00", "format 2 with flags 0x1")],
    ids=["version", "flags"],
)
def test_a_base_of_another_format_is_refused_by_its_place(at: int, value: bytes, what: str) -> None:
    data = bytearray(written_slot(BASE)[: LENGTH - 4])
    data[at : at + 2] = value
    disk = reserved()
    overwrite(disk, PLACE, 0, with_checksum(bytes(data)))
    with pytest.raises(wal.UnsupportedFormat, match=f"^{PLACE}: the beginning of a pruned log in {what}"):
        read_base(PATH, disk)


@pytest.mark.parametrize(
    "change",
    [
        {"log_id": b"j" * 16}, {"segment": 5}, {"first_lsn": 12}, {"prev_end": 1536}, {"prev_records": 8},
        {"chain": b"g" * 32}, {"root": b"q" * 32},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_base_precedes_the_segment_that_agrees_with_it_in_all(change: dict[str, object]) -> None:
    assert BASE.precedes(HEADER)
    assert BASE.precedes(replace(HEADER, epoch=9))
    assert not BASE.precedes(replace(HEADER, **change))


def test_a_base_is_made_of_the_first_kept_segment_s_header() -> None:
    tree = Tree(10, [b"s" * 32, b"t" * 32])
    assert base_of(HEADER, 6, tree, (STEP, WAITS)) == BASE
    first = replace(
        HEADER, segment=1, first_lsn=1, prev_end=0, prev_records=0, chain=genesis(b"i" * 16), root=EMPTY_ROOT
    )
    assert first_base(first) == Base(0, b"i" * 16, 1, 1, 0, 0, genesis(b"i" * 16), EMPTY_ROOT, ())


def test_a_short_file_is_read_as_far_as_it_goes() -> None:
    first = Base(0, b"i" * 16, 1, 1, 0, 0, genesis(b"i" * 16), EMPTY_ROOT, ())
    disk = MemoryDisk()
    disk.poke(PLACE, written_slot(first)[:142])
    assert read_base(PATH, disk) == first, "it has no frontier and no step: its fields and its checksum are all of it"


def test_reserving_leaves_what_is_there_and_makes_what_is_short_and_says_nothing_anew() -> None:
    disk = reserved()
    assert disk.peek(PLACE) == bytes(SLOTS * SLOT_BYTES)
    write_base(PATH, disk, BASE)
    whole = disk.peek(PLACE)
    for image, then in (
        (whole, whole), (whole[:-1], whole[:-1]), (bytes(len(whole)), None), (bytes(len(whole) + 1), None),
        (bytes(len(whole) - 1), bytes(len(whole))), (b"", bytes(len(whole))),
    ):  # fmt: skip
        disk.poke(PLACE, image)
        counting = FaultDisk(disk)
        create_base(PATH, counting)
        assert counting.calls["fallocate"] == (then is not None and then != image)
        assert disk.peek(PLACE) == (image if then is None else then)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_reserved_or_written_is_synced_and_the_file_closed_whether_that_fails_or_not(fails: bool) -> None:
    steps: list[Callable[[wal.Disk], None]] = [
        lambda disk: create_base(PATH, disk), lambda disk: write_base(PATH, disk, BASE),
    ]  # fmt: skip
    memory = MemoryDisk()
    for step in steps:
        disk = FaultDisk(memory)
        if fails:
            disk.fail("fdatasync", errno.EIO)
        with pytest.raises(OSError, match="Input/output") if fails else contextlib.nullcontext():
            step(disk)
        assert (disk.calls["fdatasync"], disk.calls["open"], disk.calls["close"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("error", "looks"),
    [(wal.LogCorrupt("gone", segment=1, offset_bytes=0), 4), (FileNotFoundError(), 4), (PermissionError(), 1)],
    ids=lambda value: type(value).__name__,
)
def test_what_a_look_raises_stands_when_no_prune_came_in_between(error: Exception, looks: int) -> None:
    disk = reserved()
    taken: list[int] = []

    def look() -> None:
        taken.append(len(taken))
        if len(taken) < 4:  # three prunes, each beside a look
            write_base(PATH, disk, replace(BASE, number=len(taken)))
        raise error

    with pytest.raises(type(error)):
        beside_prunes(PATH, disk, look)
    assert len(taken) == looks
    assert beside_prunes(PATH, disk, lambda: "seen") == "seen"
