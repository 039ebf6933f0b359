"""Blend-mode annotations: off by default, and then what each mode needs and no more."""

import json

import pytest
from rig import Bench, packet, proposal, timed_out

from tamiyo.config import load_settings
from tamiyo.core.options import BLEND_MODES, Options

OURS = ("blend_mode", "gate_", "alpha_lo", "alpha_hi", "alpha_vec")


def blended(mode: str, *, channels: float | None = None, action: int = 0, answer: object | None = None,
            **fields: object) -> dict[str, str]:  # fmt: skip
    bench = Bench(blend_mode_annotations=True, blend_mode_default=mode)
    bench.observe()
    made = packet(**fields)
    if channels is not None:
        made.seed_states[0].metrics["channels"] = channels
    command = bench.step(made, answer or proposal(action)).command
    return {name: text for name, text in command.annotations.items() if name.startswith(OURS)}


def test_they_are_off_by_default() -> None:
    command = Bench().step(packet()).command
    assert not any(name.startswith(OURS) for name in command.annotations)


@pytest.mark.parametrize("mode", ["CONVEX", "RESIDUAL"])
def test_a_plain_mode_is_named_with_its_source(mode: str) -> None:
    assert blended(mode, channels=8.0) == {"blend_mode": mode, "blend_mode_source": "default"}


def test_a_gate_s_numbers_go_with_confidence() -> None:
    assert set(blended("CONFIDENCE")) == {
        "blend_mode", "blend_mode_source", "gate_k", "gate_tau", "alpha_lo", "alpha_hi",
    }  # fmt: skip


@pytest.mark.parametrize("channels", [1.0, 8.0, 64.0])
def test_one_alpha_a_channel_goes_with_channel(channels: float) -> None:
    notes = blended("CHANNEL", channels=channels)
    assert notes["alpha_vec_len"] == str(int(channels))
    assert json.loads(notes["alpha_vec"]) == pytest.approx([0.3] * int(channels))


@pytest.mark.parametrize("channels", [None, 0.0, -1.0, 2.5, 65.0, float("nan"), float("inf")])
def test_a_channel_count_that_is_unknown_or_too_large_is_left_out(channels: float | None) -> None:
    assert blended("CHANNEL", channels=channels) == {"blend_mode": "CHANNEL", "blend_mode_source": "default"}


def test_a_command_that_blends_no_seed_has_none() -> None:
    assert blended("CONFIDENCE", action=5) == {}, "a cull"
    assert blended("CONFIDENCE", action=1) == {}, "the optimizer"
    assert blended("CONFIDENCE", answer=timed_out()) == {}, "a timeout"
    assert blended("CONFIDENCE", training_metrics={"grad_var": 2.0}) == {}, "a seed command that a row took away"


def test_every_mode_of_the_settings_is_one_of_the_core_and_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for mode in BLEND_MODES:
        monkeypatch.setenv("TAMIYO_ENABLE_BLEND_MODE_ANN", "true")
        monkeypatch.setenv("TAMIYO_BLEND_MODE_DEFAULT", mode)
        options = load_settings().options()
        assert (options.blend_mode_annotations, options.blend_mode_default) == (True, mode)


@pytest.mark.parametrize(
    "wrong",
    [
        {"observation_window": 0}, {"reminder_steps": 0}, {"reminder_steps_critical": 0}, {"report_retries_max": -1},
        {"retry_backoff_ms": float("nan")}, {"retry_backoff_ms": -1.0}, {"retry_backoff_mult": 0.5},
        {"retry_backoff_mult": float("inf")}, {"blend_mode_default": "convex"},
    ],
)  # fmt: skip
def test_options_that_no_schedule_could_follow_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        Options(**wrong)
