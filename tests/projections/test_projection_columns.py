import math

from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from tamiyo.projections.columns import JournalText, Number

DIALECTS = (sqlite.dialect(), postgresql.dialect())
characters = st.sampled_from("ab\\u0123456789\x00\n\ud800\udfffé💥")
texts = st.text(characters, max_size=12)


def stored(text):
    return JournalText().process_bind_param(text, DIALECTS[0])


@given(texts)
@example("\\u0000")
@example("\\\\u0000")
@example("\x00")
def test_any_text_comes_back_as_it_was_and_can_be_stored_anywhere(text):
    kept = stored(text)
    assert "\x00" not in kept
    kept.encode("utf-8")
    assert all(JournalText().process_result_value(kept, dialect) == text for dialect in DIALECTS)


@given(texts, texts)
def test_different_texts_stay_different(one, other):
    assert (stored(one) == stored(other)) == (one == other)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00\\"), max_size=12))
def test_plain_text_is_stored_as_it_is(text):
    assert stored(text) == text


def test_no_text_stays_none():
    assert stored(None) is None
    assert JournalText().process_result_value(None, DIALECTS[0]) is None


@given(st.floats(allow_nan=False))
def test_a_number_is_stored_as_it_is(value):
    assert Number().process_bind_param(value, DIALECTS[0]) == value
    assert Number().process_result_value(value, DIALECTS[0]) == value


def test_nan_is_null_and_null_is_nan():
    assert Number().process_bind_param(math.nan, DIALECTS[0]) is None
    assert math.isnan(Number().process_result_value(None, DIALECTS[0]))
