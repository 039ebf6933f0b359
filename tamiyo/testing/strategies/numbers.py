"""Numbers and names as packets, sheets and metadata carry them."""

from hypothesis import strategies as st

__all__ = ["FLOAT32", "IDS", "TAME", "TEXTS"]

FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
"""Any float of the wire, NaN and the infinities included."""

TAME = st.floats(min_value=0.0, max_value=2.0, width=32)
"""Small and finite."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
"""Text that UTF-8 can write."""

IDS = TEXTS
"""Ids: any text, empty ones included."""
