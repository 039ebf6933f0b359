"""The line of telemetry: what is refused for good is dropped, nothing else ever is, and nothing waits long for it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bus import EMERGENCY, TELEMETRY, Letter
from tamiyo.line import RUN_MAX, STRIKES_MAX, Line

FULL = 8
SECOND_NS = 10**9


def letters(streams: str) -> list[Letter]:
    """Packets by the first letter of their stream: "t" or "e"."""
    names = {"t": TELEMETRY, "e": EMERGENCY}
    return [Letter(names[stream], f"{stream}{place}", b"", {}) for place, stream in enumerate(streams)]


@dataclass
class Office:
    """A line, its backlog of `FULL` packets at a time, and what the bus was handed."""

    waiting: list[Letter]
    line: Line = field(default_factory=lambda: Line(lambda strikes: SECOND_NS << (strikes - 1)))
    taken: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    now_ns: int = 0

    def flush(self, takes: Callable[[Letter], bool], *, on_trial: bool = False) -> bool:
        """One flush, 10 s after the last one; whether everything went."""
        self.now_ns += 10 * SECOND_NS
        done = True
        while done:
            window = self.waiting[:FULL]
            self.line.begin(window, full=len(window) == FULL)
            while (letter := self.line.next(self.now_ns, on_trial=on_trial)) is not None:
                self.asked[letter.message_id] += 1
                if takes(letter):
                    self.taken[letter.message_id] += 1
                    self.line.taken(letter, self.now_ns)
                else:
                    self.line.refused(letter, "no")
            done = self.line.is_done
            settled = self._settle(window)
            if not settled:
                break
        return done and not self.waiting

    def _settle(self, window: list[Letter]) -> int:
        count = 0
        while count < len(window) and self.line.is_settled([window[count]]):
            count += 1
        gone = self.waiting[:count]
        self.dropped += [doubt.letter.message_id for doubt in self.line.dropped(gone)]
        self.line.forget([letter.message_id for letter in gone])
        del self.waiting[:count]
        return count


def all_but(*names: str) -> Callable[[Letter], bool]:
    return lambda letter: letter.message_id not in names


def none(_: Letter) -> bool:
    return False


def test_in_order_and_once_where_nothing_is_refused() -> None:
    office = Office(letters("tetteett" * 3))
    names = [letter.message_id for letter in office.waiting]
    assert office.flush(all_but())
    assert list(office.asked.items()) == [(name, 1) for name in names]


def test_the_others_go_ahead_at_once_and_one_refused_four_times_is_dropped() -> None:
    office = Office(letters("ttt"))
    for turn in range(STRIKES_MAX):
        assert office.dropped == []
        office.flush(all_but("t0"))
        office.waiting += [Letter(TELEMETRY, f"later{turn}", b"", {})]
    assert office.dropped == ["t0"]
    assert office.asked["t0"] == STRIKES_MAX
    assert office.flush(all_but("t0"))
    assert set(office.taken.values()) == {1}


def test_a_refusal_that_counted_is_waited_for() -> None:
    office = Office(letters("tt"))
    office.flush(all_but("t0"))
    office.line.begin(office.waiting, full=False)
    assert office.line.next(office.now_ns + SECOND_NS - 1, on_trial=False) is None
    assert office.line.next(office.now_ns + SECOND_NS, on_trial=False) is office.waiting[0]


def test_a_refusal_after_which_nothing_of_its_stream_goes_counts_for_nothing() -> None:
    office = Office(letters("ett"))
    for _ in range(50):
        office.flush(all_but("e0"))
    assert (office.dropped, office.taken) == ([], Counter(t1=1, t2=1))
    office.waiting += letters("ttte")[3:]
    office.flush(all_but())
    assert (office.dropped, office.waiting) == ([], [])


def test_a_full_line_waits_for_no_other_of_the_stream() -> None:
    office = Office(letters("e" + "t" * 3 * FULL))
    for _ in range(12):
        office.flush(all_but("e0"))
    assert (office.dropped, office.waiting) == (["e0"], [])
    assert max(office.taken.values()) <= 1 + STRIKES_MAX, "the last that was taken showed that the bus is there"


def test_a_full_line_of_which_all_others_are_gone_waits_for_a_bus_that_is_down() -> None:
    office = Office(letters("t" * 3 * FULL))
    office.flush(all_but("t0"))
    for _ in range(1_000):
        office.flush(none)
    assert office.dropped == []
    for _ in range(2):
        went = office.flush(all_but())
    assert (went, office.dropped) == (True, [])


def test_a_suspect_is_no_trial_while_there_is_another() -> None:
    office = Office(letters("ttt"))
    for _ in range(4):
        office.flush(none)
    asked = office.asked["t0"]
    office.flush(all_but("t0"), on_trial=True)
    assert (office.asked["t0"], office.taken) == (asked, Counter(t2=1))


@given(st.text("te", max_size=40), st.data())
def test_what_is_good_goes_and_what_is_not_is_dropped_in_bounded_time(streams: str, data: st.DataObject) -> None:
    """The bus is down for whole flushes, in between it refuses some for good; more and more packets come."""
    office = Office(letters(streams))
    names = [letter.message_id for letter in office.waiting]
    bad = set(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=FULL - 1))) if names else set[str]()
    for up in data.draw(st.lists(st.booleans(), max_size=40)):
        office.flush(all_but(*bad) if up else none)
        assert set(office.dropped) <= bad
    turns = 0
    while set(names) - bad - set(office.taken) or set(office.dropped) != bad:
        office.waiting += [Letter(stream, f"later{turns}{stream}", b"", {}) for stream in (TELEMETRY, EMERGENCY)]
        office.flush(all_but(*bad))
        turns += 1
        assert turns <= 40 + 20 * len(bad)
    assert set(office.dropped) == bad
    assert not bad & set(office.taken)


@given(st.text("te", min_size=1, max_size=30), st.integers(0, 60))
def test_a_bus_that_is_down_is_asked_little_and_loses_nothing(streams: str, flushes: int) -> None:
    office = Office(letters(streams))
    names = {letter.message_id for letter in office.waiting}
    for _ in range(flushes):
        before = office.asked.total()
        assert not office.flush(none)
        assert office.asked.total() - before <= RUN_MAX
    for _ in range(3):
        went = office.flush(all_but())
    assert went
    assert set(office.taken) == names
    assert max(office.taken.values()) == 1
