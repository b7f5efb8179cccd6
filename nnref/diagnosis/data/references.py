"""Reference models: what linear models, neighbours and boosted trees learn from the same rows."""

import warnings
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from nnref.diagnosis.data.targets import Target, chance, score, skill
from nnref.diagnosis.thresholds import bound

ROWS = 1200  # that a reference is fitted to
FOLDS = 3
FEW_ROWS = 30  # below, folds are too small to fit anything: a lookup table is the reference
MOST_PAIRS = 4_000_000  # of a token and the class after it, that are counted
LAST_VALUE, LAST_TOKEN = "the last value", "the last token"  # references that fit nothing
COUNTS = "counts of tokens"  # a linear model of how often each stands in a row
MOST_TOKENS = 500  # that are counted
AROUND = 2  # pixels on each side of one, that a reference sees of an image
CONTEXT = 3  # steps of a sequence that a reference sees of it


class SimpleModels(NamedTuple):
    """What simple models reach on held-out rows, by name, as skill; and on shuffled labels."""

    skills: dict[str, float]
    shuffled: dict[str, float]
    rows: int

    @property
    def best(self) -> tuple[str, float]:
        """The best of them."""
        return max(self.skills.items(), key=lambda pair: pair[1], default=("constant", 0.0))


def lookup(x: np.ndarray, target: Target) -> float:
    """The skill of a table of the training rows on themselves: below 1 where labels conflict."""
    _, group = np.unique(x, axis=0, return_inverse=True)
    group = group.reshape(-1)
    answers = np.empty(target.answers.shape, float)
    for each in np.unique(group):
        mine = group == each
        part = target.answers[mine]
        if target.kind == "regression":
            answers[mine] = part.mean(0)
        elif part.ndim == 2:
            answers[mine] = part.mean(0) > 0.5
        else:
            answers[mine] = np.bincount(part[part >= 0], minlength=1).argmax()
    return skill(score(target, answers), chance(target))


def models(
    kind: str, width: int, weights: np.ndarray | None = None
) -> dict[str, Callable[[], Any]]:
    """The references for a kind of task; boosted trees where there is one thing to predict.

    `weights` are those of the classes; neighbours know of none.
    """
    weigh = None if weights is None else dict(enumerate(weights))
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if kind == "regression":
        members: dict[str, Callable[[], Any]] = {
            "linear": lambda: Ridge(1e-3),
            "neighbours": lambda: KNeighborsRegressor(3),
        }
        if width == 1:
            members["boosted trees"] = lambda: HistGradientBoostingRegressor(max_iter=60)
        return members
    if kind == "multilabel":
        return {"neighbours": lambda: KNeighborsClassifier(5)}
    members = {
        "linear": lambda: LogisticRegression(C=1.0, max_iter=300, class_weight=weigh),
        "neighbours": lambda: KNeighborsClassifier(5),
    }
    if width <= 4:
        members["boosted trees"] = lambda: HistGradientBoostingClassifier(
            max_iter=60, class_weight=weigh
        )
    return members


def references(x: np.ndarray, target: Target, *, shuffles: int = 0) -> SimpleModels:
    """Linear model, nearest neighbours and boosted trees on held-out rows of the training data.

    With `shuffles`, also the best of so many fits of each to shuffled labels: what chance gives.
    """
    from sklearn.model_selection import KFold
    from threadpoolctl import threadpool_limits

    if target.kind == "places":
        reference = references(*at_places(x, target), shuffles=shuffles)
        reference.skills.update(last_token(x, target))
        return reference
    random = np.random.default_rng(0)
    rows = random.permutation(len(x))
    if target.answers.ndim == 1:
        rows = rows[target.answers[rows] >= 0]  # a class below 0 is masked out
    rows = rows[:ROWS]
    flat = x.reshape(len(x), -1)[rows].astype(float)
    answers = target.answers[rows]
    if len(rows) < FEW_ROWS or not np.isfinite(flat).all() or not np.isfinite(answers).all():
        return SimpleModels({"lookup table": lookup(x.reshape(len(x), -1), target)}, {}, len(rows))
    deviation = flat.std(0)
    flat = (flat - flat.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    if not flat.shape[1]:
        return SimpleModels({"constant": 0.0}, {}, len(rows))
    scale = (answers.mean(0), answers.std(0) + 1e-30) if target.kind == "regression" else (0, 1)
    answers = (answers - scale[0]) / scale[1] if target.kind == "regression" else answers
    width = target.classes if target.kind != "regression" else answers.shape[1]
    if answers.ndim == 2 and answers.shape[1] > 64:
        answers = answers[:, random.permutation(answers.shape[1])[:64]]

    def held_out(build: Callable[[], Any], labels: np.ndarray, x: np.ndarray = flat) -> float:
        predicted = np.empty(labels.shape)
        for fit, held in KFold(FOLDS, shuffle=True, random_state=0).split(x):
            if labels.ndim == 1 and len(np.unique(labels[fit])) < 2:
                predicted[held] = labels[fit][0]
                continue
            one = labels[fit].ravel() if labels.ndim == 2 and labels.shape[1] == 1 else labels[fit]
            # One thread: on a busy machine those of OpenMP wait for each other, ten times as long.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                predicted[held] = (
                    build().fit(x[fit], one).predict(x[held]).reshape(predicted[held].shape)
                )
        sample = target._replace(answers=labels)
        return skill(score(sample, predicted), chance(sample))

    skills, shuffled = {}, {}
    known = models(target.kind, width, target.weights)
    for name, build in known.items():
        if name == "boosted trees" and max(skills.values()) > 0.95:
            continue
        skills[name] = held_out(build, answers)
        for _ in range(shuffles):
            drawn = held_out(build, answers[random.permutation(len(answers))])
            shuffled[name] = max(shuffled.get(name, -1.0), drawn)
    if "linear" in known and (counted := counts_of_tokens(x[rows])) is not None:
        skills[COUNTS] = held_out(known["linear"], answers, counted)
    skills |= last_value(x[rows], target.answers[rows], target.kind)
    return SimpleModels(skills, shuffled, len(rows))


def counts_of_tokens(x: np.ndarray) -> np.ndarray | None:
    """How often each token stands in a row, (rows, tokens); None where rows are no tokens.

    The rarest beyond `MOST_TOKENS` are left out. What stands for a word is no quantity, and a model
    of the numbers themselves finds nothing in them.
    """
    if x.ndim != 2 or x.shape[1] < 2 or x.dtype.kind not in "iu":
        return None
    tokens, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    if not 2 < len(tokens) <= x.size / 2:
        return None
    counted = np.zeros((len(x), len(tokens)), np.float32)
    np.add.at(counted, (np.arange(len(x))[:, None], places.reshape(x.shape)), 1)
    return counted[:, np.argsort(-counts, kind="stable")[:MOST_TOKENS]]


def last_value(x: np.ndarray, answers: np.ndarray, kind: str = "regression") -> dict[str, float]:
    """R² of the last step of a series, as it is, as the answer; empty where it is not above 0.

    Args:
        x: inputs, (rows, steps), (rows, steps, features).
        answers: values, (rows, width).
        kind: of task; only of values.
    """
    wide = answers.shape[1] if kind == "regression" else 0
    if x.ndim < 2 or x.ndim > 3 or x[:1].size < 2 or wide != (x.shape[2] if x.ndim == 3 else 1):
        return {}
    last = x[:, -1].reshape(len(x), wide)
    value = score(Target(kind, answers, 0), last.astype(float))
    return {LAST_VALUE: value} if value > 0 else {}


def change_to_come(x: np.ndarray, answers: np.ndarray) -> float:
    """R² of a linear model of the next change of a series, by the changes before it.

    In folds that are whole stretches of the rows: windows that overlap are no other rows.

    Args:
        x: inputs, (rows, steps) or (rows, steps, features), the last step last.
        answers: values, (rows, width).
    """
    x = x[:ROWS].reshape(len(x[:ROWS]), x.shape[1], -1).astype(float)
    last = x[:, -1]
    change = (answers[:ROWS] - last) / (np.diff(x, axis=1).std() + 1e-30)
    before = np.diff(x, axis=1).reshape(len(x), -1)
    before = before / (before.std() + 1e-30)
    if len(x) < FOLDS * FEW_ROWS or not before.shape[1]:
        return 0.0
    fold = np.arange(len(x)) * FOLDS // len(x)
    predicted = np.empty(change.shape)
    for each in range(FOLDS):
        model = least_squares(before[fold != each], change[fold != each])
        predicted[fold == each] = model(before[fold == each])
    return score(Target("regression", change, 0), predicted)


def last_token(x: np.ndarray, target: Target) -> dict[str, float]:
    """The most frequent class after each token, counted in the first half of the rows.

    As skill on the second half; empty where the inputs are no tokens that go along with the places.
    """
    if x.shape != target.answers.shape or x.dtype.kind not in "iu" or len(x) < 2 or x.min() < 0:
        return {}
    half = len(x) // 2
    asked = target.answers >= 0
    tokens = int(x.max()) + 1
    if tokens * target.classes > MOST_PAIRS:
        return {}
    counts = np.zeros((tokens, target.classes))
    known = asked[:half]
    np.add.at(counts, (x[:half][known], target.answers[:half][known]), 1)
    # A token that was not seen is followed by what is most frequent of all.
    counts += counts.sum(0) / max(counts.sum(), 1) / 2
    rest = target._replace(answers=target.answers[half:])
    return {LAST_TOKEN: skill(score(rest, counts.argmax(1)[x[half:]]), chance(rest))}


def at_places(
    x: np.ndarray, target: Target, known: np.ndarray | None = None
) -> tuple[np.ndarray, Target]:
    """Steps of sequences as rows of their own, drawn from all: what stands before, and the class.

    A row holds a step and the ones before it, tokens one-hot; where the inputs do not go along
    with the targets, all of them and the place. `known` are the tokens, those of `x` by default.
    """
    asked = np.argwhere(target.answers >= 0)
    rows, places = np.random.default_rng(0).permutation(asked)[:ROWS].T
    steps = target.answers.shape[1]
    along = x.shape[0], steps
    if x.ndim >= 2 and (x.shape[:2] == along or int(np.prod(x.shape[1:-1])) == steps):
        x = x if x.shape[:2] == along else x.reshape(len(x), steps, -1)
        if x.ndim == 2 and x.dtype.kind in "iu":
            known = np.unique(x) if known is None else known
            x = (x[..., None] == known).astype(np.float32) if len(known) <= 256 else x
        seen = [x[rows, np.maximum(places - back, 0)] for back in range(CONTEXT)]
    else:
        seen = [x[rows], np.eye(steps, dtype=np.float32)[places]]
    flat = np.concatenate([part.reshape(len(rows), -1) for part in seen], 1)
    return flat, Target("multiclass", target.answers[rows, places], target.classes)


def at_pixels(x: np.ndarray, target: Target) -> tuple[np.ndarray, Target] | None:
    """Pixels of a mask as rows of their own, drawn from all: the inputs around each, and its class.

    None where targets are no mask of the inputs.

    Args:
        x: inputs, (rows, height, width) or (rows, height, width, channels).
        target: labels, (rows, height * width).
    """
    if x.ndim not in (3, 4) or min(x.shape[1:3]) < 2 * AROUND + 1:
        return None
    if target.answers.shape != (len(x), x.shape[1] * x.shape[2]):
        return None
    drawn = np.random.default_rng(0).permutation(target.answers.size)[:ROWS]
    row, top, left = np.unravel_index(drawn, x.shape[:3])
    seen = surroundings(x.reshape(*x.shape[:3], -1), (row, top, left), AROUND)
    return seen, Target("binary", target.answers.ravel()[drawn], 2)


def surroundings(x: np.ndarray, places: Sequence[np.ndarray], reach: int) -> np.ndarray:
    """What stands around some places, (places, (2 reach + 1)^axes * channels), 0 beyond the edge.

    Args:
        x: inputs, (rows, *space, channels).
        places: the row of each, and where it stands along each axis of the space.
        reach: places on each side that are seen.
    """
    row, *at = places
    padded = np.pad(x, [(0, 0)] + [(reach, reach)] * len(at) + [(0, 0)])
    steps = product(range(2 * reach + 1), repeat=len(at))
    return np.concatenate(
        [padded[(row, *(a + step for a, step in zip(at, each, strict=True)))] for each in steps], 1
    )


def through(x: np.ndarray, width: int) -> float:
    """The share of the variance of held-out rows that so many principal components explain."""
    flat = x.reshape(len(x), -1).astype(float)
    flat = flat[np.random.default_rng(0).permutation(len(flat))[:ROWS]]
    held, rest = flat[: len(flat) // 3], flat[len(flat) // 3 :]
    mean = rest.mean(0)
    _, _, components = np.linalg.svd(rest - mean, full_matrices=False)
    left = held - mean - (held - mean) @ components[:width].T @ components[:width]
    return 1 - float((left**2).sum() / max(((held - held.mean(0)) ** 2).sum(), 1e-30))


def balanced(x: np.ndarray, target: Target) -> float:
    """The skill of a linear model to which all classes weigh the same, scored so, too.

    It is logistic regression on held-out rows; 0 stands for answers by chance, 1 for each class
    found whole. Where a class is rare, accuracy says nothing of it.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    if target.kind == "places":
        x, target = at_places(x, target)
    flat, labels = x.reshape(len(x), -1).astype(float)[:ROWS], target.answers[:ROWS]
    counts = np.bincount(labels, minlength=target.classes)
    kept = counts[labels] >= FOLDS
    flat, labels = flat[kept], labels[kept]
    if len(np.unique(labels)) < 2:
        return 0.0
    flat = (flat - flat.mean(0)) / np.where(flat.std(0) > 0, flat.std(0), 1)
    answers = np.empty_like(labels)
    for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(flat, labels):
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            model = LogisticRegression(class_weight="balanced", max_iter=300)
            answers[held] = model.fit(flat[fit], labels[fit]).predict(flat[held])
    return float(balanced_accuracy_score(labels, answers, adjusted=True))


def least_squares(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A ridge regression with an intercept, as a function of further rows.

    W = argmin sum_i weight_i |(x_i - mean) W - (y_i - mean)|² + λ |W|², λ = 0.03 sum_i weight_i.

    Args:
        x: inputs of about unit scale, (rows, columns).
        y: targets, (rows, outputs).
        weight: of the rows, 1 for all by default.
    """
    weight = np.ones(len(x)) if weight is None else weight
    center, middle = np.average(x, 0, weight), np.average(y, 0, weight)
    root = np.sqrt(weight)[:, None]
    a, b = root * (x - center), root * (y - middle)
    rows, columns = a.shape
    penalty = 0.03 * weight.sum()
    if columns <= rows:
        w = np.linalg.solve(a.T @ a + penalty * np.eye(columns), a.T @ b)
    else:
        w = a.T @ np.linalg.solve(a @ a.T + penalty * np.eye(rows), b)
    return lambda rows: (rows - center) @ w + middle


def around_pixels(x: np.ndarray, mask: np.ndarray) -> float:
    """How well a linear model tells the two classes of a mask from the inputs around a pixel.

    Balanced accuracy on the second half of the rows as skill, 0 by chance and 1 perfect; 0 where
    inputs and mask do not go along.

    Args:
        x: inputs, (rows, *space), (rows, *space, channels) or (rows, channels, *space).
        mask: zeros and ones, (rows, *space); less than 0 asks for nothing.
    """
    space = mask.shape[1:]
    if x.shape[2:] == space:
        x = np.moveaxis(x, 1, -1)
    if x.shape[1 : 1 + len(space)] != space or not space:
        return 0.0
    x = x.reshape(*mask.shape, -1)
    reach = AROUND if len(space) < 3 else 1
    random, half = np.random.default_rng(0), len(x) // 2

    def drawn(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        places = [np.argwhere(mask[rows] == value) for value in (0, 1)]
        places = [part[random.permutation(len(part))[: ROWS // 4]] for part in places]
        at = np.concatenate(places).T
        around = surroundings(x[rows], list(at), reach).astype(float)
        return around, np.repeat([0, 1], [*map(len, places)])

    (fit, known), (held, asked) = drawn(slice(half)), drawn(slice(half, None))
    if min(known.sum(), asked.sum()) < FEW_ROWS or min((known == 0).sum(), (asked == 0).sum()) < 1:
        return 0.0
    scale = fit.std(0) + 1e-30
    weight = 1 / np.bincount(known)[known]
    model = least_squares(fit / scale, known[:, None].astype(float), weight * len(fit) / 2)
    answers = model(held / scale)[:, 0] > 0.5
    return float(np.mean([(answers == asked)[asked == value].mean() for value in (0, 1)]) * 2 - 1)


class Scales(NamedTuple):
    """Location and spread of the inputs, column by column."""

    mean: np.ndarray
    deviation: np.ndarray


def scales(x: np.ndarray) -> Scales:
    """In double precision, flattened to columns."""
    flat = x.reshape(len(x), -1).astype(float)
    return Scales(flat.mean(0), flat.std(0))


def standardized(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation by column; of sequences and images by feature or channel.

    The last axis of an image without channels, or of a sequence of alike features, is scaled as
    one: what hardly varies at a border is not to be blown up.
    """
    x = x.astype(np.float64)
    axes: Any = tuple(range(x.ndim - 1)) if x.ndim > 1 else 0
    if x.ndim > 2:
        parts = x.std(axes)
        alike = parts.max() < bound("alike") * np.median(parts)
        axes = None if alike else axes
    mean, deviation = x.mean(axes), x.std(axes)
    return ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def by_row(x: np.ndarray) -> np.ndarray:
    """Flat rows, each in one piece of memory."""
    return np.ascontiguousarray(np.asarray(x).reshape(len(x), -1))
