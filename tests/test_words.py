import pytest

from tamiyo.words import counted


@pytest.mark.parametrize(
    ("number", "many", "words"),
    [
        (0, "", "0 steps"), (1, "", "1 step"), (2, "", "2 steps"), (12_345, "", "12,345 steps"),
        (1, "paces", "1 step"), (2, "paces", "2 paces"),
    ],
)  # fmt: skip
def test_numbers_in_a_sentence(number: int, many: str, words: str) -> None:
    assert counted(number, "step", many) == words
