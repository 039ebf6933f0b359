"""Segments: a header byte by byte, the names in a directory, and that each segment follows from the one before it."""

import struct
from collections.abc import Callable
from dataclasses import replace

import google_crc32c
import pytest
from log_rig import PATH, overwrite, segments, written

import wal
from wal.base import base_of, create_base, write_base
from wal.frames import CLOSE, SEAL, Frame, encode
from wal.scan import Window, frame_at
from wal.segment import (
    Header,
    Limits,
    decode_header,
    encode_header,
    file_name,
    first_lsn_of,
    genesis,
    number_of,
    parse_name,
)
from wal.shelf import (
    Segment,
    check_successor,
    finished_tree,
    first_tree,
    read_segment,
    read_segments,
    seal_span,
    sealed_tree,
    segment_paths,
    successor,
)
from wal.testing import FaultDisk, MemoryDisk
from wal.tree import EMPTY_ROOT, Tree, bag

HEADER = Header(
    b"i" * 16, 4, 2, 11, Limits(8192, 100, 200, 300), prev_end=1024, prev_records=7, chain=b"h" * 32, root=b"r" * 32
)
PLACE = PATH / file_name(4, 11)

# A header.


def with_checksum(covered: bytes) -> bytes:
    return covered + google_crc32c.value(covered).to_bytes(4, "little")


@pytest.mark.parametrize(("sealed_end", "flags"), [(0, 0), (5120, 1)], ids=["as written", "redacted"])
def test_every_field_of_a_header_stands_where_the_format_says(sealed_end: int, flags: int) -> None:
    header = replace(HEADER, sealed_end=sealed_end)
    fields = b"".join([
        b"\x89WALSEG\n", struct.pack("<HHI", 2, flags, 512), b"i" * 16,
        struct.pack("<QQQ", 4, 2, 11), struct.pack("<QQQQ", 8192, 100, 200, 300), struct.pack("<QQQ", 3, 10, 1024),
        b"h" * 32, b"r" * 32, struct.pack("<QQ", 7, sealed_end),
    ])  # fmt: skip
    sector = with_checksum(fields.ljust(508, b"\0"))
    assert len(fields) == 192
    assert encode_header(header) == sector
    assert decode_header(sector, 4, PLACE) == header
    assert header.redacted is (sealed_end > 0)
    assert header.known_end(4096) == (sealed_end or 4096)


def test_the_chain_before_the_first_record_is_a_hash_of_the_log_s_id() -> None:
    # SHA-256 of 04 and sixteen times "i".
    assert genesis(b"i" * 16).hex() == "a4d472be416b47e4914df6c23ce9b9c0fe00a5eddec62403a3060b63bb24af93"


@pytest.mark.parametrize("length", [0, 100, 507, 508, 511])
def test_a_file_that_ends_inside_its_header_is_named_with_its_length(length: int) -> None:
    with pytest.raises(wal.LogCorrupt) as caught:
        decode_header(encode_header(HEADER)[:length], 4, PLACE)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (4, length, None)
    assert caught.value.problem == "the file ends inside its header"


def changed(at: int, value: bytes) -> bytes:
    sector = encode_header(HEADER)
    return with_checksum(sector[:at] + value + sector[at + len(value) : 508])


@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (0, b"\x88", "segment format 2 with flags 0x0"),
        (8, b"\x03", "segment format 3 with flags 0x0"),
        (8, b"\x01", "segment format 1 with flags 0x0"),
        (10, b"\x02", "segment format 2 with flags 0x2"),
        (13, b"\x04", "segment format 2 with flags 0x0"),
    ],
    ids=["magic", "newer version", "older version", "flags", "length"],
)
def test_a_sound_header_of_another_format_is_refused_by_its_file(at: int, value: bytes, what: str) -> None:
    with pytest.raises(wal.UnsupportedFormat, match=f"^{PLACE}: {what} is not known here"):
        decode_header(changed(at, value), 4, PLACE)


@pytest.mark.parametrize(
    ("at", "value"),
    [(88, b"\x04"), (96, b"\x0b"), (10, b"\x01"), (184, b"\x01")],
    ids=["predecessor", "predecessor's LSN", "redacted and no end", "an end and not redacted"],
)
def test_a_header_that_contradicts_itself_is_named(at: int, value: bytes) -> None:
    with pytest.raises(wal.LogCorrupt) as caught:
        decode_header(changed(at, value), 4, PLACE)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (4, 0, None)
    assert caught.value.problem == "the segment header contradicts itself"


def test_a_header_whose_checksum_is_wrong_is_named_by_the_segment_that_its_file_claims_to_be() -> None:
    with pytest.raises(wal.LogCorrupt) as caught:
        decode_header(encode_header(HEADER)[:500] + bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), 9, PLACE)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.flipped) == (9, 0, None)
    assert caught.value.problem == "the segment header's checksum is wrong"


def test_a_flipped_bit_of_a_header_is_named() -> None:
    for at, bit in ((0, 7), (60, 3), (400, 0), (511, 5)):
        sector = bytearray(encode_header(HEADER))
        sector[at] ^= 1 << bit
        with pytest.raises(wal.LogCorrupt) as caught:
            decode_header(bytes(sector), 4, PLACE)
        assert caught.value.flipped == wal.Flip(at, bit)


# Names.


def test_a_segment_s_name_states_its_number_and_its_first_lsn() -> None:
    assert file_name(2, 57) == "00000002-00000000000000000057.wal"
    for number, first_lsn in ((2, 57), (99_999_999, 10**20 - 1)):
        name = file_name(number, first_lsn)
        assert parse_name(name) == (number, first_lsn)
        assert (number_of(PATH / name), first_lsn_of(PATH / name)) == (number, first_lsn)
    for name in ("BASE", "2-57.wal", "x" + file_name(2, 57), file_name(2, 57) + "x", file_name(2, 57)[:-4] + "-wal"):
        assert parse_name(name) is None


def directory(*names: str) -> MemoryDisk:
    disk = MemoryDisk()
    for name in names:
        disk.poke(PATH / name, b"")
    return disk


ONE, TWO, THREE = file_name(1, 1), file_name(2, 5), file_name(3, 9)


def test_segments_are_listed_in_order_and_what_is_no_segment_is_left_out() -> None:
    assert segment_paths(PATH, directory(THREE, "LOCK", ONE, "spare.tmp", TWO)) == [
        PATH / ONE,
        PATH / TWO,
        PATH / THREE,
    ]
    assert segment_paths(PATH, directory("LOCK", "BASE")) == []
    assert segment_paths(PATH, directory()) == []


@pytest.mark.parametrize(
    ("names", "number", "problem"),
    [
        ((TWO, THREE), 1, f"the segment is missing: the next file is {TWO}"),
        ((ONE, THREE), 2, f"the segment is missing: the next file is {THREE}"),
        ((ONE, TWO, file_name(2, 6)), 2, f"two files claim to be this segment; one is {file_name(2, 6)}"),
        ((ONE, "backup.wal"), 0, "backup.wal is not a segment's name"),
    ],
    ids=["the first", "one between", "doubled", "misnamed"],
)
def test_a_segment_that_is_missing_doubled_or_misnamed_is_named(
    names: tuple[str, ...], number: int, problem: str
) -> None:
    with pytest.raises(wal.LogCorrupt) as caught:
        segment_paths(PATH, directory(*names))
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (number, 0, None)
    assert caught.value.problem == problem


def beginning_at(disk: MemoryDisk, number: int) -> MemoryDisk:
    """The directory with a BASE that says that the log begins with this segment."""
    create_base(PATH, disk)
    write_base(PATH, disk, base_of(replace(HEADER, segment=number), 0, Tree(10, [b"s" * 32, b"t" * 32]), ()))
    return disk


def test_what_a_prune_gave_up_is_left_out_while_it_is_there_and_when_it_comes_back() -> None:
    assert segment_paths(PATH, beginning_at(directory(ONE, TWO, THREE), 3)) == [PATH / THREE]
    assert segment_paths(PATH, beginning_at(directory(TWO, THREE), 3)) == [PATH / THREE]
    assert segment_paths(PATH, beginning_at(directory(ONE, THREE), 3)) == [PATH / THREE]
    assert segment_paths(PATH, beginning_at(directory(TWO, THREE), 2)) == [PATH / TWO, PATH / THREE]


@pytest.mark.parametrize(
    ("names", "first", "missing", "problem"),
    [
        ((THREE,), 2, 2, f"the segment is missing: the next file is {THREE}"),
        ((), 2, 2, "the segment is missing, and so is all that followed"),
        ((TWO,), 3, 3, "the segment is missing, and so is all that followed"),
    ],
    ids=["the first kept", "all", "all kept"],
)
def test_a_segment_that_no_prune_gave_up_is_missed(
    names: tuple[str, ...], first: int, missing: int, problem: str
) -> None:
    with pytest.raises(wal.LogCorrupt) as caught:
        segment_paths(PATH, beginning_at(directory(*names), first))
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.problem) == (missing, 0, problem)


# Neighbours.

BATCHES = [[(n, bytes([n]) * 1500)] for n in range(12)]


def test_the_segment_after_another_is_found_by_its_number() -> None:
    disk = written(BATCHES)
    found = read_segments(PATH, disk)
    assert [one.path for one in found] == segments(disk)
    assert len(found) > 2
    for number, one in enumerate(found[1:], 1):
        assert successor(PATH, disk, number) == one
    assert successor(PATH, disk, len(found)) is None


def test_a_file_under_another_segment_s_name_is_named_with_what_it_holds() -> None:
    disk = MemoryDisk()
    disk.poke(PATH / file_name(5, 11), encode_header(HEADER).ljust(8192, b"\0"))
    disk.poke(PATH / file_name(4, 12), encode_header(HEADER).ljust(8192, b"\0"))
    for number, lsn in ((5, 11), (4, 12)):
        name = file_name(number, lsn)
        with pytest.raises(wal.LogCorrupt) as caught:
            read_segment(PATH / name, disk)
        assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (number, 0, 11)
        assert caught.value.problem == f"{name} holds segment 4: a copy or a renamed file"


def test_a_damaged_header_is_named_by_the_file_that_it_stands_in() -> None:
    disk = MemoryDisk()
    disk.poke(PLACE, bytes(8192))
    with pytest.raises(wal.LogCorrupt) as caught:
        read_segment(PLACE, disk)
    assert (caught.value.segment, caught.value.offset_bytes) == (4, 0)
    disk.poke(PLACE, changed(8, b"\x03").ljust(8192, b"\0"))
    with pytest.raises(wal.UnsupportedFormat, match=f"^{PLACE}: segment format 3"):
        read_segment(PLACE, disk)


AFTER = replace(HEADER, segment=5, first_lsn=14, prev_end=2048, prev_records=3)


def test_a_segment_follows_wherever_a_seal_can_end_and_in_the_same_epoch_or_a_later_one() -> None:
    for after in (
        AFTER, replace(AFTER, prev_end=1024), replace(AFTER, prev_end=8192), replace(AFTER, epoch=3),
    ):  # fmt: skip
        check_successor(HEADER, after)
    check_successor(replace(HEADER, sealed_end=4096), replace(AFTER, prev_end=4096))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"log_id": b"j" * 16}, "the segment belongs to another log"),
        ({"prev_end": 1023}, "the segment does not follow from the one before it"),
        ({"prev_end": 8193}, "the segment does not follow from the one before it"),
        ({"prev_records": 4}, "the segment does not follow from the one before it"),
        ({"first_lsn": 15}, "the segment does not follow from the one before it"),
        ({"epoch": 1}, "the segment does not follow from the one before it"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_segment_that_does_not_follow_is_named_at_its_header(change: dict[str, object], problem: str) -> None:
    after = replace(AFTER, **change)
    with pytest.raises(wal.LogCorrupt) as caught:
        check_successor(HEADER, after)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (5, 0, after.first_lsn)
    assert caught.value.problem == problem


def test_what_follows_a_redacted_segment_knows_where_its_seal_ended_before() -> None:
    for end in (4095, 4097, 8192):
        with pytest.raises(wal.LogCorrupt, match="does not follow from the one before it"):
            check_successor(replace(HEADER, sealed_end=4096), replace(AFTER, prev_end=end))


def test_a_log_begins_with_nothing_or_where_its_base_says() -> None:
    first = replace(
        HEADER, segment=1, first_lsn=1, prev_end=0, prev_records=0, chain=genesis(HEADER.log_id), root=EMPTY_ROOT
    )
    assert first_tree(PATH, MemoryDisk(), first).size == 0
    for change in ({"first_lsn": 2}, {"prev_end": 1024}, {"chain": b"c" * 32}, {"root": b"r" * 32}):
        with pytest.raises(wal.LogCorrupt) as caught:
            first_tree(PATH, MemoryDisk(), replace(first, **change))
        assert (caught.value.segment, caught.value.offset_bytes) == (1, 0)
        assert caught.value.problem == "the first segment does not begin a log"
    tree = first_tree(PATH, beginning_at(MemoryDisk(), 4), HEADER)
    assert (tree.size, tree.nodes) == (10, [b"s" * 32, b"t" * 32])
    for disk, header in (
        (MemoryDisk(), HEADER), (beginning_at(MemoryDisk(), 5), HEADER),
        (beginning_at(MemoryDisk(), 4), replace(HEADER, root=b"q" * 32)),
    ):  # fmt: skip
        with pytest.raises(wal.LogCorrupt) as caught:
            first_tree(PATH, disk, header)
        assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (4, 0, 11)
        assert caught.value.problem == "the first segment is not where the pruned log begins"


# Seals.


def sealed() -> tuple[MemoryDisk, Segment, Segment]:
    """A log, its second segment and its third."""
    disk = written(BATCHES)
    _, before, after = read_segments(PATH, disk)[:3]
    return disk, before, after


def test_a_seal_gives_the_tree_over_all_that_is_before_its_end() -> None:
    disk, before, after = sealed()
    tree = sealed_tree(disk, before, after.header)
    assert tree is not None
    assert (tree.size, tree.root()) == (after.header.first_lsn - 1, after.header.root)
    assert seal_span(before.header, after.header) == (after.header.prev_end - 512, after.header.prev_end)
    redacted = replace(before.header, sealed_end=after.header.prev_end)
    assert seal_span(redacted, after.header) == (8192 - 512, 8192), "a redacted segment has no room behind its seal"


@pytest.mark.parametrize(
    "change",
    [
        {"first_lsn": 7}, {"prev_end": 1024}, {"prev_end": 512}, {"prev_end": 0}, {"chain": b"c" * 32},
        {"root": b"r" * 32},
    ],
    ids=lambda change: "-".join(map(str, next(iter(change.items()))))[:14],
)  # fmt: skip
def test_a_seal_that_the_next_segment_does_not_describe_is_none(change: dict[str, object]) -> None:
    memory, before, after = sealed()
    disk = FaultDisk(memory)
    assert sealed_tree(disk, before, replace(after.header, **change)) is None
    if change.get("prev_end", 1024) != 1024:
        # it may have been redacted meanwhile; but no frame stands before a header's end, least of all before the file
        assert disk.calls["pread"] == 1, "the header alone is read again"


def test_a_seal_may_stand_right_behind_the_header() -> None:
    nodes = [b"s" * 32, b"t" * 32]
    seal = Frame(SEAL, 512, 0, b"i" * 16, 4, 512, 2, 11, 10, 512, b"h" * 32, 64, b"h" * 32)
    disk = MemoryDisk()
    disk.poke(PLACE, (encode_header(HEADER) + encode(seal, b"".join(nodes))).ljust(8192, b"\0"))
    after = replace(HEADER, segment=5, prev_end=1024, prev_records=0, root=bag(nodes))
    tree = sealed_tree(disk, Segment(HEADER, PLACE), after)
    assert tree is not None
    assert tree.nodes == nodes


@pytest.mark.parametrize(
    "change",
    [
        lambda seal: seal._replace(type=CLOSE),
        lambda seal: seal._replace(log_id=b"j" * 16),
        lambda seal: seal._replace(segment=seal.segment + 1),
        lambda seal: seal._replace(offset=seal.offset + 512),
        lambda seal: seal._replace(first_lsn=seal.first_lsn + 1),
        lambda seal: seal._replace(prev=b"d" * 32),
    ],
    ids=["type", "log", "segment", "offset", "LSN", "chain"],
)
def test_a_sound_frame_in_the_seal_s_place_that_is_not_the_seal_is_none(change: Callable[[Frame], Frame]) -> None:
    disk, before, after = sealed()
    start, end = seal_span(before.header, after.header)
    with wal.disk.opened(disk, before.path) as fd:
        seal = frame_at(Window(disk, fd), start)
    assert seal is not None
    body = disk.peek(before.path)[start + 120 : start + 120 + seal.body_bytes]
    assert encode(seal, body) == disk.peek(before.path)[start:end]
    overwrite(disk, before.path, start, encode(change(seal), body))
    assert sealed_tree(disk, before, after.header) is None


@pytest.mark.parametrize("body", ["another tree", "a hash too few", "a hash too many"])
def test_a_seal_whose_frontier_is_not_the_tree_s_is_none(body: str) -> None:
    disk, before, after = sealed()
    start, _ = seal_span(before.header, after.header)
    with wal.disk.opened(disk, before.path) as fd:
        seal = frame_at(Window(disk, fd), start)
    assert seal is not None
    hashes = disk.peek(before.path)[start + 120 : start + 120 + seal.body_bytes]
    forged = {"another tree": bytes(len(hashes)), "a hash too few": hashes[:-32], "a hash too many": hashes + bytes(32)}
    overwrite(disk, before.path, start, encode(seal._replace(type=SEAL), forged[body]))
    assert sealed_tree(disk, before, after.header) is None


def test_a_finished_segment_lacks_its_seal_only_where_it_may() -> None:
    disk, before, after = sealed()
    tree = finished_tree(disk, before, after, may_lack=False)
    assert tree is not None
    assert tree.root() == after.header.root
    offset, end = seal_span(before.header, after.header)
    overwrite(disk, before.path, offset, bytes(end - offset))
    assert finished_tree(disk, before, after, may_lack=True) is None
    with pytest.raises(wal.LogCorrupt) as caught:
        finished_tree(disk, before, after, may_lack=False)
    assert (caught.value.segment, caught.value.offset_bytes) == (2, offset)
    first_lsn = after.header.first_lsn
    assert (caught.value.lsn, caught.value.last_lsn) == (first_lsn, first_lsn - 1), "it takes no record along"
    assert caught.value.problem == "the seal of a finished segment is damaged"
