"""Blend-mode annotations: how the seed manager (Kasmina) is to mix a seed's branch with its host's.

Off unless `TAMIYO_ENABLE_BLEND_MODE_ANN`. They go with a SEED command that keeps its seed; the mode is the setting's.

    CONVEX      (1 - alpha) host + alpha seed; nothing more to say
    RESIDUAL    host + alpha seed; nothing more to say
    CHANNEL     one alpha a channel: `alpha_vec`, JSON, and `alpha_vec_len`, where the seed says how many channels
                it has (`channels` in its metrics) and they are not too many
    CONFIDENCE  alpha follows a gate on the host's confidence, sigmoid(gate_k (margin - gate_tau)), from alpha_lo to
                alpha_hi
"""

from collections.abc import Mapping
from functools import lru_cache

from tamiyo.core.intent import Intent
from tamiyo.core.options import Options
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["CHANNELS_MAX", "blend_notes"]

CHANNELS_MAX = 64
SOURCE = "default"
"""The mode came from the setting: no seed or blueprint names one."""

GATE: Mapping[str, str] = {"gate_k": "4.0", "gate_tau": "0.2", "alpha_lo": "0.0", "alpha_hi": "1.0"}
"""A gate that is half open where the host's two likeliest classes are 0.2 apart, and lets all of alpha through."""


def blend_notes(final: Intent, alpha: float, options: Options) -> Mapping[str, str]:
    """The annotations of a command; none where no seed is blended.

    Args:
        final: the command to be.
        alpha: its blending weight, 0 to 1.
        options: those in force.
    """
    if final.command_type != pb.COMMAND_SEED or final.operation == pb.SEED_OP_CULL or final.seed is None:
        return {}
    mode = options.blend_mode_default
    notes = {"blend_mode": mode, "blend_mode_source": SOURCE}
    if mode == "CONFIDENCE":
        notes.update(GATE)
    if mode == "CHANNEL":
        notes.update(_channel_notes(final.seed.metrics.get("channels", 0.0), alpha))
    return notes


@lru_cache(maxsize=64)
def _channel_notes(channels: float, alpha: float) -> Mapping[str, str]:
    """The same alpha for every channel; nothing where their number is not known, or too large to write out."""
    if not 1.0 <= channels <= CHANNELS_MAX or channels != int(channels):
        return {}
    count = int(channels)
    return {"alpha_vec": "[" + ",".join([f"{alpha:.6f}"] * count) + "]", "alpha_vec_len": str(count)}
