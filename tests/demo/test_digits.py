import sys

import pytest
import torch

from tamiyo.demo.digits import BATCH_SIZE, VALIDATION_IMAGES, DemoUnavailable, Digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(seed=3)


def test_a_batch_depends_on_seed_and_step_alone(digits):
    for step in (1, 22, 23, 500):
        images, labels = digits.batch(step)
        again_images, again_labels = Digits(seed=3).batch(step)
        assert torch.equal(images, again_images)
        assert torch.equal(labels, again_labels)


def test_the_order_of_asking_does_not_matter(digits):
    late = digits.batch(200)[0]
    digits.batch(1)
    assert torch.equal(digits.batch(200)[0], late)


def test_another_seed_or_step_is_another_batch(digits):
    assert not torch.equal(digits.batch(1)[0], digits.batch(2)[0])
    assert not torch.equal(digits.batch(1)[0], Digits(seed=4).batch(1)[0])


def test_batches_have_the_documented_shapes(digits):
    images, labels = digits.batch(1)
    assert (images.shape, images.dtype) == ((BATCH_SIZE, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((BATCH_SIZE,), torch.int64)
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0
    assert set(labels.tolist()) <= set(range(10))


def test_an_epoch_holds_every_kept_image_at_most_once(digits):
    places = torch.cat([digits._epoch_order(0)[: digits.steps_per_epoch * BATCH_SIZE]])
    assert len(places.unique()) == len(places) == digits.steps_per_epoch * BATCH_SIZE
    assert digits.steps_per_epoch == (1797 - VALIDATION_IMAGES) // BATCH_SIZE


def test_no_validation_image_is_trained_on(digits):
    held_out = {image.numpy().tobytes() for image in digits.validation()[0]}
    kept = {image.numpy().tobytes() for image in digits._inputs}
    assert not held_out & kept
    assert len(digits.validation()[1]) == VALIDATION_IMAGES


def test_the_validation_set_is_the_same_for_every_seed(digits):
    assert torch.equal(digits.validation()[0], Digits(seed=9).validation()[0])


def test_images_move_by_at_most_a_pixel_in_each_direction(digits):
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 4, 4] = 1.0
    seen = set()
    for step in range(60):
        moved = digits._shifted(image, step)
        assert float(moved.sum()) == 1.0
        seen.add(divmod(int(moved.argmax()), 8))
    assert seen == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DemoUnavailable, match=r"pip install 'tamiyo\[demo\]'"):
        Digits(seed=0)
