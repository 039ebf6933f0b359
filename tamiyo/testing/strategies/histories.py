"""Histories: journals as a service would write them, valid by construction."""

from collections.abc import Callable

from hypothesis import strategies as st

from tamiyo.config import Settings
from tamiyo.core.directives import DIRECTIVES
from tamiyo.testing.history import History
from tamiyo.testing.strategies.extras import records
from tamiyo.testing.strategies.packets import training_packets
from tamiyo.testing.strategies.proposals import proposals

__all__ = ["histories"]

Deed = Callable[[History], None]

PATIENCE_S = 60.0
"""Longer than the default backoff of a refused report's last attempt."""


def _retry(history: History, *, succeeded: bool) -> None:
    """Long enough after, what was refused is tried again, until that comes to an end."""
    for _ in range(history.state.options.report_retries_max):
        history.pass_time(PATIENCE_S)
        history.retry(succeeded=succeeded)


def _give_up(history: History) -> None:
    """A bus refuses whatever is due until nobody offers it any more."""
    history.publish(succeeded=False)
    _retry(history, succeeded=False)


PACKETS = training_packets()
ANSWERS = proposals() | st.sampled_from(("timeout", "failure"))
STEPS: st.SearchStrategy[Deed] = st.builds(
    lambda packet, answer: lambda history: history.step(packet, answer), PACKETS, ANSWERS
)
DEEDS: st.SearchStrategy[Deed] = st.one_of(
    STEPS,
    st.sampled_from((0.4, 1.1, 5.0)).map(lambda seconds: lambda history: history.pass_time(seconds)),
    st.just(lambda history: history.commit_is_late()),
    PACKETS.map(lambda packet: lambda history: history.paused_step(packet, "log_full")),
    PACKETS.map(lambda packet: lambda history: history.paused_step(packet, "timeout_wal")),
    PACKETS.map(lambda packet: lambda history: history.undecided_step(packet)),
    st.integers(1, 5).map(lambda count: lambda history: history.unrecorded_steps(count)),
    records().map(lambda record: lambda history: history.observe(record)),
    st.sampled_from(DIRECTIVES).map(lambda directive: lambda history: history.direct(directive)),
    st.just(lambda history: history.install()),
    st.just(lambda history: history.reject()),
    st.just(lambda history: history.roll_back()),
    st.just(lambda history: history.import_names()),
    st.sampled_from(("applied", "refused")).map(lambda outcome: lambda history: history.deliver(outcome)),
    st.booleans().map(lambda succeeded: lambda history: history.publish(succeeded=succeeded)),
    st.booleans().map(lambda succeeded: lambda history: _retry(history, succeeded=succeeded)),
    st.just(_give_up),
    st.sampled_from(("", "tamiyo-refused")).map(lambda name: lambda history: history.drain(dropped=name)),
    st.just(lambda history: history.look_back()),
    st.just(lambda history: history.base()),
    st.just(lambda history: history.open()),
)


@st.composite
def histories(draw: st.DrawFn, max_deeds: int = 20, settings: Settings | None = None) -> History:
    """A journal of up to `max_deeds` deeds; every other one, or so, is a step that is decided."""
    history = History(settings or draw(st.sampled_from((Settings(), Settings(fr_obs_window_epochs=3)))))
    for _ in range(draw(st.integers(0, max_deeds))):
        deed = draw(STEPS) if draw(st.booleans()) else draw(DEEDS)
        deed(history)
    return history
