"""One frame: what goes in comes out, and nothing else passes for it."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal import UnsupportedFormat
from wal.entries import Entry, Redacted
from wal.frames import (
    CLOSE,
    DATA,
    HEAD_BYTES,
    Frame,
    decode,
    encode,
    entries,
    frame_bytes,
    leaves_of,
    link,
    pack_records,
    read_head,
    stub,
    stubs,
    with_promise,
)
from wal.frames import records as frame_records
from wal.tree import leaf_hashes

RECORDS = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=700)), min_size=1, max_size=5)


def make(records: list[tuple[int, bytes]], first_lsn: int = 7) -> tuple[Frame, bytes]:
    body, inners = pack_records(records, bytes(range(16)) * len(records))
    prev = b"p" * 32
    frame = Frame(
        DATA, frame_bytes(len(body)), len(records), b"i" * 16, 3, 4096, 2, first_lsn, first_lsn - 1, 512, prev,
        len(body), link(prev, first_lsn, leaf_hashes(first_lsn, inners)),
    )  # fmt: skip
    return frame, encode(frame, body)


def resealed(data: bytes, offset: int, value: bytes) -> bytes:
    """The frame with other header bytes, and both checksums made right again."""
    data = data[:offset] + value + data[offset + len(value) :]
    head = data[: HEAD_BYTES - 4]
    data = head + google_crc32c.value(head).to_bytes(4, "little") + data[HEAD_BYTES:]
    return data[:-4] + google_crc32c.value(data[:-4]).to_bytes(4, "little")


def parse(data: bytes) -> Frame | None:
    head = read_head(data, 0)
    return None if head is None else decode(data, 0, head)


@given(RECORDS)
def test_a_frame_comes_back_as_it_was_built(records: list[tuple[int, bytes]]) -> None:
    frame, data = make(records)
    assert len(data) == frame.length
    assert len(data) % 512 == 0
    assert parse(data) == frame
    assert entries(data, 0, frame) == [Entry(lsn, *record) for lsn, record in enumerate(records, 7)]
    assert leaves_of(data, 0, frame) is not None


@given(RECORDS, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_frame_with_another_promise_is_the_frame_that_was_built_with_it(
    records: list[tuple[int, bytes]], durable_lsn: int, durable_offset: int
) -> None:
    frame, data = make(records)
    promised = parse(with_promise(data, durable_lsn, durable_offset))
    assert promised == frame._replace(durable_lsn=durable_lsn, durable_offset=durable_offset)
    assert with_promise(data, frame.durable_lsn, frame.durable_offset) == data


def test_no_frame_survives_the_flip_of_any_of_its_bits() -> None:
    _, data = make([(1, b"abc"), (2, b"")])
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parse(bytes(damaged)) is None


def test_zeros_are_no_frame() -> None:
    assert read_head(bytes(512), 0) is None
    assert read_head(b"", 0) is None


def test_bytes_under_right_checksums_that_do_not_begin_as_a_frame_are_none() -> None:
    _, data = make([(1, b"abc")])
    assert parse(resealed(data, 0, b"\xf4WAL")) is None


def test_a_header_is_read_as_soon_as_all_of_it_is_there() -> None:
    _, data = make([(1, b"abc")])
    assert read_head(data[:HEAD_BYTES], 0) == read_head(data, 0)
    assert read_head(data[: HEAD_BYTES - 1], 0) is None


def test_a_frame_is_read_wherever_it_stands_in_a_buffer() -> None:
    frame, data = make([(1, b"abc"), (2, b"")])
    buffer = bytes(512) + data + bytes(512)
    head = read_head(buffer, 512)
    assert head is not None
    assert decode(buffer, 512, head) == frame
    assert entries(buffer, 512, frame) == [Entry(7, 1, b"abc"), Entry(8, 2, b"")]
    assert leaves_of(buffer, 512, frame) == leaves_of(data, 0, frame)


@pytest.mark.parametrize("length", [0, 511, 513, 1024, 1 << 31])
def test_a_frame_of_another_length_than_its_bytes_is_none(length: int) -> None:
    frame, data = make([(1, b"abc")])
    assert frame.length == 512
    assert parse(resealed(data, 8, length.to_bytes(4, "little"))) is None


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (4, b"\x09", "type 9 of format 2 with flags 0x0"),
        (4, b"\x00", "type 0 of format 2 with flags 0x0"),
        (5, b"\x01", "type 1 of format 2 with flags 0x1"),
        (6, b"\x01\x00", "type 1 of format 1 with flags 0x0"),
        (6, b"\x03\x00", "type 1 of format 3 with flags 0x0"),
    ],
    ids=["type", "no type", "flags", "older version", "newer version"],
)
def test_an_unknown_kind_of_frame_is_refused_by_its_place_and_not_guessed(offset: int, value: bytes, what: str) -> None:
    _, data = make([(1, b"abc")])
    with pytest.raises(UnsupportedFormat, match=f"segment 3, offset 4096: frame {what}"):
        parse(resealed(data, offset, value))


def test_unknown_flags_of_a_record_are_refused() -> None:
    frame, data = make([(1, b"abc")])
    with pytest.raises(UnsupportedFormat, match="flags 0x2"):
        entries(resealed(data, HEAD_BYTES + 2, b"\x02"), 0, frame)


@given(RECORDS, st.data())
def test_the_chain_changes_with_every_fact_it_commits_to(records: list[tuple[int, bytes]], data: st.DataObject) -> None:
    frame, _ = make(records)
    other = list(records)
    place = data.draw(st.integers(0, len(records) - 1))
    kind, payload = records[place]
    other[place] = data.draw(st.sampled_from([(kind ^ 1, payload), (kind, payload + b"\0"), (kind, b"x" + payload)]))
    assert make(other)[0].chain != frame.chain
    assert make(records, first_lsn=8)[0].chain != frame.chain
    assert make([*records, (0, b"")])[0].chain != frame.chain


def test_a_frame_whose_records_do_not_hash_to_its_chain_is_found_out() -> None:
    _, data = make([(1, b"abc")])
    changed = resealed(data, HEAD_BYTES + 24, b"abd")
    frame = parse(changed)
    assert frame is not None
    assert leaves_of(changed, 0, frame) is None


def test_records_that_do_not_fill_their_body_are_found_out() -> None:
    _, data = make([(1, b"abc")])
    for length in (b"\x02", b"\x04", b"\xff"):
        changed = resealed(data, HEAD_BYTES + 4, length)
        frame = parse(changed)
        assert frame is not None
        assert leaves_of(changed, 0, frame) is None


def test_a_frame_without_records_counts_none_and_repeats_the_chain_before_it() -> None:
    chain = b"p" * 32
    close = Frame(CLOSE, 512, 0, b"i" * 16, 3, 4096, 2, 7, 6, 4096, chain, 0, chain)
    for frame, leaves in ((close, []), (close._replace(records=1), None), (close._replace(chain=b"q" * 32), None)):
        data = encode(frame, b"")
        assert parse(data) == frame, "the checksums are right"
        assert leaves_of(data, 0, frame) == leaves


def redacted(redact: set[int]) -> tuple[Frame, bytes, list[bytes]]:
    """A frame of three records of which these were redacted, and the leaves that it had before."""
    records = [(1, b"abc"), (2, b""), (3, b"x" * 700)]
    salts = bytes(range(48))
    _, inners = pack_records(records, salts)
    parts = []
    for number, record in enumerate(records):
        body, _ = pack_records([record], salts[16 * number : 16 * number + 16])
        parts.append(stub(*inners[number]) if number in redact else body)
    body, leaves = b"".join(parts), leaf_hashes(7, inners)
    frame = Frame(
        DATA, frame_bytes(len(body)), 3, b"i" * 16, 3, 4096, 2, 7, 6, 512, b"p" * 32, len(body),
        link(b"p" * 32, 7, leaves),
    )  # fmt: skip
    return frame, encode(frame, body), leaves


def test_a_stub_is_its_record_s_kind_a_flag_no_salt_and_the_digest_that_the_tree_knows() -> None:
    assert stub(258, b"d" * 32) == b"\x02\x01\x01\0\x20\0\0\0" + bytes(16) + b"d" * 32


@pytest.mark.parametrize("redact", [set(), {0}, {1}, {2}, {0, 2}, {0, 1, 2}], ids=str)
def test_a_frame_with_stubs_has_the_leaves_and_the_numbers_that_it_had(redact: set[int]) -> None:
    frame, data, leaves = redacted(redact)
    before, _, _ = redacted(set())
    buffer = bytes(512) + data
    assert (frame.chain, leaves_of(buffer, 512, frame)) == (before.chain, leaves)
    assert stubs(buffer, 512, frame) == len(redact)
    whole = [Entry(7, 1, b"abc"), Entry(8, 2, b""), Entry(9, 3, b"x" * 700)]
    found = entries(buffer, 512, frame)
    assert found == [Redacted(one.lsn, one.kind, b"") if n in redact else one for n, one in enumerate(whole)]
    assert [type(one) is Redacted for one in found] == [n in redact for n in range(3)]


def test_the_records_of_a_frame_are_given_with_their_flags_and_salts_and_a_stub_with_its_digest() -> None:
    frame, data, _ = redacted({1})
    _, inners = pack_records([(1, b"abc"), (2, b""), (3, b"x" * 700)], bytes(range(48)))
    assert list(frame_records(data, 0, frame)) == [
        (1, 0, bytes(range(16)), b"abc"),
        (2, 1, bytes(16), inners[1][1]),
        (3, 0, bytes(range(32, 48)), b"x" * 700),
    ]


def test_unknown_flags_beside_a_stub_s_are_refused_by_the_record_s_number() -> None:
    frame, data, _ = redacted({1})
    changed = resealed(data, HEAD_BYTES + 24 + 3 + 2, b"\x05")
    for read in (entries, stubs, lambda *where: list(frame_records(*where))):
        with pytest.raises(UnsupportedFormat, match=r"^segment 3, LSN 8: a record with flags 0x5 is not known"):
            read(changed, 0, frame)


def test_a_stub_whose_digest_is_of_another_length_is_found_out() -> None:
    frame, data, _ = redacted({2})
    at = HEAD_BYTES + 24 + 3 + 24 + 4
    assert data[at : at + 4] == (32).to_bytes(4, "little")
    for length in (31, 33, 0):
        assert leaves_of(resealed(data, at, length.to_bytes(4, "little")), 0, frame) is None
