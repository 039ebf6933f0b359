"""The sizes of input Tamiyo accepts, checked before anything is built from it."""

from dataclasses import dataclass

__all__ = ["ALLOWED_PARAMETERS_MAX", "BLUEPRINT_CANDIDATES_MAX", "TEXT_CHARS_MAX", "UNLIMITED", "Limits"]

BLUEPRINT_CANDIDATES_MAX = 32
"""Blueprint nodes of one graph: the host's own and the best of the catalogue."""
ALLOWED_PARAMETERS_MAX = 256
"""Parameters of one blueprint that its descriptor bounds, the first by name: many times those of any seed there is."""
TEXT_CHARS_MAX = 512
"""Characters of an id or a text that the state keeps of a blueprint."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one packet. The defaults keep the worst packet's graph under 10,000 seed edges."""

    packet_bytes_max: int = 4 * 2**20
    seeds_max: int = 1_024
    metrics_max: int = 1_024
    id_chars_max: int = TEXT_CHARS_MAX


UNLIMITED = Limits(packet_bytes_max=2**31, seeds_max=2**31, metrics_max=2**31, id_chars_max=2**31)
"""For packets from the journal, which were within the limits of their time."""
