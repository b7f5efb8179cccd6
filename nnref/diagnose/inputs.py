"""The data before any network: what is in them, and whether there is anything to learn."""

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnref.diagnose.findings import Finding, bound

if TYPE_CHECKING:
    from nnref.diagnose.case import Case

Rows = tuple[np.ndarray, np.ndarray]  # inputs and targets
ROWS = 1200  # that a reference is fitted to
FOLDS = 3
COMPARED = 5000  # rows that are compared with each other
FEW_ROWS = 30  # below, folds are too small to fit anything: a lookup table is the reference
CONTEXT = 3  # steps of a sequence that a reference sees of it


class Target(NamedTuple):
    """What the targets ask for, in the form in which references and network can be compared.

    `answers` are integer classes (rows,), zeros and ones (rows, labels), values (rows, width), or
    for "places", a class for each step of a sequence, integers (rows, steps); a class below 0 is
    masked out and asks for nothing.
    """

    kind: str
    answers: np.ndarray
    classes: int


def infer_kind(y: np.ndarray, shape: tuple[int, ...]) -> str:
    """The kind of task that targets and the shape of the outputs speak of."""
    width = shape[-1] if len(shape) > 1 else 1
    if len(shape) > 2 and width > 1:
        numbered = y.dtype.kind in "iu" and y.shape == shape[:-1]
        if numbered or (y.shape == shape and exclusive(y)):
            return "places"
    values = np.unique(y[np.isfinite(y)]) if y.dtype.kind == "f" else np.unique(y)
    if y.ndim >= 2 and y.shape[-1] > 1:
        if set(values) <= {0, 1}:
            return "multiclass" if y.ndim == 2 and exclusive(y) else "multilabel"
        inside = len(values) and values[0] >= 0 and values[-1] <= 1
        if y.ndim == 2 and inside and np.allclose(y.sum(-1), 1, atol=1e-3):
            return "multiclass"
        return "regression"
    if len(values) <= 2 and (set(values) <= {0, 1} or set(values) <= {-1, 1}):
        return "multiclass" if width > 1 else "binary"
    return (
        "multiclass" if y.dtype.kind in "iub" and (width > 1 or len(values) <= 50) else "regression"
    )


def exclusive(y: np.ndarray) -> bool:
    """Whether targets are one-hot over their last axis."""
    return bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def target_of(y: np.ndarray, kind: str) -> Target:
    """The targets of so many rows as classes, labels or values."""
    y = np.asarray(y)
    if kind == "places":
        labels = y.argmax(-1) if y.ndim > 2 and exclusive(y) else y
        labels = labels.reshape(len(y), -1).astype(int)
        return Target(kind, labels, int(labels.max()) + 1)
    if kind == "multiclass":
        labels = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y), -1)[:, 0]
        labels = labels.reshape(len(y), -1)[:, 0] if labels.ndim > 1 else labels
        return Target(kind, labels.astype(int), int(labels.max()) + 1)
    if kind in ("binary", "multilabel"):
        flat = y.reshape(len(y), -1)
        middle = (flat.min() + flat.max()) / 2 if flat.min() < flat.max() else 0.5
        answers = (flat > middle).astype(int)
        if answers.shape[1] == 1:
            return Target("binary", answers[:, 0], 2)
        return Target("multilabel", answers, 2)
    return Target("regression", y.reshape(len(y), -1).astype(float), 0)


def score(target: Target, answers: np.ndarray) -> float:
    """Accuracy, or the share of the targets' variance that the answers explain; 1 is perfect."""
    if target.kind == "regression":
        truth = target.answers
        if not np.isfinite(answers).all():
            return -np.inf
        answers = answers.reshape(len(truth), -1)
        total = ((truth - truth.mean(0)) ** 2).sum()
        return 1 - float(((truth - answers) ** 2).sum() / max(total, 1e-30))
    asked = target.answers >= 0
    return float((target.answers == answers.reshape(target.answers.shape))[asked].mean())


def chance(target: Target) -> float:
    """The score of the best constant answer."""
    if target.kind == "regression":
        return 0.0
    if target.kind == "multilabel":
        share = target.answers.mean(0)
        return float(np.maximum(share, 1 - share).mean())
    asked = target.answers[target.answers >= 0]
    return float(np.bincount(asked).max() / len(asked))


def skill(score: float, chance: float) -> float:
    """How far from a constant answer (0) to a perfect one (1)."""
    if not np.isfinite(score):
        return -1.0
    return max(-1.0, (score - chance) / max(1 - chance, 1e-9))


class Reference(NamedTuple):
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
            answers[mine] = np.bincount(part).argmax()
    return skill(score(target, answers), chance(target))


def models(kind: str, width: int) -> dict[str, Callable[[], Any]]:
    """The references for a kind of task; boosted trees where there is one thing to predict."""
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
        "linear": lambda: LogisticRegression(C=1.0, max_iter=300),
        "neighbours": lambda: KNeighborsClassifier(5),
    }
    if width <= 4:
        members["boosted trees"] = lambda: HistGradientBoostingClassifier(max_iter=60)
    return members


def references(x: np.ndarray, target: Target, *, shuffles: int = 0) -> Reference:
    """Linear model, nearest neighbours and boosted trees on held-out rows of the training data.

    With `shuffles`, also the best of so many fits of each to shuffled labels: what chance gives.
    """
    from sklearn.model_selection import KFold
    from threadpoolctl import threadpool_limits

    if target.kind == "places":
        return references(*at_places(x, target), shuffles=shuffles)
    random = np.random.default_rng(0)
    rows = random.permutation(len(x))[:ROWS]
    flat = x.reshape(len(x), -1)[rows].astype(float)
    answers = target.answers[rows]
    if len(rows) < FEW_ROWS or not np.isfinite(flat).all() or not np.isfinite(answers).all():
        return Reference({"lookup table": lookup(x.reshape(len(x), -1), target)}, {}, len(rows))
    deviation = flat.std(0)
    flat = (flat - flat.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    if not flat.shape[1]:
        return Reference({"constant": 0.0}, {}, len(rows))
    scale = (answers.mean(0), answers.std(0) + 1e-30) if target.kind == "regression" else (0, 1)
    answers = (answers - scale[0]) / scale[1] if target.kind == "regression" else answers
    width = target.classes if target.kind != "regression" else answers.shape[1]
    if answers.ndim == 2 and answers.shape[1] > 64:
        answers = answers[:, random.permutation(answers.shape[1])[:64]]

    def held_out(build: Callable[[], Any], labels: np.ndarray) -> float:
        told = np.empty(labels.shape)
        for fit, held in KFold(FOLDS, shuffle=True, random_state=0).split(flat):
            if labels.ndim == 1 and len(np.unique(labels[fit])) < 2:
                told[held] = labels[fit][0]
                continue
            one = labels[fit].ravel() if labels.ndim == 2 and labels.shape[1] == 1 else labels[fit]
            # One thread: on a busy machine those of OpenMP wait for each other, ten times as long.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                told[held] = (
                    build().fit(flat[fit], one).predict(flat[held]).reshape(told[held].shape)
                )
        sample = target._replace(answers=labels)
        return skill(score(sample, told), chance(sample))

    skills, shuffled = {}, {}
    for name, build in models(target.kind, width).items():
        if name == "boosted trees" and max(skills.values()) > 0.95:
            continue
        skills[name] = held_out(build, answers)
        for _ in range(shuffles):
            drawn = held_out(build, answers[random.permutation(len(answers))])
            shuffled[name] = max(shuffled.get(name, -1.0), drawn)
    return Reference(skills, shuffled, len(rows))


def at_places(x: np.ndarray, target: Target) -> tuple[np.ndarray, Target]:
    """Steps of sequences as rows of their own, drawn from all: what stands before, and the class.

    A row holds a step and the ones before it, tokens one-hot; where the inputs do not go along
    with the targets, all of them and the place.
    """
    asked = np.argwhere(target.answers >= 0)
    rows, places = np.random.default_rng(0).permutation(asked)[:ROWS].T
    steps = target.answers.shape[1]
    along = x.shape[0], steps
    if x.ndim >= 2 and (x.shape[:2] == along or int(np.prod(x.shape[1:-1])) == steps):
        x = x if x.shape[:2] == along else x.reshape(len(x), steps, -1)
        if x.ndim == 2 and x.dtype.kind in "iu":
            known = np.unique(x)
            x = (x[..., None] == known).astype(np.float32) if len(known) <= 256 else x
        seen = [x[rows, np.maximum(places - back, 0)] for back in range(CONTEXT)]
    else:
        seen = [x[rows], np.eye(steps, dtype=np.float32)[places]]
    flat = np.concatenate([part.reshape(len(rows), -1) for part in seen], 1)
    return flat, Target("multiclass", target.answers[rows, places], target.classes)


class Scales(NamedTuple):
    """Location and spread of the inputs, column by column."""

    mean: np.ndarray
    deviation: np.ndarray
    largest: float
    root_mean_square: float


def scales(x: np.ndarray) -> Scales:
    """In double precision, flattened to columns."""
    flat = x.reshape(len(x), -1).astype(float)
    return Scales(
        flat.mean(0), flat.std(0), float(np.abs(flat).max()), float(np.sqrt((flat**2).mean()))
    )


def standardized(x: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation by column; of images, over all pixels at once."""
    x = x.astype(np.float64)
    axes: Any = 0 if x.ndim == 2 else None
    mean, deviation = x.mean(axes), x.std(axes)
    return ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def check(case: "Case") -> Iterator[Finding]:
    """What the data show before any network; faults only where no network could do without."""
    x, y = (np.asarray(part) for part in case.subject.train)
    yield from nonfinite(x, y)
    if not (finite(x) and finite(y)):
        return
    yield from still_columns(x)
    yield from copies(case, x)
    yield from given_away(x, case.target)
    yield from constant_targets(case, y)
    yield from conflicts(x, case.target)
    if case.kind in ("binary", "multiclass"):
        yield from balance(case)
    yield from splits(case)
    if not case.subject.shuffle:
        yield from sorted_rows(case)


def finite(values: np.ndarray) -> bool:
    """Whether every number is."""
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def nonfinite(x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """NaN or infinity."""
    for name, values in (("inputs", x), ("targets", y)):
        if not finite(values):
            bad = ~np.isfinite(values.reshape(len(values), -1))
            row, column = np.argwhere(bad)[0]
            yield Finding(
                "nonfinite_data",
                "fault",
                f"{name}, row {row}, column {column}",
                f"{int(bad.sum())} numbers of the {name} are NaN or infinite",
                measured=f"{bad.any(1).mean():.1%} of the rows",
                healthy="none",
                remedy="keep = np.isfinite(x).all(1); x, y = x[keep], y[keep]",
            )


def still_columns(x: np.ndarray) -> Iterator[Finding]:
    """Columns that say nothing: normal at the border of an image, worth knowing in a table."""
    if x.ndim == 2 and 2 < x.shape[1] <= 32 and len(x) > 2:
        still = np.flatnonzero(np.ptp(x, axis=0) == 0)
        if 0 < len(still) < x.shape[1] // 2:
            names = ", ".join(map(str, still[:5]))
            yield Finding(
                "no_signal",
                "note",
                f"columns {names}",
                f"{len(still)} of {x.shape[1]} columns have one value in every row",
            )


def copies(case: "Case", x: np.ndarray) -> Iterator[Finding]:
    """Training rows that are copies of others, in a data set that looks larger than it is."""
    different = len({row.tobytes() for row in by_row(x)})
    y = np.asarray(case.subject.train[1])
    if different == 1 < len(x) and (y != y[:1]).any() and not case.costs:
        yield Finding(
            "no_signal",
            "fault",
            "inputs",
            f"all {len(x)} training rows are the same, and their targets are not: nothing tells "
            "the rows apart",
            measured=f"every number of a row between {x.min():.3g} and {x.max():.3g}",
            healthy="rows that differ",
            remedy="look at the last cast, scale or crop of the inputs: uint8 of 0..1 is all 0",
        )
    elif len(x) >= bound("rows for no signal") and different < bound("copies") * len(x):
        yield Finding(
            "repeated_rows",
            "note",
            "training rows",
            f"only {different} of {len(x)} training rows are different ones",
            measured=f"{different / len(x):.0%}",
            healthy=f"above {bound('copies'):.0%}",
            remedy="x, first = np.unique(x, axis=0, return_index=True); y = y[first]",
        )


def given_away(x: np.ndarray, target: Target) -> Iterator[Finding]:
    """A column of the inputs that is the target itself."""
    if x.ndim != 2 or target.answers.shape[1:] not in ((), (1,)):
        return
    wanted = target.answers.reshape(len(x), 1)
    same = np.flatnonzero((x == wanted).all(0) & (np.ptp(x, axis=0) > 0))
    if len(same):
        yield Finding(
            "leaked_targets",
            "note",
            f"column {same[0]} of the inputs",
            f"column {same[0]} of the inputs is the target itself: there is nothing to learn but "
            "to copy it",
            remedy=f"x = np.delete(x, {same[0]}, axis=1)",
        )


def constant_targets(case: "Case", y: np.ndarray) -> Iterator[Finding]:
    """One target for every row: a fault where a metric compares, or the one class is not answered.

    Some losses want no targets, and are given zeros in their place.
    """
    if len(y) > 1 and (y == y[:1]).all():
        if case.kind == "regression":
            asked = case.subject.metric is not None and case.trained.skill < bound("failed")
        else:
            asked = case.answers is not None and bool(case.never_answered)
        asked = asked and not case.costs
        yield Finding(
            "corrupted_labels",
            "fault" if asked else "note",
            "targets",
            "every row has the same target: there is nothing to tell apart",
            measured=f"every target {in_short(y[0])}",
            healthy="targets that differ",
            remedy="look at the last cast or scale of the targets: integers of fractions are 0",
        )


def in_short(values: np.ndarray) -> str:
    """A target in a few characters."""
    return np.array2string(np.ravel(values)[:4], precision=3, separator=", ").strip("[]")


def conflicts(x: np.ndarray, target: Target) -> Iterator[Finding]:
    """Equal rows with unequal targets."""
    flat, target = (
        x.reshape(len(x), -1)[:COMPARED],
        target._replace(answers=target.answers[:COMPARED]),
    )
    _, group, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    repeated = counts[group.reshape(-1)] > 1
    if target.kind not in ("regression", "places") and repeated.mean() > 0.1:
        best = lookup(flat, target)
        if best < bound("lookup"):
            yield Finding(
                "corrupted_labels",
                "note",
                "targets",
                f"equal rows have unequal targets: no network can go further than {best:.2f} on "
                "them (a constant answer is 0, a perfect one 1)",
                measured=f"{repeated.mean():.0%} of the rows are repeated",
            )


def shares(target: Target, classes: int) -> np.ndarray:
    """The share of each class."""
    return np.bincount(target.answers, minlength=classes)[:classes] / len(target.answers)


def balance(case: "Case") -> Iterator[Finding]:
    """Classes that drown: rare in training, asked for in validation."""
    classes = case.target.classes
    train = shares(case.target, classes)
    present = train[train > 0]
    if len(present) < 2 or present.max() < bound("imbalance") * present.min():
        return
    told = (
        f"the rarest class has {present.min():.1%} of the training rows, the most frequent "
        f"{present.max():.0%}"
    )
    severity, healthy = "note", "within a factor of 10"
    if drowned(case, int(np.flatnonzero(train == present.min())[0])):
        severity, told = "fault", f"{told}; the network never answers it"
    if case.subject.valid is not None:
        target = target_of(np.asarray(case.subject.valid[1]), case.kind)
        valid = shares(target, max(classes, target.classes))[:classes]
        asked = valid[train == present.min()].max()
        outcome = case.validated
        far = outcome is not None and outcome.skill < bound("failed") * max(case.trained.skill, 0)
        if far and asked > bound("imbalance") / 2 * present.min():
            severity, told = "fault", f"{told}; of the validation rows it has {asked:.0%}"
    yield Finding(
        "class_imbalance",
        severity,
        "targets",
        told,
        measured=f"a factor of {present.max() / present.min():.0f}",
        healthy=healthy,
        remedy="weigh each row by 1 / share of its class, or draw classes evenly",
    )


def splits(case: "Case") -> Iterator[Finding]:
    """Training against validation and test: the same rows, other classes, another scale."""
    subject = case.subject
    for name, part in (("validation", subject.valid), ("test", subject.test)):
        if part is not None:
            rows = np.asarray(part[0]), np.asarray(part[1])
            yield from repeated(case, name, rows[0])
            yield from shifted(case, name, rows)
            yield from other_classes(case, name, rows)


def repeated(case: "Case", name: str, x: np.ndarray) -> Iterator[Finding]:
    """Rows of a split that are training rows."""
    known = {row.tobytes() for row in by_row(case.subject.train[0])}
    same = np.mean([row.tobytes() in known for row in by_row(x)])
    if same > bound("leak") and len(known) > len(case.subject.train[0]) // 2:
        yield Finding(
            "repeated_rows",
            "note",
            f"{name} rows",
            f"{same:.0%} of the {name} rows are training rows: {name} measures memory",
            measured=f"{same:.0%}",
            healthy=f"below {bound('leak'):.0%}",
            remedy="split before rows are repeated or drawn",
        )


def drowned(case: "Case", rarest: int) -> bool:
    """Whether the network never answers the rarest class, and is told to be bad for it."""
    best = case.reference.best[1]
    bad = case.trained.skill < bound("failed") * best and best > bound("signal")
    return bad and case.answers is not None and rarest in case.never_answered


def by_row(x: np.ndarray) -> np.ndarray:
    """Flat rows, each in one piece of memory."""
    return np.ascontiguousarray(np.asarray(x).reshape(len(x), -1))


def spoils(case: "Case", name: str, rows: Rows) -> bool:
    """Whether the network is far worse on a split than on its training rows."""
    outcome = case.validated if name == "validation" else case.on(rows)
    known = case.trained.skill > bound("signal")
    return known and outcome is not None and outcome.skill < bound("failed") * case.trained.skill


def shifted(case: "Case", name: str, rows: Rows) -> Iterator[Finding]:
    """A split that is scaled otherwise than the training rows."""
    x, other = np.asarray(case.subject.train[0]), rows[0]
    if x.shape[1:] != other.shape[1:] or len(other) < FEW_ROWS:
        return
    train, held = scales(x), scales(other)
    deviation = max(float(np.sqrt(np.mean(train.deviation**2))), 1e-30)
    shift = float(np.sqrt(np.mean((train.mean - held.mean) ** 2))) / deviation
    ratio = float(np.sqrt(np.mean(held.deviation**2))) / deviation
    column = int(np.abs(train.mean - held.mean).argmax())
    flat = x.reshape(len(x), -1)[:, column]
    if shift > 0.2 and (np.diff(flat) * np.sign(flat[-1] - flat[0]) >= 0).all():
        yield Finding(
            "unshuffled_split",
            "fault" if spoils(case, name, rows) else "note",
            f"column {column} of the inputs",
            f"training rows are sorted by column {column}, and {name} rows are of another region",
            measured=f"mean {train.mean[column]:.3g} and {held.mean[column]:.3g}",
            healthy="the same",
            remedy="order = rng.permutation(len(x)) before the split",
        )
    elif shift > 1 or not 1 / 3 < ratio < 3:
        yield Finding(
            "inputs_not_normalized",
            "fault" if spoils(case, name, rows) else "note",
            f"{name} inputs",
            f"{name} rows are scaled otherwise than training rows",
            measured=f"mean {shift:.2g} deviations away, deviation {ratio:.2g} times as large",
            healthy="the mean and deviation of the training rows, for both",
            remedy="xv = (xv - x_train.mean(0)) / x_train.std(0)",
        )


def other_classes(case: "Case", name: str, rows: Rows) -> Iterator[Finding]:
    """A split whose classes are others than those of the training rows."""
    if case.kind not in ("binary", "multiclass"):
        return
    target = target_of(rows[1], case.kind)
    classes = max(target.classes, case.target.classes)
    train, held = shares(case.target, classes), shares(target, classes)
    unseen = float(held[train == 0].sum())
    distance = float(np.abs(train - held).sum() / 2)
    # Where training itself is skewed, the skew is the finding, not the split.
    skewed = train.max() > bound("imbalance") * train[train > 0].min()
    if unseen > bound("unseen") or (distance > bound("histograms") and not skewed):
        yield Finding(
            "unshuffled_split",
            "fault" if spoils(case, name, rows) else "note",
            f"{name} targets",
            f"training and {name} rows hold different classes"
            + (f": {unseen:.0%} of the {name} rows are of classes never trained" if unseen else ""),
            measured=f"{distance:.0%} of the rows would have to change their class",
            healthy="below 20 %",
            remedy="order = rng.permutation(len(x)) before the split",
        )


def sorted_rows(case: "Case") -> Iterator[Finding]:
    """Rows in the order of their class, never shuffled: every batch unlearns the one before."""
    if case.kind not in ("binary", "multiclass") or len(case.target.answers) < FEW_ROWS:
        return
    changes = np.mean(case.target.answers[1:] != case.target.answers[:-1])
    expected = 1 - (shares(case.target, case.target.classes) ** 2).sum()
    if changes < bound("sorted") * expected and case.subject.batch_size < len(case.target.answers):
        bad = case.trained.skill < bound("failed") * max(case.reference.best[1], 0)
        yield Finding(
            "unshuffled_split",
            "fault" if bad else "note",
            "training rows",
            "the rows come class by class and are never shuffled",
            measured=f"the class changes after {changes:.1%} of the rows",
            healthy=f"about {expected:.0%}",
            remedy="shuffle=True",
        )
