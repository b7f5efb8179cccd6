"""Edits of a split that may make it mean what the training rows mean, and what each achieves."""

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

from nnref.diagnosis.data.splits import Splits
from nnref.diagnosis.thresholds import bound

MOST = 1e12  # of a transformed target: what grows beyond was never meant to be
NEAR = 0.2  # of a factor, and of a deviation: within that, a scale is the one that is named
PROFILE = np.linspace(0.02, 0.98, 25)  # quantiles that tell columns apart
MOST_COLUMNS = 400  # of a table whose columns are held against each other


Edited = tuple[str, str, np.ndarray]  # what differs, what to type, the rows so edited


class Edit(NamedTuple):
    """An edit of a split: what differs, what to type, and the skill it leads to.

    `kind` is "labels", "targets", "order" (of numbers in a row) or "scale" (of the inputs).
    """

    kind: str
    differs: str
    remedy: str
    skill: float


def cures(splits: Splits) -> list[Edit]:
    """All edits of the other rows, the best first; among equals in the order in which they stand.

    The models are those of the training rows, untouched: an edit is asked, not fitted. What an edit
    takes from the other rows and their targets, it takes from one half of them for the other half.
    """
    with threadpool_limits(1):  # on a busy machine more of them wait for each other
        tried = list(of_targets(splits)) + (list(of_inputs(splits)) if splits.shaped else [])
    best = max((edit.skill for edit in tried), default=0.0)
    near = [edit for edit in tried if edit.skill > best - bound("tie")]
    return near + sorted(set(tried) - set(near), key=lambda edit: -edit.skill)


# Of the targets


def of_targets(splits: Splits) -> Iterator[Edit]:
    """Classes numbered otherwise; values scaled, transformed, or in columns of another order."""
    predicted = splits.predictions(splits.held_x)
    halves = np.arange(len(predicted)) % 2 == 0, np.arange(len(predicted)) % 2 == 1
    y = splits.wanted(splits.held_target)
    if splits.classes:
        edited = np.empty_like(y)
        for one, other in (halves, halves[::-1]):
            edited[other] = y[other][:, renumbered(predicted[one], y[one])]
        order = renumbered(predicted, y)
        yield Edit(
            "labels",
            numbers_in_words(order),
            f"yv = np.array({order.argsort().tolist()})[yv]",
            splits.skill(splits.errors(predicted, edited), edited),
        )
        return
    yield from scaled_targets(splits, predicted, y)
    if 1 < y.shape[1] == splits.held_target.answers.shape[1]:
        order = matched(predicted, y)
        edited = np.empty_like(y)
        for one, other in (halves, halves[::-1]):
            edited[other] = y[other][:, matched(predicted[one], y[one])]
        yield Edit(
            "targets",
            f"the columns of the targets stand in another order: {order.tolist()}",
            f"yv = yv[:, {order.tolist()}]",
            splits.skill(splits.errors(predicted, edited), edited),
        )


def renumbered(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each class of training, the number that it has in the other rows, which suits best."""
    answers = np.eye(y.shape[1])[predicted.argmax(1)]
    together = answers.T @ y / np.maximum(y.sum(0), 1)
    together[np.diag_indices(len(together))] += 1e-6  # what nothing tells stays where it is
    return linear_sum_assignment(-together)[1]


def numbers_in_words(order: np.ndarray) -> str:
    """Which classes have other numbers."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    pairs = ", ".join(f"{order[k]} means {k}" for k in moved[:6])
    return f"classes are numbered otherwise: {pairs}" + (", ..." if len(moved) > 6 else "")


def matched(predicted: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each column of the answers, the column of the targets that goes along with it."""
    a, b = ((part - part.mean(0)) / (part.std(0) + 1e-30) for part in (predicted, y))
    return linear_sum_assignment(-(a.T @ b))[1]


TRANSFORMS = {"np.log": np.log, "np.log1p": np.log1p, "np.exp": np.exp, "np.expm1": np.expm1}


def scaled_targets(splits: Splits, predicted: np.ndarray, y: np.ndarray) -> Iterator[Edit]:
    """Values of another sign, transformation or scale, the plainest first."""
    train = splits.wanted(splits.target)

    def edit(differs: str, remedy: str, edited: np.ndarray) -> Edit:
        skill = splits.skill(splits.errors(predicted, edited), edited)
        return Edit("targets", f"targets {differs}", f"yv = {remedy}", skill)

    yield edit("have the other sign", "-yv", -y)
    with np.errstate(all="ignore"):
        transformed = {name: transform(y) for name, transform in TRANSFORMS.items()}
        fit = {k: z for k, z in transformed.items() if (np.abs(z) < MOST).all()}
    fit = {k: z for k, z in fit.items() if (np.ptp(z, axis=0) > 0).all()}
    for name, z in fit.items():
        yield edit(f"are transformed: {name} brings them to those of training", f"{name}(yv)", z)
    for name, z in {"": y, **fit}.items():
        for sign in (1, -1) if (y.std(0) > 0).all() else ():
            a = sign * train.std(0) / z.std(0)
            b = train.mean(0) - a * z.mean(0)
            inner = f"{name}(yv)" if name else "yv"
            words = f"{in_short(a)} * {inner} + {in_short(b)}"
            yield edit(f"are of another scale: {words} brings them to it", words, a * z + b)


def in_short(values: np.ndarray) -> str:
    """A number, or the first few of several."""
    flat = np.ravel(values)
    listed = ", ".join(f"{value:.4g}" for value in flat[:4])
    return listed if len(flat) == 1 else f"[{listed}{', ...' if len(flat) > 4 else ''}]"


# Of the inputs


def of_inputs(splits: Splits) -> Iterator[Edit]:
    """The numbers of each row in another order, or scaled otherwise."""
    x, y = splits.held_x, splits.wanted(splits.held_target)

    def edit(kind: str, differs: str, remedy: str, edited: np.ndarray) -> Edit:
        predicted = splits.predictions(edited)
        return Edit(kind, differs, remedy, splits.skill(splits.errors(predicted, y), y))

    for differs, remedy, edited in [*rescaled(splits.x, x), *renumbered_tokens(splits)]:
        yield edit("scale", differs, remedy, edited)
    for differs, remedy, edited in [*reordered(x), *columns_matched(splits)]:
        if not np.array_equal(edited, x):
            yield edit("order", differs, remedy, edited)


SCALES = {  # of images, mostly: what is typed for a factor and an offset
    "xv / 255": (1 / 255, 0.0),
    "xv * 255": (255.0, 0.0),
    "xv / 127.5 - 1": (1 / 127.5, -1.0),
    "(xv + 1) * 127.5": (127.5, 127.5),
    "2 * xv - 1": (2.0, -1.0),
    "(xv + 1) / 2": (0.5, 0.5),
}


def rescaled(train: np.ndarray, x: np.ndarray) -> Iterator[Edited]:
    """One scale for all numbers, another sign, or a scale of each column."""
    train, x = train.astype(float), x.astype(float)
    a = train.std() / max(x.std(), 1e-30)
    b = train.mean() - a * x.mean()
    for code, (factor, offset) in SCALES.items():
        near = abs(np.log(a / factor)) < NEAR and abs(b - offset) < NEAR * train.std()
        if near:
            yield (
                f"all inputs are scaled otherwise: {code} undoes it",
                f"xv = {code}",
                (factor * x + offset),
            )
    words = f"{a:.4g} * xv + {b:.4g}"
    yield f"all inputs are scaled otherwise: {words} undoes it", f"xv = {words}", a * x + b
    middle = train.min() + train.max()
    yield "the inputs have the other sign", "xv = -xv", -x
    yield "dark and bright are exchanged", f"xv = {middle:.4g} - xv", middle - x
    deviation = x.std(0)
    a = np.where(deviation > 0, train.std(0) / np.where(deviation > 0, deviation, 1), 0)
    ratio = np.abs(np.log(np.where(a > 0, a, 1))).reshape(-1)
    yield (
        f"columns of the inputs are scaled otherwise, column {int(ratio.argmax())} most of all",
        "xv = (raw_xv - raw_x_train.mean(0)) / raw_x_train.std(0), and the same for x_train",
        a * (x - x.mean(0)) + train.mean(0),
    )


def renumbered_tokens(splits: Splits) -> Iterator[Edited]:
    """Tokens that are numbered from 0 in one split and from 1 in the other."""
    if splits.held_x.dtype.kind in "iu":
        for step in (1, -1):
            yield (
                f"the numbers of the inputs are {abs(step)} too {'small' if step > 0 else 'large'}",
                f"xv = xv {'+' if step > 0 else '-'} 1",
                splits.held_x.astype(int) + step,
            )


def reordered(x: np.ndarray) -> Iterator[Edited]:
    """Axes mirrored, exchanged, or read by a reshape where a transpose was meant."""
    shape = x.shape[1:]
    for axis, size in enumerate(shape, 1):
        if size > 1:
            word = "columns" if x.ndim == 2 else f"axis {axis}"
            channels = x.ndim == 4 and size == 3
            yield (
                f"{word} of the inputs run backwards" + (" (RGB, BGR)" if channels else ""),
                f"xv = np.flip(xv, {axis})",
                np.flip(x, axis),
            )
    for order in permutations(range(len(shape))) if len(shape) <= 3 else ():
        if order == tuple(range(len(shape))):
            continue
        axes = (0, *(each + 1 for each in order))
        if tuple(shape[each] for each in order) == shape:
            yield "axes of the inputs are exchanged", f"xv = xv.transpose{axes}", x.transpose(axes)
        before = tuple(shape[order.index(each)] for each in range(len(shape)))
        if before != shape:
            yield (
                "the inputs were reshaped where their axes should have been exchanged",
                f"xv = xv.reshape(len(xv), {', '.join(map(str, before))}).transpose{axes}",
                x.reshape(len(x), *before).transpose(axes),
            )
    side = round(x.shape[1] ** 0.5) if x.ndim == 2 else 0
    if side > 2 and side * side == x.shape[1]:
        square = x.reshape(len(x), side, side)
        turned = square.transpose(0, 2, 1), square[:, ::-1], square[:, :, ::-1]
        codes = ".transpose(0, 2, 1)", "[:, ::-1]", "[:, :, ::-1]"
        for code, edited in zip(codes, turned, strict=True):
            yield (
                f"the inputs are images of {side} by {side}, turned or mirrored",
                f"xv = xv.reshape(-1, {side}, {side}){code}.reshape(len(xv), -1)",
                edited.reshape(x.shape),
            )


def columns_matched(splits: Splits) -> Iterator[Edited]:
    """Columns of a table in another order: each is held against those of training.

    By its quantiles, and by how it goes along with the targets.
    """
    x, held = splits.x, splits.held_x
    if x.ndim != 2 or not 1 < x.shape[1] <= MOST_COLUMNS:
        return
    x, held = x.astype(float), held.astype(float)
    scale = x.std() + 1e-30
    profiles = [np.quantile(part, PROFILE, axis=0).T / scale for part in (x, held)]
    along = []
    for part, target in ((x, splits.target), (held, splits.held_target)):
        y = splits.wanted(target)
        a, b = ((each - each.mean(0)) / (each.std(0) + 1e-30) for each in (part, y))
        along.append(a.T @ b / len(part))
    cost = sum(((one[:, None] - other[None]) ** 2).mean(-1) for one, other in (profiles, along))
    order = linear_sum_assignment(cost)[1]
    if (order != np.arange(len(order))).any():
        moved = int((order != np.arange(len(order))).sum())
        listed = order.tolist() if len(order) <= 40 else "as the training columns are named"
        yield (
            f"{moved} columns of the inputs stand in another order",
            f"xv = xv[:, {listed}]",
            held[:, order],
        )
