"""Data of random set-ups: each function draws one data set from a random generator.

Rows come first. Inputs and real targets have about unit scale, as a careful author would have them.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Three splits of rows, of which the program sees the first two.

    `form` says which networks can read the inputs. `outputs` is the number of values that a network
    has to give for each row (or step). `kind` is that of a recipe; `next` are labels of each step.
    """

    form: str
    kind: str
    train: Rows
    valid: Rows
    fresh: Rows
    outputs: int
    vocabulary: int = 0


def splits(x: np.ndarray, y: np.ndarray, rows: int) -> dict[str, Rows]:
    """The first `rows` to train, the rest by halves."""
    middle = rows + (len(x) - rows) // 2
    parts = slice(0, rows), slice(rows, middle), slice(middle, None)
    return dict(zip(("train", "valid", "fresh"), ((x[p], y[p]) for p in parts), strict=True))


def scaled(values: np.ndarray) -> np.ndarray:
    return ((values - values.mean(0)) / values.std(0)).astype(np.float32)


def amount(draw: np.random.Generator, low: int = 500, high: int = 1200) -> tuple[int, int]:
    """Training rows, and all rows."""
    rows = int(draw.integers(low // 20, high // 20 + 1)) * 20
    return rows, rows + 800


# Tables


def table(draw: np.random.Generator, rows: int) -> np.ndarray:
    """Columns of a few distributions, some correlated."""
    features = int(draw.integers(3, 10))
    x = draw.normal(size=(rows, features))
    if draw.random() < 0.4:
        x = x @ (np.eye(features) + 0.3 * draw.normal(size=(features, features)))
    if draw.random() < 0.4:
        x[:, 0] = draw.uniform(-1.7, 1.7, rows)
    return scaled(x)


def surface(draw: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A smooth function that no affine one replaces."""
    directions = draw.normal(size=(3, x.shape[1])) / np.sqrt(x.shape[1])
    a, b, c = (x @ direction for direction in directions)
    shapes = (np.sin(2 * a) + 0.7 * b, a * b + c, np.abs(a) + 0.5 * np.tanh(2 * b), a**2 - b + c)
    return shapes[int(draw.integers(len(shapes)))]


def smooth(draw: np.random.Generator) -> Data:
    """One real target."""
    rows, total = amount(draw)
    x = table(draw, total)
    y = surface(draw, x)[:, None]
    y = scaled(y + 0.1 * y.std() * draw.normal(size=y.shape))
    return Data("table", "regression", **splits(x, y, rows), outputs=1)


def several(draw: np.random.Generator) -> Data:
    """Two to four real targets."""
    rows, total = amount(draw)
    x = table(draw, total)
    y = np.stack([surface(draw, x) for _ in range(int(draw.integers(2, 5)))], 1)
    y = scaled(y + 0.1 * y.std(0) * draw.normal(size=y.shape))
    return Data("table", "regression", **splits(x, y, rows), outputs=y.shape[1])


def sides(draw: np.random.Generator) -> Data:
    """Two classes on the two sides of a curved surface."""
    rows, total = amount(draw)
    x = table(draw, total)
    height = surface(draw, x)
    y = (height > np.quantile(height, draw.uniform(0.35, 0.65))).astype(np.float32)[:, None]
    return Data("table", "binary", **splits(x, y, rows), outputs=1)


def rings(draw: np.random.Generator) -> Data:
    """Two classes, one around the other or two interlocked arcs, in the plane."""
    rows, total = amount(draw)
    label = draw.integers(0, 2, total)
    angle = draw.uniform(0, np.pi, total)
    if draw.random() < 0.5:
        angle, radius = 2 * angle, 1 + label
        x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    else:
        sign = 1 - 2 * label
        x = np.stack([sign * np.cos(angle) + label, sign * np.sin(angle) + label / 2], 1)
    x = scaled(x + 0.12 * draw.normal(size=x.shape))
    return Data("table", "binary", **splits(x, label.astype(np.float32)[:, None], rows), outputs=1)


def clusters(draw: np.random.Generator) -> Data:
    """Classes of two clusters each."""
    rows, total = amount(draw)
    classes, features = int(draw.integers(3, 9)), int(draw.integers(4, 12))
    group = draw.integers(0, 2 * classes, total)
    centres = draw.normal(size=(2 * classes, features)) * 1.5
    x = scaled(centres[group] + 0.6 * draw.normal(size=(total, features)))
    y = (group % classes).astype(np.int32)
    return Data("table", "multiclass", **splits(x, y, rows), outputs=classes)


@cache
def digits() -> Rows:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int32)


def digit_table(draw: np.random.Generator) -> Data:
    """The digits of scikit-learn, 64 columns from 0 to 1."""
    x, y = digits()
    order = draw.permutation(len(x))
    return Data("table", "multiclass", **splits(x[order], y[order], 1000), outputs=10)


def tags(draw: np.random.Generator) -> Data:
    """Several yes-or-no labels of each row."""
    rows, total = amount(draw)
    x = table(draw, total)
    heights = np.stack([surface(draw, x) for _ in range(int(draw.integers(3, 6)))], 1)
    y = (heights > np.quantile(heights, 0.55, axis=0)).astype(np.float32)
    return Data("table", "multilabel", **splits(x, y, rows), outputs=y.shape[1])


# Images


def digit_images(draw: np.random.Generator) -> Data:
    """The digits of scikit-learn as images."""
    flat = digit_table(draw)
    parts = {
        name: (rows[0].reshape(-1, 8, 8, 1), rows[1])
        for name, rows in (("train", flat.train), ("valid", flat.valid), ("fresh", flat.fresh))
    }
    return Data("image", "multiclass", **parts, outputs=10)


def strokes(draw: np.random.Generator) -> Data:
    """A bar in one of four directions anywhere in a noisy image."""
    rows, total = amount(draw, 500, 800)
    side = int(draw.integers(8, 12))
    y = draw.integers(0, 4, total).astype(np.int32)
    x = draw.normal(0, 0.25, (total, side, side, 1))
    steps = np.array([(0, 1), (1, 0), (1, 1), (1, -1)])
    for image, label in zip(x, y, strict=True):
        row, column = draw.integers(2, side - 2, 2)
        for t in range(-2, 3):
            at = np.clip((row + t * steps[label][0], column + t * steps[label][1]), 0, side - 1)
            image[at[0], at[1], 0] += 1.5
    return Data("image", "multiclass", **splits(x.astype(np.float32), y, rows), outputs=4)


def spots(draw: np.random.Generator) -> Data:
    """Where in an image a spot lies."""
    rows, total = amount(draw, 500, 800)
    side = int(draw.integers(8, 12))
    place = draw.uniform(1, side - 2, (total, 2))
    grid = np.arange(side)
    bells = np.exp(-((grid[None, :, None] - place[:, None, :]) ** 2) / 3)
    x = bells[:, :, None, 0] * bells[:, None, :, 1] + draw.normal(0, 0.05, (total, side, side))
    x = x[..., None].astype(np.float32) * 2
    return Data("image", "regression", **splits(x, scaled(place), rows), outputs=2)


# Sequences


def waves(draw: np.random.Generator) -> Data:
    """Waves of a few frequencies with any phase."""
    rows, total = amount(draw)
    steps, classes = int(draw.integers(12, 20)), int(draw.integers(3, 5))
    y = draw.integers(0, classes, total).astype(np.int32)
    phase = draw.uniform(0, 2 * np.pi, (total, 1))
    t = np.arange(steps)
    angle = 2 * np.pi * t * (y[:, None] + 1) * 1.3 / steps + phase
    x = np.stack([np.sin(angle), np.cos(angle)][: int(draw.integers(1, 3))], -1) * 1.4
    x = (x + 0.2 * draw.normal(size=x.shape)).astype(np.float32)
    return Data("sequence", "multiclass", **splits(x, y, rows), outputs=classes)


def pulses(draw: np.random.Generator) -> Data:
    """The sum of the values at marked steps (Hochreiter and Schmidhuber 1997, short)."""
    rows, total = amount(draw, 800, 1200)
    steps = int(draw.integers(6, 11))
    values, marks = draw.uniform(-1, 1, (total, steps)), np.zeros((total, steps))
    for row in marks:
        row[draw.permutation(steps)[:2]] = 1
    y = scaled((values * marks).sum(1, keepdims=True))
    x = np.stack([values * 1.7, marks], -1).astype(np.float32)
    return Data("sequence", "regression", **splits(x, y, rows), outputs=1)


def ahead(draw: np.random.Generator) -> Data:
    """The next values of a sum of two swings."""
    rows, total = amount(draw)
    steps, horizon = int(draw.integers(10, 18)), int(draw.integers(1, 4))
    t = np.arange(steps + horizon)
    phase, strength = draw.uniform(0, 6.28, (2, total, 1)), draw.uniform(0.5, 1.5, (2, total, 1))
    periods = draw.uniform(5, 14, 2)
    series = sum(
        a * np.sin(6.28 * t / p + f) for a, p, f in zip(strength, periods, phase, strict=True)
    )
    series = (series + 0.1 * draw.normal(size=series.shape)).astype(np.float32)
    x, y = series[:, :steps, None], series[:, steps:]
    return Data("sequence", "regression", **splits(x, y, rows), outputs=horizon)


# Tokens, of which 0 is padding


def topics(draw: np.random.Generator) -> Data:
    """Texts of padded length, some words of which tell the topic."""
    rows, total = amount(draw)
    classes, steps, vocabulary = int(draw.integers(3, 6)), int(draw.integers(10, 18)), 60
    y = draw.integers(0, classes, total).astype(np.int32)
    own = draw.permutation(np.arange(1, vocabulary))[: classes * 6].reshape(classes, 6)
    x = draw.integers(1, vocabulary, (total, steps))
    telling = draw.random((total, steps)) < 0.35
    x = np.where(telling, own[y[:, None], draw.integers(0, 6, (total, steps))], x)
    x[np.arange(steps) >= draw.integers(steps // 2, steps + 1, total)[:, None]] = 0
    parts = splits(x.astype(np.int32), y, rows)
    return Data("tokens", "multiclass", **parts, outputs=classes, vocabulary=vocabulary)


def moods(draw: np.random.Generator) -> Data:
    """Texts whose words are good or bad: which of them are more."""
    rows, total = amount(draw, 800, 1200)
    steps, vocabulary = int(draw.integers(9, 16)) | 1, 40
    sign = draw.permutation(np.repeat([-1, 1], vocabulary // 2))
    x = draw.integers(1, vocabulary, (total, steps)).astype(np.int32)
    y = (sign[x].sum(1, keepdims=True) > 0).astype(np.float32)
    return Data("tokens", "binary", **splits(x, y, rows), outputs=1, vocabulary=vocabulary)


def chain(draw: np.random.Generator) -> Data:
    """Texts in which the last two symbols tell the next one, most of the time."""
    rows, total = amount(draw, 400, 700)
    symbols, steps = int(draw.integers(6, 10)), int(draw.integers(12, 18))
    rule = np.stack([draw.permutation(symbols) for _ in range(symbols)])
    text = draw.integers(0, symbols, (total, steps + 1))
    for t in range(2, steps + 1):
        regular = draw.random(total) < 0.9
        text[:, t] = np.where(regular, rule[text[:, t - 1], text[:, t - 2]], text[:, t])
    text = text.astype(np.int32)
    parts = splits(text[:, :-1], text[:, 1:], rows)
    return Data("text", "next", **parts, outputs=symbols, vocabulary=symbols)


# Pairs and codes


def same_or_not(draw: np.random.Generator) -> Data:
    """Two views: of one thing, or of two."""
    rows, total = amount(draw, 900, 1300)
    things = draw.normal(size=(12, int(draw.integers(6, 12))))
    first = draw.integers(0, 12, total)
    y = draw.integers(0, 2, total)
    second = np.where(y == 1, first, (first + draw.integers(1, 12, total)) % 12)
    x = things[np.stack([first, second], 1)] + 0.3 * draw.normal(size=(total, 2, things.shape[1]))
    parts = splits(x.astype(np.float32), y.astype(np.float32)[:, None], rows)
    return Data("pairs", "binary", **parts, outputs=1)


def ratings(draw: np.random.Generator) -> Data:
    """What people think of things: products of two hidden vectors, seen for some pairs."""
    people, things = 40, 30
    pairs = draw.permutation(people * things)
    x = np.stack([pairs // things, pairs % things], 1).astype(np.int32)
    tastes, traits = draw.normal(size=(people, 2)), draw.normal(size=(things, 2))
    y = (tastes[x[:, 0]] * traits[x[:, 1]]).sum(1, keepdims=True)
    y = scaled(y + 0.1 * draw.normal(size=y.shape))
    return Data("ratings", "regression", **splits(x, y, 900), outputs=1, vocabulary=people)


def curves(draw: np.random.Generator) -> Data:
    """Rows that a few hidden numbers make, to be coded and made again."""
    rows, total = amount(draw)
    hidden = draw.normal(size=(total, int(draw.integers(2, 4))))
    width = int(draw.integers(12, 24))
    mixed = np.tanh(hidden @ draw.normal(size=(hidden.shape[1], 16)) * 0.7)
    x = scaled(mixed @ draw.normal(size=(16, width)) + 0.1 * draw.normal(size=(total, width)))
    return Data("codes", "regression", **splits(x, x, rows), outputs=width)


SOURCES: dict[str, Any] = {
    "smooth": smooth,
    "several": several,
    "sides": sides,
    "rings": rings,
    "clusters": clusters,
    "digit_table": digit_table,
    "tags": tags,
    "digit_images": digit_images,
    "strokes": strokes,
    "spots": spots,
    "waves": waves,
    "pulses": pulses,
    "ahead": ahead,
    "topics": topics,
    "moods": moods,
    "chain": chain,
    "same_or_not": same_or_not,
    "ratings": ratings,
    "curves": curves,
}
