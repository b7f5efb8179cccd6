"""Images: whether neighbouring pixels are alike, and what random filters tell of them."""

import numpy as np
from threadpoolctl import threadpool_limits

from nnref.diagnosis.data.references import FEW_ROWS, FOLDS, least_squares
from nnref.diagnosis.data.targets import Target, chance, score, skill

IMAGES = 400  # that are looked at
PIXELS = 32  # of a side: of larger images, every other pixel or fewer
FILTERS = 64
COLORS = 4  # channels, at most, of what is taken for an image


def is_image(x: np.ndarray) -> bool:
    """Whether inputs are (rows, height, width, channels) or (rows, channels, height, width)."""
    sides = [size for size in x.shape[1:] if size > COLORS]
    return x.ndim == 4 and len(sides) == 2 and min(sides) > 4 and len(x) >= 2 * FEW_ROWS


def is_plane(x: np.ndarray) -> bool:
    """Whether inputs are (rows, steps, bands), such as spectrograms: images of one channel."""
    return x.ndim == 3 and min(x.shape[1:]) > 4 and len(x) >= 2 * FEW_ROWS and x.dtype.kind == "f"


def channels_last(x: np.ndarray) -> np.ndarray:
    """Images with their channels last, as floats; planes have one channel."""
    if x.ndim == 3:
        return x[..., None].astype(np.float32)
    return (np.moveaxis(x, 1, -1) if x.shape[1] <= COLORS else x).astype(np.float32)


def likeness(x: np.ndarray) -> float:
    """The lesser of the correlations of pixels side by side, and one above the other."""
    x = channels_last(x)
    x = x - x.mean((1, 2), keepdims=True)
    pairs = (x[:, 1:] * x[:, :-1]).mean(), (x[:, :, 1:] * x[:, :, :-1]).mean()
    return float(min(pairs) / max(float((x**2).mean()), 1e-30))


def likelier(other: np.ndarray, x: np.ndarray) -> bool:
    """Whether neighbours are alike in one order of the numbers, and hardly in the other."""
    return likeness(other) > 2 * max(likeness(x), 0.05)


def of_filters(x: np.ndarray, target: Target) -> float:
    """Skill of least squares on means and maxima of random 3 x 3 filters, in folds.

    What is the same wherever it stands in an image is found so, as by a small convolutional network
    (Rahimi and Recht 2007 on random features).
    """
    values = target.kind in ("regression", "multilabel")
    if not values:  # a class below 0 is masked out
        known = target.answers >= 0
        x, target = x[known], target._replace(answers=target.answers[known])
    if len(x) < FEW_ROWS:
        return 0.0
    x = channels_last(x)
    x = x[:, :: -(-x.shape[1] // PIXELS), :: -(-x.shape[2] // PIXELS)]
    x = (x - x.mean()) / (x.std() + 1e-30)
    random = np.random.default_rng(0)
    wide = 9 * x.shape[-1]
    weights = (random.normal(size=(wide, FILTERS)) / wide**0.5).astype(np.float32)
    thresholds = random.normal(size=FILTERS).astype(np.float32)
    y = target.answers.reshape(len(x), -1) if values else np.eye(target.classes)[target.answers]
    with threadpool_limits(1):
        features = np.concatenate(
            [filtered(x[i : i + 50], weights, thresholds) for i in range(0, len(x), 50)]
        )
        features = (features - features.mean(0)) / (features.std(0) + 1e-9)
        predicted, fold = np.empty(y.shape), np.arange(len(x)) % FOLDS
        for each in range(FOLDS):
            model = least_squares(features[fold != each], y[fold != each])
            predicted[fold == each] = model(features[fold == each])
    if target.kind == "multilabel":
        predicted = predicted > 0.5
    answers = predicted if values else predicted.argmax(1)
    return skill(score(target, answers), chance(target))


def filtered(x: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Mean and maximum over the places of each rectified filter, and the mean 3 x 3 patch."""
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # pyright: ignore
    patches = patches.reshape(*patches.shape[:3], -1)
    units = np.maximum(patches @ weights - thresholds, 0)
    return np.concatenate([units.mean((1, 2)), units.max((1, 2)), patches.mean((1, 2))], 1)
