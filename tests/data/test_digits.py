"""The digits of scikit-learn: split by class, as columns or as images."""

import numpy as np
import pytest

from nnref.data import DATA

# --- data that come with the house --------------------------------------------------------------


def test_digits_are_split_by_class_and_standardized():
    made = DATA["digits"]()
    sizes = {name: len(split.x) for name, split in made.splits.items()}
    assert sizes == {"train": 1257, "valid": 270, "test": 270}
    every = np.bincount(np.concatenate([split.y for split in made.splits.values()]))
    for split in made.splits.values():
        exact = every * len(split.y) / 1797
        assert (abs(np.bincount(split.y) - exact) < 1).all()
    x = made.train.x
    varied = x.std(0) > 0
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, varied].std(0), 1, rtol=1e-5)
    assert abs(made.valid.x.mean(0)).max() > 1e-3


def test_digits_as_images_and_in_ink():
    raw = DATA["digits"](standardized=False)
    assert (raw.train.x.min(), raw.train.x.max()) == (0, 16)
    images = DATA["digits"](images=True)
    assert images.train.x.shape == (1257, 8, 8, 1)
    np.testing.assert_allclose(images.train.x.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(images.train.x.std(), 1, rtol=1e-5)
    flat = images.train.x.reshape(1257, 64)
    assert np.corrcoef(flat.ravel(), raw.train.x.ravel())[0, 1] == pytest.approx(1)
