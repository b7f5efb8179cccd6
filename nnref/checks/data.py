"""A look at data before anything is trained: what neighbours and simple models say of the rows."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np

from nnref.data import Dataset, DataWarning, Split
from nnref.data.encoding import MOST
from nnref.data.prepare import Parts, column_name, first_five, row_hashes
from nnref.diagnosis.data.edits import cures, reordered
from nnref.diagnosis.data.images import COLORS, IMAGES, is_image, likeness
from nnref.diagnosis.data.leaks import interleaved, neighbours
from nnref.diagnosis.data.references import FEW_ROWS
from nnref.diagnosis.data.splits import Numbers, Splits, own_statistics, told_apart
from nnref.diagnosis.pipeline.meaning import slip_of
from nnref.diagnosis.thresholds import bound

ROWS = 2000  # training rows that are looked at
COLUMNS = 200
NEAR = 10  # neighbours of a row
ALONE = 0.98  # skill of one column beyond which it tells the target too well
APART = 0.5  # deviations between the means of two splits, of a column that is named
NOISE = 0.01  # share of labels that are doubtful where classes only touch each other
SHOWN = 10  # rows that are named


class Doubt(NamedTuple):
    """Something about the rows that makes a figure mean less than it seems to.

    Attributes:
        what: in a few words.
        sentence: what was seen, with counts.
        rows: the first rows of it, by their numbers in the file, from 1, or by files of images.
        remedy: what to do.
    """

    what: str
    sentence: str
    rows: tuple[int | str, ...]
    remedy: str


class Look(NamedTuple):
    """What a look at data has found.

    Attributes:
        dataset: the data.
        warnings: what reading them has told.
        doubts: what neighbours and simple models tell.
        numbers: of each other split, the skill of simple models inside training, from training to
            it, and inside it; None where too few rows, or nothing to learn, allow none.
    """

    dataset: Dataset
    warnings: tuple[str, ...]
    doubts: tuple[Doubt, ...]
    numbers: dict[str, Numbers | None]


def look(dataset: Dataset, warnings: tuple[str, ...] = ()) -> Look:
    """Look at a data set; `warnings` are those that reading it has given."""
    given, dataset = dataset, in_columns(dataset)
    doubts = [*doubtful_labels(dataset), *telling_columns(dataset, warnings), *conflicts(dataset)]
    doubts += [*misread(dataset), *slipped(dataset)]
    numbers: dict[str, Numbers | None] = {}
    x, y = dataset.train
    for name, held in dataset.splits.items():
        if name == "train":
            continue
        doubts += [*copies(dataset, name), *near_rows(dataset, name)]
        splits = Splits((x, y), (held.x, held.y), kind_of(dataset))
        numbers[name] = splits.numbers
        doubts += [*own_scale(dataset, splits, name), *meaning(splits, name)]
        doubts += drift(dataset, splits, name)
    warnings = tuple(each for each in warnings if not told_again(each, doubts))
    return Look(given, warnings, tuple(doubts), numbers)


def told_again(warning: str, doubts: list[Doubt]) -> bool:
    """Whether a doubt tells the same as a warning, and more."""
    if "scaled by their own statistics" in warning:
        return any(doubt.what == "own statistics" for doubt in doubts)
    equal = [doubt.sentence for doubt in doubts if doubt.what == "equal rows"]
    rows, also, _ = warning.partition(" are also in train")
    return bool(also) and any(f"of {rows.split()[-1]} are also" in sentence for sentence in equal)


def in_columns(dataset: Dataset) -> Dataset:
    """A data set with columns of 0 and 1 in the place of numbers of categories.

    Neighbours and simple models take a number for a size. The most frequent categories have a
    column each.
    """
    numbered = {} if dataset.encoder is None else dataset.encoder.numbered
    if not numbered:
        return dataset
    tops, names = [], []
    for place, (column, encoder) in enumerate(numbered.items()):
        known = [*encoder.categories_[0].tolist(), "others"]
        counts = np.bincount(dataset.train.x[:, place].astype(int), minlength=len(known))
        tops.append(np.argsort(-counts, kind="stable")[:MOST])
        names += [f"{column}={known[number]}" for number in tops[-1]]

    def flat(split: Split | None) -> Split | None:
        if split is None:
            return None
        made = [split.x[:, place, None] == top for place, top in enumerate(tops)]
        return Split(np.concatenate([*made, split.x[:, len(tops) :]], 1, dtype=np.float32), split.y)

    splits = {part: flat(getattr(dataset, part)) for part in Parts._fields}
    columns = (*names, *dataset.columns[len(tops) :])
    with catch_warnings():  # they were told of the data as they are
        simplefilter("ignore", DataWarning)
        return replace(dataset, **splits, columns=columns, inputs=None, scaling=None)


def kind_of(dataset: Dataset) -> str:
    """The kind of task, as the diagnosis calls it."""
    if not dataset.classes:
        return "regression"
    if dataset.train.y.ndim > 1:
        return "places"
    return "binary" if len(dataset.classes) == 2 else "multiclass"


def rows_in_file(dataset: Dataset, split: str, numbers: Any) -> tuple[int | str, ...]:
    """The first of some rows of a split, by their numbers in the file; in the split without one.

    Images of a folder have their names.
    """
    places = dataset.places.get(split)
    rows = (int(n) + 1 if places is None else int(places[n]) for n in numbers[:SHOWN])
    return tuple(dataset.files[row - 1] if dataset.files else row for row in rows)


def sample(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of some training rows, their inputs in columns, and their targets."""
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset.train.x))[:ROWS])
    x, y = dataset.train.x[rows], dataset.train.y[rows]
    return rows, x.reshape(len(x), -1).astype(np.float64), y


def named(dataset: Dataset, column: int) -> str:
    """A column of the flat inputs by its name."""
    return f'"{column_name(column, dataset.train.x.shape[1:], dataset.columns)}"'


# --- the training rows ----------------------------------------------------------------------------


def doubtful_labels(dataset: Dataset) -> Iterator[Doubt]:
    """Labels that nearly all of the nearest rows speak against, where these are right as a rule.

    As a rule is more than the most frequent class is right by itself: one of many speaks for all.
    """
    from sklearn.neighbors import NearestNeighbors

    if not dataset.classes or dataset.train.y.ndim > 1 or len(dataset.train.x) < 5 * FEW_ROWS:
        return
    rows, x, y = sample(dataset)
    order = NearestNeighbors(n_neighbors=NEAR + 1).fit(x).kneighbors(x, return_distance=False)
    around = y[order[:, 1:]]
    votes = np.stack([(around == k).sum(1) for k in range(len(dataset.classes))], axis=1)
    usual = (votes.argmax(1) == y).mean()
    if len(np.unique(x, axis=0)) < bound("copies") * len(x):
        return  # of a few different rows the nearest are the same one, under other labels
    bad = np.flatnonzero((votes.max(1) >= 0.9 * NEAR) & (votes.argmax(1) != y))
    others = 1 - np.bincount(y).max() / len(y)
    if 1 - usual < min(0.2, others / 2) and len(bad) > NOISE * len(x):
        first = bad[0]
        yield Doubt(
            "label noise",
            f"{len(bad)} of {len(x)} training rows have another class than nearly all of the "
            f"{NEAR} rows around them, which are right for {usual:.0%} of the rows; the first is "
            f"{dataset.classes[y[first]]} among {dataset.classes[votes[first].argmax()]}",
            rows_in_file(dataset, "train", rows[bad]),
            "look at these rows; correct the labels that are wrong",
        )


def telling_columns(dataset: Dataset, warnings: tuple[str, ...]) -> Iterator[Doubt]:
    """Columns by each of which alone a small tree tells the target, if no warning has named them.

    Of a table those of the file.
    """
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    _, x, y = sample(dataset)
    if y[:1].size != 1 or not 1 < x.shape[1] <= COLUMNS or len(x) < 5 * FEW_ROWS:
        return
    y = y.reshape(len(y))
    classes = bool(dataset.classes)
    tree = DecisionTreeClassifier if classes else DecisionTreeRegressor
    constant = np.bincount(y).max() / len(y) if classes else 0.0
    if classes and np.bincount(y)[np.unique(y)].min() < 3:
        return
    found = []
    for column in range(x.shape[1]):
        model = tree(max_depth=4 if classes else 6, random_state=0)
        predicted = cross_val_predict(model, x[:, column : column + 1], y, cv=3)
        wrong = predicted != y if classes else (predicted - y) ** 2 / y.var()
        error = float(np.mean(wrong))
        if 1 - error / (1 - constant) > ALONE:
            found.append(named(dataset, column))
    if dataset.encoder is not None:
        sources = [dataset.encoder.source_of(name[1:-1]) for name in found]
        found = [f'"{name}"' for name in dict.fromkeys(sources)]
    found = [name for name in found if not any(f"{name} is " in each for each in warnings)]
    if found:
        written = f'write "drop": [{", ".join(found[:5])}]'
        if dataset.encoder is None:
            written = f"leave {first_five(found)} out of the inputs"
        yield Doubt(
            "tells too much",
            f"{first_five(found)} alone {'tells' if len(found) == 1 else 'tell'} the target to "
            f"{ALONE:.0%} or better in {len(x)} training rows",
            (),
            f"if that is not known before the target is, {written}",
        )


def conflicts(dataset: Dataset) -> Iterator[Doubt]:
    """Rows with the same inputs and different classes."""
    if not dataset.classes or dataset.train.y.ndim > 1:
        return
    rows, x, y = sample(dataset)
    _, which = np.unique(x, axis=0, return_inverse=True)
    which = which.reshape(-1)
    known = np.zeros((which.max() + 1, len(dataset.classes)), bool)
    known[which, y] = True
    bad = np.flatnonzero(known.sum(1)[which] > 1)
    if len(bad):
        yield Doubt(
            "conflicts",
            f"{len(bad)} of {len(x)} training rows have the same inputs as one of another class: "
            "no network tells them apart",
            rows_in_file(dataset, "train", rows[bad]),
            "add the column that tells them apart, or take the share for what cannot be learned",
        )


def misread(dataset: Dataset) -> Iterator[Doubt]:
    """Images whose channels come first, or whose pixels are rather neighbours in another order."""
    x = dataset.train.x[:IMAGES]
    if not is_image(x):
        return
    shape, alike = " x ".join(map(str, x.shape[1:])), likeness(x)
    if x.shape[1] <= COLORS < x.shape[3] and alike > bound("neighbours alike"):
        yield Doubt(
            "channels first",
            f"images of {shape} have their channels first: their neighbours on the last two axes "
            f"are alike ({alike:.2f}); networks here take height, width, channels",
            (),
            "x = np.moveaxis(x, 1, -1) before the arrays are saved",
        )
        return
    orders = [(likeness(other), remedy) for _, remedy, other in reordered(x) if "reshape" in remedy]
    best, remedy = max(orders, default=(0.0, ""))
    better = best > max(alike + bound("read better"), bound("neighbours alike"))
    striped = alike <= -bound("read better")  # of a pixel: these are alike in no order
    if better and not striped:
        yield Doubt(
            "misread images",
            f"neighbouring pixels of these images of {shape} are less alike ({alike:.2f}) than "
            f"where the same numbers are read in another order ({best:.2f})",
            (),
            f"{remedy.replace('xv', 'x')} before the arrays are saved",
        )


def slipped(dataset: Dataset) -> Iterator[Doubt]:
    """Targets that stand some rows before or after their inputs, in the order of the file."""
    kind, splits = kind_of(dataset), dataset.splits
    if set(dataset.places) != set(splits) or kind == "places" or dataset.files:
        return
    order = np.argsort(np.concatenate([dataset.places[name] for name in splits]))
    x, y = (np.concatenate([split[part] for split in splits.values()])[order] for part in (0, 1))
    slip = slip_of(x, y, kind) if len(x) >= bound("rows for no signal") else None
    if slip is not None:
        here, lag, skill = slip
        yield Doubt(
            "rows out of step",
            f"the targets have slipped: row i stands beside the target of row i {-lag:+d}; simple "
            f"models find {max(here, 0):.2f} of them, and {skill:.2f} once they are moved back",
            (),
            "put each target beside its own inputs; sort, filter and shuffle both by one index",
        )


# --- two splits -----------------------------------------------------------------------------------


def copies(dataset: Dataset, name: str) -> Iterator[Doubt]:
    """Rows of a split, with their targets, that stand in training, too."""
    trained = {pair_of(dataset.train, row): row for row in range(len(dataset.train.x))}
    split = dataset.splits[name]
    pairs = [(row, trained.get(pair_of(split, row))) for row in range(len(split.x))]
    same = [(row, twin) for row, twin in pairs if twin is not None]
    # Tables of a few values repeat some rows, and that is no fault of the split.
    different = len(np.unique(row_hashes(dataset.train.x)))
    if same and different > bound("copies") * len(dataset.train.x):
        first, twin = same[0]
        theirs = rows_in_file(dataset, "train", [twin])[0]
        ours = rows_in_file(dataset, name, [first])[0]
        yield Doubt(
            "equal rows",
            f"{len(same)} of {len(split.x)} rows of {name} are also in train, targets and all: row "
            f"{ours} is row {theirs}",
            rows_in_file(dataset, name, [row for row, _ in same]),
            "leave out the twins before the rows are split, or split by what they have in common",
        )


def pair_of(split: Any, row: int) -> bytes:
    """The bytes of a row and of its target."""
    return (split.x[row] + 0).tobytes() + (split.y[row] + 0).tobytes()


def near_rows(dataset: Dataset, name: str) -> Iterator[Doubt]:
    """Rows between training rows, or hardly beside one; and windows of a series that overlap."""
    train, held = dataset.train.x, dataset.splits[name].x
    around = neighbours(train, held)
    if around is not None:
        for which, words, remedy in (
            (around.between, "lie on the line between two training rows", "over-sample"),
            (around.dust, "are training rows with a trace of noise", "augment"),
        ):
            if which.mean() > bound("leak"):
                yield Doubt(
                    "interpolated rows" if remedy == "over-sample" else "near copies",
                    f"{which.sum()} of {len(which)} rows of {name} {words}",
                    rows_in_file(dataset, name, around.held[which]),
                    f"{remedy} after the split, and only the training rows",
                )
    share = interleaved(*(of_the_file(dataset, rows) for rows in (train, held)))
    if share > bound("leak"):
        yield Doubt(
            "overlapping windows",
            f"{share:.0%} of the rows of {name} are windows that stand between training windows",
            (),
            "cut the series in time before windows are made",
        )


def of_the_file(dataset: Dataset, x: np.ndarray) -> np.ndarray:
    """Inputs as the file has them, to five digits of the largest column.

    Columns that are standardized one by one hide that a window is another one, a step later.
    """
    if dataset.scaling is None:
        return x
    mean, deviation = (np.asarray(part, np.float64) for part in dataset.scaling)
    unit = 1e-5 * (np.abs(mean) + deviation).max()
    return np.rint((x * deviation + mean) / unit) + 0.0  # no negative zero, which has other bits


def own_scale(dataset: Dataset, splits: Splits, name: str) -> Iterator[Doubt]:
    """A split that has mean 0 and deviation 1 by itself, as training has."""
    both = (dataset.train.x, dataset.splits[name].x)
    if all(map(own_statistics, both)):
        numbers = f"; {in_words(splits.numbers, name)}" if splits.numbers else ""
        yield Doubt(
            "own statistics",
            f"all {len(both[0])} rows of train have mean 0 and deviation 1, and so have the "
            f"{len(both[1])} rows of {name} by themselves{numbers}",
            (),
            f"scale {name} by the mean and deviation of train",
        )


def meaning(splits: Splits, name: str) -> Iterator[Doubt]:
    """A split that simple models learn by itself, and that those of training do not know."""
    numbers = splits.numbers
    if numbers is None or numbers.carries is not False:
        return
    goal = max(numbers.across, 0) + bound("cure") * (numbers.inside - max(numbers.across, 0))
    edits = [edit for edit in cures(splits) if edit.skill > goal]
    differs = f": {edits[0].differs}" if edits else ""
    if not edits and not numbers.both:
        return
    yield Doubt(
        "another meaning",
        f"train and {name} do not mean the same{differs}; {in_words(numbers, name)}",
        (),
        edits[0].remedy if edits else "hold the way in which both were made against each other",
    )


def in_words(numbers: Numbers, name: str) -> str:
    """The three numbers."""
    return (
        f"simple models reach {numbers.inside:z.2f} inside training, {numbers.across:z.2f} from "
        f"training to {name}, and {numbers.within:z.2f} inside {name}"
    )


def drift(dataset: Dataset, splits: Splits, name: str) -> Iterator[Doubt]:
    """Inputs by which a linear model tells the splits apart."""
    if not splits.comparable or not splits.shaped:
        return
    skill, columns = told_apart(splits)
    if skill < bound("told apart"):
        return
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in (splits.x, splits.held_x)]
    moved = []
    for column in columns[:5]:
        ours, theirs = (part[:, column] for part in flat)
        shift = float((theirs.mean() - ours.mean()) / (ours.std() or 1))
        if abs(shift) > APART:
            moved.append(f"{named(dataset, int(column))} by {shift:+.1f} deviations")
    yield Doubt(
        "drift",
        f"a linear model tells the inputs of {name} from those of train with a skill of "
        f"{skill:.2f}" + (f"; their means differ most in {', '.join(moved)}" if moved else ""),
        (),
        "expect less of new rows than of these; leave out what only tells when a row was taken",
    )
