"""Text from outside, before it is journaled, and numbers in a sentence."""

__all__ = ["WORDS_MAX", "counted", "fault_of_text", "printable"]

WORDS_MAX = 300
"""Characters of one text."""


def printable(text: str, most: int = WORDS_MAX) -> str:
    """Foreign text as protobuf can hold it: cut to size, lone surrogates replaced."""
    return text[:most].encode("utf-8", "replace").decode("utf-8")


def fault_of_text(text: object, least: int, most: int) -> str:
    """Why `text` is not fit to be journaled and shown on a terminal, in words; "" when it is."""
    if not isinstance(text, str):
        return f"is a {type(text).__name__}, not text"
    if not least <= len(text) <= most:
        return f"has {len(text)} characters, not {least} to {most}"
    return "" if text.isprintable() else "holds characters that cannot be printed"


def counted(number: int, one: str, many: str = "") -> str:
    """So many of something, in words: "1 step", "2,000 steps"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
