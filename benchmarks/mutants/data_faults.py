"""Faults of rows: what an author does to inputs and targets before training."""

from dataclasses import replace

import numpy as np

from benchmarks.mutants.planting import (
    REAL_INPUTS,
    Fault,
    classes,
    labels,
    one_target,
    with_rows,
)

# Numbers that are none


def missing_cells(setup, draw):
    if setup.data.form not in REAL_INPUTS:
        return None

    def change(x, y):
        return np.where(draw.random(x.shape) < 0.002, np.nan, x).astype(np.float32), y

    return with_rows(setup, change, "train", "valid")


def logarithm_of_zero(setup, draw):
    """Targets on a logarithmic scale, one of which was zero."""
    if setup.data.kind != "regression" or setup.data.form == "codes":
        return None

    def change(x, y):
        y = y.copy()
        y[int(draw.integers(len(y))), 0] = -np.inf
        return x, y

    return with_rows(setup, change, "train")


# Labels


def shuffled_labels(setup, draw):
    if setup.data.form in ("codes", "text"):
        return None
    return with_rows(setup, lambda x, y: (x, y[draw.permutation(len(y))]), "train", "valid")


def shifted_labels(setup, draw):
    """The table of targets has a line too many at its top."""
    if setup.data.form in ("codes", "text"):
        return None
    return with_rows(setup, lambda x, y: (x, np.roll(y, 1, axis=0)), "train", "valid")


def inputs_sorted_alone(setup, draw):
    """Inputs are sorted by a column, targets are not."""
    if setup.data.form != "table":
        return None
    column = int(setup.data.train[0].std(0).argmax())
    return with_rows(setup, lambda x, y: (x[np.argsort(x[:, column])], y), "train", "valid")


def another_label_map(setup, draw):
    """Each split numbers its classes by itself."""
    if not classes(setup):
        return None
    count = setup.data.outputs
    names = draw.permutation(count)
    names = np.roll(np.arange(count), 1) if (names == np.arange(count)).all() else names

    def change(x, y):
        new = names[labels(y)]
        return x, (np.eye(count)[new] if y.ndim == 2 else new).astype(y.dtype)

    return with_rows(setup, change, "valid", "fresh")


def flipped_in_validation(setup, draw):
    """Zero and one change their meaning between two files."""
    if setup.data.kind != "binary":
        return None
    return with_rows(setup, lambda x, y: (x, 1 - y), "valid")


def wrong_fill(setup, draw):
    """A join that found no partner for most rows, whose label became the first one."""
    if not classes(setup) and setup.data.kind != "binary":
        return None

    def change(x, y):
        y = y.copy()
        y[draw.random(len(y)) < 0.9] = np.eye(y.shape[1])[0] * classes(setup) if y.ndim == 2 else 0
        return x, y

    return with_rows(setup, change, "train")


# Splits


def sorted_by_class(setup, draw):
    if not classes(setup):
        return None
    rows = len(setup.data.train[0])
    x, y = (np.concatenate(pair) for pair in zip(setup.data.train, setup.data.valid, strict=True))
    order = np.argsort(labels(y), kind="stable")
    x, y = x[order], y[order]
    data = replace(setup.data, train=(x[:rows], y[:rows]), valid=(x[rows:], y[rows:]))
    return replace(setup, data=data)


def sorted_by_target(setup, draw):
    if setup.data.kind != "regression" or not one_target(setup) or setup.data.form == "ratings":
        return None
    rows = len(setup.data.train[0])
    x, y = (np.concatenate(pair) for pair in zip(setup.data.train, setup.data.valid, strict=True))
    order = np.argsort(y[:, 0])
    x, y = x[order], y[order]
    data = replace(setup.data, train=(x[:rows], y[:rows]), valid=(x[rows:], y[rows:]))
    return replace(setup, data=data)


def a_class_left_for_validation(setup, draw):
    """Half of the classes come late in the file."""
    if not classes(setup):
        return None
    late = setup.data.outputs // 2
    late_rows = with_rows(setup, lambda x, y: (x[labels(y) >= late], y[labels(y) >= late]), "valid")
    return with_rows(late_rows, lambda x, y: (x[labels(y) < late], y[labels(y) < late]), "train")


def rare_classes(setup, draw):
    if not classes(setup) and setup.data.kind != "binary":
        return None

    def change(x, y):
        keep = (labels(y) == 0) | (draw.random(len(y)) < 0.02)
        return x[keep], y[keep]

    rare = with_rows(setup, change, "train", "valid")
    # As many steps as before: fewer rows must not be what keeps it from learning.
    more = max(1, len(setup.data.train[0]) // len(rare.data.train[0]))
    return replace(rare, epochs=setup.epochs * more)


def copies(setup, draw):
    """Few rows, multiplied before they were split."""
    if setup.data.form in ("codes", "text", "ratings"):
        return None
    few = slice(0, int(draw.integers(25, 45)))
    x, y = setup.data.train[0][few], setup.data.train[1][few]

    def change(before, _):
        rows = draw.integers(0, len(x), len(before))
        return x[rows], y[rows]

    return with_rows(setup, change, "train", "valid")


def few_rows(setup, draw):
    """Far too few rows for the network, and a long training."""
    if setup.data.form in ("codes", "text"):
        return None
    few = int(draw.integers(16, 33))
    small = with_rows(setup, lambda x, y: (x[:few], y[:few]), "train")
    factor = len(setup.data.train[0]) // few
    return replace(small, epochs=setup.epochs * max(1, factor // 2), batch_size=16)


# Inputs


def raw_units(setup, draw):
    if setup.data.form not in REAL_INPUTS:
        return None
    scale, offset = 10 ** draw.uniform(2, 4), 10 ** draw.uniform(2, 4)
    return with_rows(setup, lambda x, y: ((x * scale + offset).astype(np.float32), y))


def pixels_to_255(setup, draw):
    if setup.data.form != "image":
        return None
    return with_rows(setup, lambda x, y: (x * np.float32(255), y))


def one_huge_column(setup, draw):
    """A time stamp or an income beside columns of unit scale."""
    if setup.data.form not in ("table", "sequence"):
        return None
    scale = 10 ** draw.uniform(4, 6)

    def change(x, y):
        x = x.copy()
        x[..., 0] = (x[..., 0] + 3) * scale
        return x, y

    return with_rows(setup, change)


def validation_raw(setup, draw):
    """The scaler was applied to the training rows alone."""
    if setup.data.form not in REAL_INPUTS:
        return None
    scale, offset = draw.uniform(8, 40), draw.uniform(-20, 20)
    return with_rows(setup, lambda x, y: ((x * scale + offset).astype(np.float32), y), "valid")


def own_statistics(setup, draw):
    """Validation rows come from one side of the data and are normalized by themselves."""
    if setup.data.form != "table":
        return None
    bounds = (
        np.quantile(setup.data.valid[0][:, 0], [0.5]),
        np.quantile(setup.data.valid[0][:, 1], [0.5]),
    )

    def side(x, y):
        keep = (x[:, 0] > bounds[0]) & (x[:, 1] > bounds[1])
        return x[keep], y[keep]

    healthy = with_rows(setup, side, "valid")
    rows = healthy.data.valid[1]
    if len(rows) < 60 or len(np.unique(labels(rows) if classes(setup) else rows)) < 2:
        return None

    def change(x, y):
        return ((x - x.mean(0)) / (x.std(0) + 1e-6)).astype(np.float32), y

    return healthy, with_rows(healthy, change, "valid")


def divided_again(setup, draw):
    if setup.data.form not in ("image", "table", "sequence"):
        return None
    scale = np.float32(255 if setup.data.form == "image" else 10 ** draw.uniform(2.5, 4))
    return with_rows(setup, lambda x, y: (x / scale, y))


def validation_divided_again(setup, draw):
    if setup.data.form not in REAL_INPUTS:
        return None
    return with_rows(setup, lambda x, y: (x / np.float32(255), y), "valid")


def cast_to_integers(setup, draw):
    """Values below one became zero."""
    if setup.data.form not in REAL_INPUTS:
        return None
    largest = max(np.abs(rows[0]).max() for rows in (setup.data.train, setup.data.valid)) * 1.01
    return with_rows(setup, lambda x, y: (np.trunc(x / largest).astype(np.float32), y))


def wrong_crop(setup, draw):
    """A corner is cut out of each image, and the rest is black."""
    if setup.data.form != "image":
        return None

    def change(x, y):
        corner = np.zeros_like(x)
        corner[:, :2, :2] = x[:, :2, :2]
        return corner, y

    return with_rows(setup, change)


def inputs_of_another_file(setup, draw):
    """Noise of the same scale stands where the inputs should."""
    if setup.data.form not in REAL_INPUTS:
        return None
    return with_rows(setup, lambda x, y: (draw.normal(size=x.shape).astype(np.float32), y))


def same_text(setup, draw):
    """Every row holds the tokens of the first one."""
    if setup.data.form != "tokens":
        return None
    first = setup.data.train[0][:1]
    return with_rows(setup, lambda x, y: (np.repeat(first, len(x), 0), y))


# Targets


def huge_targets(setup, draw):
    if setup.data.kind != "regression" or setup.data.form == "codes":
        return None
    scale, offset = 10 ** draw.uniform(3, 6), draw.uniform(1, 4)
    return with_rows(setup, lambda x, y: (x, ((y + offset) * scale).astype(np.float32)))


def one_huge_target(setup, draw):
    if setup.data.kind != "regression" or setup.data.outputs < 2 or setup.data.form == "codes":
        return None
    scale = np.ones(setup.data.outputs, np.float32)
    scale[0] = 10 ** draw.uniform(3, 5)
    return with_rows(setup, lambda x, y: (x, y * scale))


def targets_scaled_in_one_split(setup, draw):
    if setup.data.kind != "regression" or setup.data.form == "codes":
        return None
    scale, offset = draw.uniform(3, 30), draw.uniform(-20, 20)
    return with_rows(setup, lambda x, y: (x, (y * scale + offset).astype(np.float32)), "valid")


# Targets among the inputs


def as_column(x, column):
    """A further column of a table, or a further value of each step."""
    column = column.astype(np.float32).reshape(len(x), *[1] * (x.ndim - 1))
    return np.concatenate([x, np.broadcast_to(column, (*x.shape[:-1], 1))], -1)


def hint(y):
    return labels(y) if y.ndim == 1 or y.shape[1] > 1 and (y.sum(1) == 1).all() else y[:, 0]


def leaks(setup):
    return (
        setup.data.form in ("table", "sequence")
        and setup.data.kind != "multilabel"
        and (classes(setup) or setup.data.outputs == 1)
    )


def leak_in_training(setup, draw):
    """A column that is filled in only once the outcome is known."""
    if not leaks(setup):
        return None

    def empty(x, y):
        return as_column(x, np.zeros(len(x))), y

    healthy = with_rows(setup, empty)
    return healthy, with_rows(
        setup_with(setup, healthy), lambda x, y: (as_column(x, hint(y)), y), "train"
    )


def setup_with(setup, healthy):
    """Validation and fresh rows of the healthy twin, training rows as they were."""
    return replace(setup, data=replace(healthy.data, train=setup.data.train))


def leak_in_both(setup, draw):
    """The same column in the file that both splits are from; in use it is empty."""
    if not leaks(setup):
        return None
    healthy = with_rows(setup, lambda x, y: (as_column(x, np.zeros(len(x))), y))
    known = with_rows(setup, lambda x, y: (as_column(x, hint(y) * 2.0), y), "train", "valid")
    return healthy, replace(known, data=replace(known.data, fresh=healthy.data.fresh))


def inputs_not_shifted(setup, draw):
    """A text model is shown the symbol that it is to predict."""
    if setup.data.form != "text":
        return None
    return with_rows(setup, lambda x, y: (y, y), "train", "valid")


NOT_THEIRS = ("no_signal", "overfitting")
OTHER_SPLIT = ("inputs_scaled_twice", "inputs_not_normalized", "unshuffled_split")
DATA_FAULTS = [
    Fault("nonfinite_data", "missing_cells", missing_cells, where="inputs"),
    Fault("nonfinite_data", "logarithm_of_zero", logarithm_of_zero, where="targets"),
    Fault("corrupted_labels", "shuffled", shuffled_labels, NOT_THEIRS, "fresh", "targets"),
    Fault("corrupted_labels", "shifted", shifted_labels, NOT_THEIRS, "fresh", "targets"),
    Fault("corrupted_labels", "inputs_sorted", inputs_sorted_alone, NOT_THEIRS, "fresh", "inputs"),
    Fault("corrupted_labels", "wrong_fill", wrong_fill, ("class_imbalance",), "fresh", "targets"),
    Fault(
        "corrupted_labels",
        "label_map",
        another_label_map,
        ("unshuffled_split",),
        "valid",
        "targets",
    ),
    Fault(
        "corrupted_labels",
        "flipped",
        flipped_in_validation,
        ("unshuffled_split",),
        "valid",
        "targets",
    ),
    Fault("unshuffled_split", "sorted_by_class", sorted_by_class, (), "valid", "split"),
    Fault("unshuffled_split", "sorted_by_target", sorted_by_target, (), "valid", "split"),
    Fault("unshuffled_split", "late_classes", a_class_left_for_validation, (), "valid", "split"),
    Fault("class_imbalance", "rare", rare_classes, ("corrupted_labels",), "fresh", "targets"),
    Fault("repeated_rows", "copies", copies, ("overfitting", "leaked_targets"), "fresh", "split"),
    Fault("overfitting", "few_rows", few_rows, (), "valid", "training rows"),
    Fault(
        "inputs_not_normalized", "raw_units", raw_units, ("learning_rate_too_high",), where="inputs"
    ),
    Fault(
        "inputs_not_normalized",
        "pixels",
        pixels_to_255,
        ("learning_rate_too_high",),
        where="inputs",
    ),
    Fault(
        "inputs_not_normalized",
        "one_column",
        one_huge_column,
        ("learning_rate_too_high",),
        where="inputs",
    ),
    Fault(
        "inputs_not_normalized", "validation_raw", validation_raw, OTHER_SPLIT, "valid", "inputs"
    ),
    Fault(
        "inputs_not_normalized", "own_statistics", own_statistics, OTHER_SPLIT, "valid", "inputs"
    ),
    Fault(
        "inputs_scaled_twice",
        "again",
        divided_again,
        ("learning_rate_too_low", "undertrained"),
        where="inputs",
    ),
    Fault(
        "inputs_scaled_twice",
        "validation",
        validation_divided_again,
        OTHER_SPLIT,
        "valid",
        "inputs",
    ),
    Fault("no_signal", "integers", cast_to_integers, ("inputs_scaled_twice",), where="inputs"),
    Fault("no_signal", "crop", wrong_crop, ("inputs_ignored",), where="inputs"),
    Fault(
        "no_signal",
        "other_file",
        inputs_of_another_file,
        ("corrupted_labels", "overfitting"),
        "valid",
        "inputs",
    ),
    Fault("no_signal", "same_text", same_text, (), where="inputs"),
    Fault(
        "targets_not_scaled",
        "huge",
        huge_targets,
        ("learning_rate_too_low", "learning_rate_too_high"),
        where="targets",
    ),
    Fault(
        "targets_not_scaled",
        "one_target",
        one_huge_target,
        ("learning_rate_too_low", "learning_rate_too_high"),
        where="targets",
    ),
    Fault(
        "targets_not_scaled",
        "one_split",
        targets_scaled_in_one_split,
        ("unshuffled_split",),
        "valid",
        "targets",
    ),
    Fault(
        "leaked_targets",
        "in_training",
        leak_in_training,
        ("overfitting", "unshuffled_split"),
        "valid",
        "inputs",
    ),
    Fault("leaked_targets", "in_both", leak_in_both, (), "fresh", "inputs"),
    Fault("leaked_targets", "not_shifted", inputs_not_shifted, (), "fresh", "inputs"),
]
