"""Profiles for Hypothesis: no deadline, since a test must not depend on how busy the machine is."""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("default"), max_examples=5_000)
# For mutation: the same examples for every mutant, and no time spent on making a failing one small.
settings.register_profile(
    "mutation", settings.get_profile("default"), derandomize=True, database=None,
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
