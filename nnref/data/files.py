"""A user's own data, from a table or from an archive of arrays."""

from pathlib import Path

import numpy as np

from nnref.bounds import Counts, Index, Probability
from nnref.data.archives import read_npz
from nnref.data.doubts import imbalance, odd_values, scaled_by_their_own
from nnref.data.encoding import Dates, Fill
from nnref.data.folders import Colors, read_folder
from nnref.data.labels import (
    DISTANCES,
    Kind,
    balanced_weights,
    refuse_large,
    scale_of_values,
    targets,
    warn_coarse,
    warn_constant,
)
from nnref.data.prepare import (
    Dataset,
    Parts,
    Split,
    averaged,
    mean_and_deviation,
    refuse_nonfinite,
    scaled_by,
    warn,
)
from nnref.data.reading import COLUMNAR, TEXTS
from nnref.data.splitting import Rows, Way, dealt_by_chance, lacking, shares_in_words
from nnref.data.tables import OF_IMAGES, OF_TABLES, FileContents, Keys, Made, table_contents
from nnref.errors import UserError

ENDINGS = (*TEXTS, *(f"{ending}.gz" for ending in TEXTS), *COLUMNAR, ".npz")


def file(
    loss: str = "",
    *,
    path: str,
    target: str = "",
    kind: Kind = "auto",
    valid: Probability = 0.15,
    test: Probability = 0.15,
    standardized: bool = True,
    seed: Index = 0,
    inputs: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    embedding: Index | None = None,
    dates: Dates = "cyclic",
    fill: Fill = "median",
    missing: tuple[str, ...] = (),
    standardized_targets: bool | None = None,
    split: Way = "random",
    by: str = "",
    balance: bool = False,
    resize: Counts = (),
    colors: Colors = "auto",
) -> Dataset:
    """A table of the user's own, a `.npz` of arrays, or a folder of images.

    A `.csv` may be packed as `.csv.gz`. Inputs of an archive have any shape (rows, ...), images
    have four axes. All are standardized by their last axis: column by column, channel by channel.

    Args:
        path: the file, from the folder in which the command runs; or a folder, whose folders are
            classes of images, or train, valid and test with the classes in them.
        target: the column or array to predict; a `.npz` holds its inputs in "x", and may hold its
            splits in "x_valid" and "x_test", or in "x_train" and "x_test". A folder needs none.
        kind: "classes", "values", or "auto": classes where targets are text, truth values or at
            most 20 whole numbers that occur twice on average, else values; under a loss of
            distances more than two numbers are values.
        valid: share of the rows for validation.
        test: share of the rows for the test.
        standardized: shift and scale inputs by the mean and deviation of the training rows.
        seed: of the split.
        inputs: columns to learn from; [] for all but ids, names, and those that are all the same.
        drop: columns to leave out.
        categories: columns of numbers to be read as categories, as text is.
        embedding: length of the vector that stands for each category, trained along, in columns of
            more than 50; null for twice the fourth root of their number, 0 for columns of 0 and 1.
        dates: what a date becomes: days and its place in year, week and day as sine and cosine
            ("cyclic"); days, year, month, weekday, day and hour ("parts"); or days ("number").
        fill: what stands for a missing number, of the training rows: "median", "mean", or "refuse".
        missing: words or numbers that stand for a missing cell, like "-999", beside the usual ones.
        standardized_targets: likewise shift and scale targets; predictions and metrics keep their
            unit. null for yes where inputs are, and the loss is of distances, like squared_error.
        split: "random", by "time" or by "group" of the column `by`, or as "given" in it.
        by: the column to split by.
        balance: weigh the classes in the training loss so that all count alike.
        resize: height and width of images, or one number for both; [] where all have one size.
        colors: of images: "grey", "rgb", or "auto" for grey where all of them are.
    """
    given = locals()
    return loaded(Keys(**{name: given[name] for name in Keys._fields}), loss)


def loaded(keys: Keys, loss: str) -> Dataset:
    """The data set of a file; see `file`."""
    where = Path(keys.path).expanduser()
    contents = contents_of(where, keys)
    y, classes = targets(where.name, contents.y, keys.kind, loss)
    chance = {"valid": keys.valid, "seed": keys.seed, "stratify": bool(classes)}
    own = contents.rows
    if own is None:
        rows = dealt_by_chance(y, test=keys.test, **chance)
    else:
        rows = lacking(own, y, **chance)
    made, places = contents.inputs(rows), contents.places
    del contents  # of a large table there is no room for many copies
    x, columns = made.x, made.columns
    refuse_large(where.name, "inputs", x, columns)
    target_scaling, odd = None, []
    if not classes:
        odd = list(odd_values(keys.target, y[rows["train"]]))  # in the unit of the file
        y, target_scaling = scaled_targets(where.name, y, rows, keys, loss)
    ends = np.cumsum([len(numbers) for numbers in rows.values()])
    each = dict(zip(rows, np.split(x, ends[:-1]), strict=True))
    train, *others = (
        Split(each[name], y[rows[name]]) if name in rows else None for name in Parts._fields
    )
    assert train is not None, "there is a split without training rows"
    if not keys.standardized:
        warn_coarse(where.name, "inputs", x, columns)
    made, x, each = made._replace(x=x[:0]), None, None
    warn_constant(where.name, train.x, columns)
    # Standardized from the numbers of the file: in float32 those of a clock are all alike.
    parts, scaling = scaled_inputs(Parts(train, *others), made, keys.standardized)
    for warning in imbalance(train.y, classes, keys.balance) if classes else odd:
        warn(warning)
    return Dataset(
        *parts,
        classes=classes,
        columns=columns,
        scaling=scaling,
        target_scaling=target_scaling,
        weights=weights_of(train.y, classes) if keys.balance else None,
        inputs=made.encoder and made.encoder.layout,
        encoder=made.encoder,
        table=made.table,
        notes=(
            targets_in_words(classes, target_scaling, keys, loss),
            f"rows: {shares_in_words(rows)}, {split_in_words(own, rows, bool(classes), keys)}",
            *filter(None, [made.note]),
        ),
        files=made.files,
        places={name: places[numbers] for name, numbers in rows.items()},
    )


def contents_of(where: Path, keys: Keys) -> FileContents:
    """The file, by its ending.

    Raises:
        UserError: for a file that is not there or of another kind, and keys that mean nothing.
    """
    if not where.is_dir() and not where.name.lower().endswith(ENDINGS):
        raise UserError(
            f"data.path: {keys.path} ends in none of {', '.join(ENDINGS)}, and is no folder of "
            "images"
        )
    if not where.exists():
        raise UserError(f"data.path: there is no file {where.resolve()}")
    if not where.is_dir():
        refuse_senseless(keys, OF_IMAGES, "images in a folder, and not of a file")
    try:
        if where.is_dir():
            return image_contents(where, keys)
        if where.suffix.lower() == ".npz":
            return array_contents(where, keys)
        return table_contents(where, keys)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise UserError(f"data.path: {keys.path}: {reason}") from None


def refuse_senseless(keys: Keys, names: tuple[str, ...], what: str) -> None:
    """Raise for keys that mean nothing for this file."""
    default = Keys(keys.path)
    senseless = [name for name in names if getattr(keys, name) != getattr(default, name)]
    if senseless:
        raise UserError(f"data.{senseless[0]}: it is about {what}")


def image_contents(where: Path, keys: Keys) -> FileContents:
    """What a folder of images holds: the folder of an image is its class."""
    refuse_senseless(keys, OF_TABLES, "the columns of a table, and not of a folder of images")
    if keys.target:
        raise UserError(
            f'data.target: "{keys.target}" given; the folders of images are the classes, leave it '
            "out"
        )
    x, y, rows, files, note = read_folder(where, keys.resize, keys.colors)

    def inputs(rows_dealt: Rows) -> Made:
        return Made(x[np.concatenate(list(rows_dealt.values()))], files=files, note=note)

    return FileContents(y, rows, inputs, 1 + np.arange(len(y)))


def array_contents(where: Path, keys: Keys) -> FileContents:
    """What an archive holds: the arrays of its splits one after the other."""
    refuse_senseless(keys, OF_TABLES, "the columns of a table, and not of a .npz")
    inputs_name, splits = read_npz(where, keys.target)
    for name, (x, y) in splits.items():
        of = "" if name == "train" else f"{name} of "
        if x.dtype.kind not in "fiub":
            raise UserError(
                f"data.path: the inputs of {of}{keys.path} have dtype {x.dtype}, not numbers"
            )
        if len(x) != len(y):
            raise UserError(
                f"data.path: {of}{keys.path} has {len(x)} rows of inputs and {len(y)} targets"
            )
        if len(x) == 0:
            raise UserError(f"data.path: {of}{keys.path} has no rows")
        shapes = [each.shape[1:] for each in (*splits["train"], x, y)]
        if shapes[:2] != shapes[2:]:
            raise UserError(
                f"data.path: rows of {of}{keys.path} have the shapes {shapes[2]} and {shapes[3]}, "
                f"those of train {shapes[0]} and {shapes[1]}"
            )
    for warning in scaled_by_their_own({name: split.x for name, split in splits.items()}):
        warn(warning)
    if len(splits) == 1:
        (x, y), rows = splits["train"], None
    else:
        x, y = (np.concatenate(part) for part in zip(*splits.values(), strict=True))
        ends = np.cumsum([len(split.x) for split in splits.values()])
        rows = dict(zip(splits, np.split(np.arange(len(x)), ends[:-1]), strict=True))
    x = x[:, None] if x.ndim == 1 else x

    def inputs(rows_dealt: Rows) -> Made:
        # Before any statistics: one NaN would spread over its column and hide where it was.
        refuse_nonfinite(where.name, "inputs", x, ())
        shape = " x ".join(map(str, x.shape[1:]))
        note = f'inputs: the array "{inputs_name}", {shape} numbers a row'
        return Made(x[np.concatenate(list(rows_dealt.values()))], note=note)

    return FileContents(y, rows, inputs, 1 + np.arange(len(y)))


def scaled_targets(
    name: str, y: np.ndarray, rows: Rows, keys: Keys, loss: str
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Values in float32, in deviations from the mean of the training rows where these are asked."""
    usual = keys.standardized and loss in DISTANCES and y.ndim <= 2
    if not (usual if keys.standardized_targets is None else keys.standardized_targets):
        warn_coarse(name, "targets", y, ())
        return y.astype(np.float32), None
    mean, deviation = scale_of_values(y[rows["train"]])
    scaled = (y.reshape(len(y), -1) - mean) / deviation
    return scaled.reshape(y.shape).astype(np.float32), (mean, deviation)


def scaled_inputs(
    parts: Parts, made: Made, standardized: bool
) -> tuple[Parts, tuple[np.ndarray, np.ndarray] | None]:
    """Inputs in float32, standardized where that is asked, and by what."""
    if not standardized:
        every = (part and part._replace(x=part.x.astype(np.float32)) for part in parts)
        return parts._make(every), None
    if made.encoder is None:
        mean, deviation = mean_and_deviation(parts.train.x, averaged(parts.train.x))
    else:  # 0 and 1 of categories and gaps stay what they are
        width = len(made.encoder.scaled)
        mean, deviation = np.zeros((1, width)), np.ones((1, width))
        if places := np.flatnonzero(made.encoder.scaled).tolist():
            numbers = slice(places[0], places[-1] + 1)  # a view of them, not a copy
            moments = mean_and_deviation(parts.train.x[:, numbers], 0)
            mean[:, numbers], deviation[:, numbers] = moments
    return scaled_by(parts, mean, deviation), (mean, deviation)


def weights_of(labels: np.ndarray, classes: tuple[str, ...]) -> tuple[float, ...]:
    """The weights of the classes.

    Raises:
        UserError: for values.
    """
    if not classes:
        raise UserError(
            "data.balance: the targets are values, and classes alone are weighed; leave it out"
        )
    return balanced_weights(labels, len(classes))


def targets_in_words(
    classes: tuple[str, ...],
    target_scaling: tuple[np.ndarray, np.ndarray] | None,
    keys: Keys,
    loss: str,
) -> str:
    """What the targets are taken for."""
    if classes:
        some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        return f"{keys.target or 'folders'}: {len(classes)} classes ({some})"
    if target_scaling is not None:
        mean, deviation = (", ".join(f"{v:.4g}" for v in part[:3]) for part in target_scaling)
        return (
            f"{keys.target}: values; the loss counts deviations of {deviation} from the mean "
            f"{mean}, metrics do not"
        )
    return f"{keys.target}: values" + (", as they are in the file" if loss in DISTANCES else "")


def split_in_words(own: Rows | None, rows: Rows, classes: bool, keys: Keys) -> str:
    """How the rows were split; `own` are the splits that the file or a column decides."""
    chance = "at random" + (", stratified" if classes else "")
    if own is None:
        return chance
    how = f'{keys.split} by "{keys.by}"' if keys.by else "as they are given"
    return how + (f"; valid out of train {chance}" if "valid" in rows.keys() - own.keys() else "")
