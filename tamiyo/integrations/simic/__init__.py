"""Simic, the offline learner: reads what a controller's journal tells, and trains a network that may take over.

    dataset = read_dataset("controller")            # decisions, the graphs they were made on, what came of them
    learned = learn(dataset)                        # tamiyo_gnn_v1, and how well it does on what it has not seen
    data = learned.checkpoint()                     # for `tamiyo policy install`, or a signed PolicyUpdate

Reading order: `credit` (what came of a decision), `dataset` (from log to examples), `targets` (from examples to
tensors), `learner`.
"""

from tamiyo.integrations.simic.dataset import Dataset, Example, read_dataset
from tamiyo.integrations.simic.errors import NothingToLearn
from tamiyo.integrations.simic.learner import Learned, LearnerSettings, Quality, learn

__all__ = [
    "Dataset",
    "Example",
    "Learned",
    "LearnerSettings",
    "NothingToLearn",
    "Quality",
    "learn",
    "read_dataset",
]
