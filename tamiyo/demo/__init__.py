"""A real training run: a small convolutional network learns handwritten digits while Tamiyo lets it grow.

`session.new_trainer(seed, controller, verifier, directory)` is all of it; `tamiyo run` adds the service, the
library, a progress bar (`display`) and the summary (`summary`).
"""

__all__ = ["STEPS"]

STEPS = 2_000
"""Of `tamiyo run` by default; about a minute on two cores."""
