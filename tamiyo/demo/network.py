"""The demo's host: three convolutions with a place for a seed after each."""

import torch
from torch import Tensor, nn

from tamiyo.integrations.kasmina import GraftPoint

__all__ = ["DigitNetwork", "new_network"]

WIDTHS = (32, 64, 64)
CLASSES = 10


class DigitNetwork(nn.Module):
    """(N, 1, 8, 8) images to (N, 10) logits, over features of 32 x 8 x 8, 64 x 8 x 8 and 64 x 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.graft1 = GraftPoint(first, depth=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.graft2 = GraftPoint(second, depth=2)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.graft3 = GraftPoint(third, depth=3)
        self.classify = nn.Linear(third, CLASSES)
        for layer in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # torch's default starts on a plateau here

    def forward(self, images: Tensor) -> Tensor:
        """One pass."""
        features: Tensor = self.graft1(torch.relu(self.conv1(images)))
        features = self.graft2(torch.relu(self.conv2(features)))
        features = nn.functional.max_pool2d(features, 2)
        features = self.graft3(torch.relu(self.conv3(features)))
        logits: Tensor = self.classify(features.mean(dim=(2, 3)))
        return logits

    def graft_points(self) -> dict[str, GraftPoint]:
        """The graft points by seed id."""
        return {"seed-1": self.graft1, "seed-2": self.graft2, "seed-3": self.graft3}


def new_network(seed: int) -> DigitNetwork:
    """A network whose weights depend on `seed` alone; the process's random stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # no device is seeded along
        return DigitNetwork()
