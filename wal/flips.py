"""Which flipped bit explains a wrong checksum: a hint for whoever has to mend a log by hand.

Rule: a hint decides nothing, and nothing is mended here. What damaged bytes mean is for `wal.recovery`.
"""

from functools import cache
from typing import NamedTuple

import google_crc32c

_CRC_BYTES = 4
_POLYNOMIAL = 0x82F63B78  # of CRC32C; bit 31 has the lowest power of x, as everywhere here (RFC 3720, appendix B.4)
_ONE = 1 << 31
_STEP_BYTES = 64  # so many are passed at a time: a longest frame takes a quarter of a second
_STEP_BITS = 8 * _STEP_BYTES


class Flip(NamedTuple):
    """A bit that is not as it was written: bit `bit` (0 is the least significant) of the byte at `offset_bytes`."""

    offset_bytes: int
    bit: int


def flipped_bit(data: bytes) -> Flip | None:
    """Return the one bit whose flip makes `data` sound, which ends in its own CRC32C; None when no single one does.

    A flipped bit that n bits follow changes the checksum by x**n, whatever the data is. So the difference is divided
    by x until it is 1.
    """
    difference = google_crc32c.value(data[:-_CRC_BYTES]) ^ int.from_bytes(data[-_CRC_BYTES:], "little")
    exponents = _exponents()
    first, second, third, fourth = _quotients()
    for end in range(len(data), 0, -_STEP_BYTES):
        following = exponents.get(difference)
        if following is not None:
            offset = end - 1 - following // 8
            return Flip(offset, 7 - following % 8) if offset >= 0 else None
        difference = (
            first[difference & 255] ^ second[difference >> 8 & 255] ^ third[difference >> 16 & 255]
            ^ fourth[difference >> 24]
        )  # fmt: skip
    return None


@cache
def _exponents() -> dict[int, int]:
    """Return n for each x**n that one step can tell."""
    found, power = {}, _ONE
    for exponent in range(_STEP_BITS):
        found[power] = exponent
        power = power >> 1 ^ (_POLYNOMIAL if power & 1 else 0)
    return found


@cache
def _quotients() -> list[list[int]]:
    """Return, for each byte of a polynomial, that byte's share of the quotient by x**_STEP_BITS: division is linear."""
    of_bit = [_quotient(1 << bit) for bit in range(32)]
    tables = []
    for low_bit in range(0, 32, 8):
        shares = [0]
        for quotient in of_bit[low_bit : low_bit + 8]:
            shares += [share ^ quotient for share in shares]
        tables.append(shares)
    return tables


def _quotient(polynomial: int) -> int:
    for _ in range(_STEP_BITS):
        polynomial = (polynomial ^ _POLYNOMIAL) << 1 | 1 if polynomial & _ONE else polynomial << 1
    return polynomial
