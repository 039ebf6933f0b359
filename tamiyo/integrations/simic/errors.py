"""What the learner refuses."""

from tamiyo.errors import HostError

__all__ = ["NothingToLearn"]


class NothingToLearn(HostError):
    """A log does not pass its audit, or holds too few decisions of which it is known what came of them."""
