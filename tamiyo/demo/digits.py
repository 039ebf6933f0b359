"""The demo's data: 1,797 real handwritten digits of 8 x 8 pixels, in an order that only the step number decides.

The images are the test set of Alpaydin and Kaynak's "Optical Recognition of Handwritten Digits" (UCI), as
scikit-learn ships them in its package; nothing is downloaded.
"""

import torch
from torch import Tensor

from tamiyo.errors import HostError

__all__ = ["BATCH_SIZE", "DemoUnavailable", "Digits"]

BATCH_SIZE = 64
VALIDATION_IMAGES = 360
_SPLIT_SEED = 8_1797  # the split is the same for every run, so that accuracies of different seeds compare
_BRIGHTEST = 16.0
_SHIFT_PIXELS = 1


class DemoUnavailable(HostError, ImportError):
    """What the demo needs is not installed; the message has the command."""


class Digits:
    """The digits as batches of 64, every image once an epoch, each moved by up to a pixel.

    Everything random comes from (seed, epoch) or (seed, step), so batch n is the same in every process.

    Args:
        seed: of the order and the shifts.

    Shapes: inputs are (N, 1, 8, 8) float32 in 0..1, targets (N,) int64 in 0..9.

    Raises:
        DemoUnavailable: scikit-learn is not installed.
    """

    def __init__(self, seed: int) -> None:
        images, labels = _load()
        shuffled = torch.randperm(len(images), generator=_generator(_SPLIT_SEED, 0, 0))
        held_out, kept = shuffled[:VALIDATION_IMAGES], shuffled[VALIDATION_IMAGES:]
        self._seed = seed
        self._inputs, self._targets = images[kept], labels[kept]
        self._validation = (images[held_out], labels[held_out])
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the images left over wait for the next order."""
        return len(self._inputs) // BATCH_SIZE

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of step `step`, counted from 1."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        chosen = self._epoch_order(epoch)[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
        return self._shifted(self._inputs[chosen], step), self._targets[chosen]

    def validation(self) -> tuple[Tensor, Tensor]:
        """360 images that no batch contains, unmoved."""
        return self._validation

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = _generator(self._seed, 1, epoch)
            self._order = (epoch, torch.randperm(len(self._inputs), generator=generator))
        return self._order[1]

    def _shifted(self, images: Tensor, step: int) -> Tensor:
        width = 2 * _SHIFT_PIXELS + 1
        moves = torch.randint(width, (len(images), 2), generator=_generator(self._seed, 2, step))
        padded = torch.nn.functional.pad(images, [_SHIFT_PIXELS] * 4)
        windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)  # (N, 1, 3, 3, 8, 8): every shift of every image
        return windows[torch.arange(len(images)), :, moves[:, 0], moves[:, 1]].contiguous()


def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415  an extra: its absence is an answer, not a crash
    except ImportError as error:
        raise DemoUnavailable(
            "the handwritten digits come with scikit-learn, which is not installed: pip install 'tamiyo[demo]'"
        ) from error
    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32).unsqueeze(1) / _BRIGHTEST
    return images, torch.from_numpy(digits.target).to(torch.int64)


def _generator(seed: int, purpose: int, number: int) -> torch.Generator:
    mixed = (seed * 1_000_003 + purpose) * 1_000_000_007 + number
    return torch.Generator().manual_seed(mixed % 2**63)
