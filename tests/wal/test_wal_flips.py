"""The hint that names a flipped bit: exact, or none."""

import random
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from log_rig import PATH, open_log, overwrite, segment, written
from test_wal_identity import CURSOR, data_frame

import wal
from wal.flips import Flip, flipped_bit
from wal.frames import HEARTBEAT, encode
from wal.scan import Window, flip_at
from wal.tail import control_frame
from wal.testing import MemoryDisk


def sealed(data: bytes) -> bytes:
    """Data that ends in its own checksum."""
    return data + google_crc32c.value(data).to_bytes(4, "little")


def with_flips(data: bytes, *flips: Flip) -> bytes:
    changed = bytearray(data)
    for flip in flips:
        changed[flip.offset_bytes] ^= 1 << flip.bit
    return bytes(changed)


@pytest.mark.parametrize("length", [0, 1, 59, 60, 61, 124, 508, 1000])
def test_every_flipped_bit_is_named_whatever_the_data(length: int) -> None:
    for data in (bytes(length), random.Random(length).randbytes(length)):
        whole = sealed(data)
        for bit in range(8 * len(whole)):
            flip = Flip(*divmod(bit, 8))
            assert flipped_bit(with_flips(whole, flip)) == flip


def test_a_flipped_bit_is_found_in_the_longest_frame() -> None:
    whole = sealed(bytes(32 << 20))
    for flip in (Flip(0, 7), Flip(1, 0), Flip(12345678, 3), Flip(len(whole) - 1, 0)):
        assert flipped_bit(with_flips(whole, flip)) == flip


def test_sound_data_and_more_than_one_flip_have_no_such_bit() -> None:
    whole = sealed(random.Random(0).randbytes(508))
    assert flipped_bit(whole) is None
    draw = random.Random(1)
    for _ in range(300):
        flips = {Flip(draw.randrange(512), draw.randrange(8)) for _ in range(draw.randrange(2, 9))}
        assert len(flips) == 1 or flipped_bit(with_flips(whole, *flips)) is None


def test_a_bit_before_the_beginning_explains_nothing() -> None:
    """The difference that a flip further from the end would make, further than there is data."""
    longer = sealed(bytes(8))
    flipped = with_flips(longer, Flip(0, 0))
    difference = google_crc32c.value(flipped[:-4]) ^ int.from_bytes(flipped[-4:], "little")
    for length in range(8):
        short = bytes(length)
        crc = google_crc32c.value(short) ^ difference
        assert flipped_bit(short + crc.to_bytes(4, "little")) is None


# In a frame: what the flip would make of it must be the frame that belongs there.


def hint(image: bytes, *, offset: int = 4096, length: int = 16384) -> Flip | None:
    """What is found at the cursor of a segment that has these bytes there."""
    disk = MemoryDisk({PATH: bytes(offset) + image + bytes(length - offset - len(image))})
    return flip_at(Window(disk, disk.open(PATH)), CURSOR)


def test_every_flip_in_a_frame_is_named_by_its_place_in_the_file() -> None:
    _, image = data_frame()
    for bit in range(0, 8 * len(image), 7):
        offset, within = divmod(bit, 8)
        assert hint(with_flips(image, Flip(offset, within))) == Flip(4096 + offset, within)


def test_a_flip_is_named_in_a_frame_that_is_longer_than_what_is_read_at_once() -> None:
    _, image = data_frame(payload=bytes(1_500_000))
    for flip in (Flip(10, 1), Flip(200, 2), Flip(1_400_000, 3)):
        assert hint(with_flips(image, flip), length=2 << 20) == Flip(4096 + flip.offset_bytes, flip.bit)


def test_two_flips_are_not_taken_for_one() -> None:
    _, image = data_frame()
    for other in (5, 118, 119, 300, 511):
        assert hint(with_flips(image, Flip(10, 0), Flip(other, 1))) is None
        assert hint(with_flips(image, Flip(200, 0), Flip(other, 1))) is None


def test_a_sound_frame_has_no_flip() -> None:
    assert hint(data_frame()[1]) is None


def test_a_frame_that_would_belong_elsewhere_is_no_explanation() -> None:
    for cursor in (replace(CURSOR, segment=9), replace(CURSOR, lsn=99), replace(CURSOR, offset=8192)):
        _, image = data_frame(cursor)
        assert hint(with_flips(image, Flip(200, 2))) is None
        assert hint(with_flips(image, Flip(20, 2))) is None


def test_a_frame_that_would_reach_past_the_file_is_no_explanation() -> None:
    _, image = data_frame()
    assert hint(with_flips(image, Flip(10, 0))[:512], length=4608) == Flip(4106, 0)
    frame = control_frame(replace(CURSOR), HEARTBEAT, 4096)._replace(length=1024)
    assert hint(with_flips(encode(frame, b""), Flip(10, 0))[:512], length=4608) is None


def test_a_frame_whose_chain_does_not_hold_is_no_explanation() -> None:
    frame, _ = data_frame()
    image = encode(frame._replace(chain=bytes(32)), data_frame()[1][120 : 120 + frame.body_bytes])
    assert hint(with_flips(image, Flip(200, 2))) is None


def test_a_frame_of_an_unknown_type_is_no_explanation() -> None:
    image = encode(control_frame(replace(CURSOR), HEARTBEAT, 4096)._replace(type=77), b"")
    assert hint(with_flips(image, Flip(200, 2))) is None


# In what is raised.


def test_the_error_names_the_bit_and_the_records_that_the_damage_takes() -> None:
    disk = written([[(1, b"a")], [(2, b"b"), (3, b"c")], [(4, b"d")]])
    place, offset = segment(), 1536 + 200
    overwrite(disk, place, offset, bytes([disk.peek(place)[offset] ^ 0x20]))
    with pytest.raises(wal.LogCorrupt, match=r"segment 1, offset 1536, LSN 2\.\.3: a frame") as caught:
        open_log(disk)
    assert (caught.value.lsn, caught.value.last_lsn, caught.value.flipped) == (2, 3, wal.Flip(offset, 5))
    assert f"(bit 5 of the byte at offset {offset} is flipped)" in str(caught.value)
    assert f"(bit 5 of the byte at offset {offset} is flipped)" in str(wal.verify(PATH, disk=disk).problem)


def test_damage_that_no_flip_explains_has_no_hint() -> None:
    disk = written([[(1, b"a")], [(2, b"b")]])
    overwrite(disk, segment(), 1024 + 200, b"\xff\xff")
    with pytest.raises(wal.LogCorrupt, match=r"LSN 1: a frame that was acknowledged is damaged\. Nothing") as caught:
        open_log(disk)
    assert caught.value.flipped is None


@pytest.mark.parametrize(
    ("lsns", "says"),
    [((None, None), ""), ((5, None), ", from LSN 5"), ((5, 4), ", before LSN 5"), ((5, 5), ", LSN 5"),
     ((5, 9), ", LSN 5..9")],
)  # fmt: skip
def test_the_error_says_which_records_are_lost_as_far_as_that_is_known(
    lsns: tuple[int | None, int | None], says: str
) -> None:
    error = wal.LogCorrupt("why", segment=1, offset_bytes=2, lsn=lsns[0], last_lsn=lsns[1])
    assert str(error).startswith(f"segment 1, offset 2{says}: why. Nothing was changed")


def test_a_short_file_names_the_first_record_that_it_lacks(tmp_path: Path) -> None:
    disk = written([[(1, b"a")], [(2, b"b")], [(3, b"c")]])
    disk.poke(segment(), disk.peek(segment())[: 1536 + 100])
    with pytest.raises(wal.LogCorrupt, match="offset 1636, from LSN 2: the file has 1636 bytes"):
        open_log(disk)
