"""The data before any network: what is in them, and whether there is anything to learn."""

from collections.abc import Iterator

import numpy as np

from nnref.diagnosis.data.edits import Edit, cures
from nnref.diagnosis.data.images import is_image
from nnref.diagnosis.data.references import (
    FEW_ROWS,
    LAST_VALUE,
    around_pixels,
    balanced,
    by_row,
    change_to_come,
    last_value,
    lookup,
)
from nnref.diagnosis.data.splits import Numbers, Splits
from nnref.diagnosis.data.targets import Rows, Target, shares, target_of
from nnref.diagnosis.data.wraps import wrapped_round
from nnref.diagnosis.findings import Finding, as_note, fault, note
from nnref.diagnosis.judge import leak_checks, split_checks
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.misread_inputs import misread
from nnref.diagnosis.judge.missing_checks import (
    finite,
    left_out_by_the_metric,
    never_learned,
    nonfinite,
    unlabelled,
    without_code,
)
from nnref.diagnosis.judge.split_checks import far_below
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.thresholds import bound

FEW_OF_A_CLASS = 5  # rows: with fewer, their share says nothing
COMPARED = 5000  # rows that are compared with each other
FEW_ENDS, BIN = 200, 0.05  # rows at least, and the share of the range that is an end of it
TABLE = 32  # columns: what has more is an image, where columns at the border say nothing


def check(measured: Measurements) -> Iterator[Finding]:
    """What the data show before any network; faults only where no network could do without."""
    x, y = (np.asarray(part) for part in measured.recipe.train)
    yield from nonfinite(measured, x, y)
    if not (finite(x) and finite(y)):
        return
    yield from still_columns(measured.recipe, x)
    for finding in still_arrays(measured.recipe, x):
        yield finding if measured.trained.skill < bound("failed") else as_note(finding)
    yield from copies(measured, x)
    yield from leak_checks.check(measured)
    yield from constant_targets(measured, y)
    yield from conflicts(x, measured.skill.target)
    target = measured.skill.target
    # Of many classes at places, as the characters of a text, most are rare, and nothing is wrong.
    if target.kind in ("binary", "multiclass") or (target.kind == "places" and target.classes == 2):
        turned_round = list(weights_turned_round(measured))
        yield from turned_round or balance(measured)
    if target.kind not in ("binary", "multiclass"):
        yield from masks(measured)
        yield from unlabelled(measured, x, y)
        yield from left_out_by_the_metric(measured, y)
    yield from never_learned(measured, y)
    yield from circular_targets(measured, x, y)
    yield from wrapped_integers(measured, x, y)
    yield from echo(measured)
    yield from misread(measured, x)
    yield from without_code(measured, x)
    yield from mirrored(measured, x, y)
    yield from split_checks.check(measured)
    if not measured.recipe.shuffle:
        yield from sorted_rows(measured)


def circular_targets(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """Targets that go round, as angles do: rows that are alike stand at both ends of their range.

    Neighbours are far closer once the two ends are joined, and the ends are about as crowded as
    what is beside them: two levels have nothing beside, or, with noise, their tails at the ends.
    Nothing is wrong where the loss goes round with them.
    """
    from sklearn.neighbors import NearestNeighbors

    values = y.reshape(len(y), -1).astype(np.float64)
    if measured.skill.target.kind != "regression" or values.shape[1] != 1 or len(y) < FEW_ENDS:
        return
    share = (values[:, 0] - values.min()) / max(float(np.ptp(values)), 1e-30)
    for end in (share, 1 - share):
        crowd, beside = np.sum(end < BIN), np.sum((end >= BIN) & (end < 2 * BIN))
        if crowd < FEW_ENDS / 20 or not 0.2 * crowd < beside < 1.4 * crowd:
            return
    rows = np.random.default_rng(0).permutation(len(x))[:COMPARED]
    columns, share = x[rows].reshape(len(rows), -1).astype(np.float64), share[rows]
    columns = (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-9)
    nearest = NearestNeighbors(n_neighbors=2).fit(columns).kneighbors(return_distance=False)
    apart = np.abs(share - share[nearest[:, 0]])
    joined = np.minimum(apart, 1 - apart)
    straight, around = (float(np.sqrt(np.mean(part**2))) for part in (apart, joined))
    if around < bound("goes round") * straight and not measured.skill.goes_round:
        yield fault(
            "loss_mismatch",
            "training targets",
            f"rows that are alike have targets at both ends of their range, "
            f"{values.min():.4g} and {values.max():.4g}: they go round, as an angle or an hour "
            "does, and a distance between numbers takes the ends for far apart",
            f"neighbours are {straight:.2f} of the range apart, {around:.2f} with the ends joined",
            healthy="neighbours with targets that are alike",
            remedy="two targets, the sine and the cosine of the angle, and jnp.arctan2 of the "
            "outputs; or the loss 1 - cos(predicted - true)",
            confidence=0.8,
        )


def wrapped_integers(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """Numbers that lie just below the end of a range of integers, far from all others.

    Of classes the largest number may say that a place has none.
    """
    values = measured.skill.target.kind == "regression"
    fractions = x.dtype.kind == "f" and not is_image(x)
    parts = [("targets", y)] * values + [("inputs", x)] * fractions
    for name, part in parts:
        found = wrapped_round(part)
        if found is not None and found.share > bound("wrapped"):
            yield fault(
                "integer_overflow",
                name,
                f"{found.share:.1%} of the numbers lie beyond {found.example:.6g}, and all others "
                f"end at {found.largest:.6g}: integers of {found.bits} bits without a sign that "
                f"wrapped round, as {found.should_be:.4g} becomes {found.example:.6g}, or a number "
                "that says that there is none",
                f"{found.share:.1%} of the {name}",
                remedy="astype(np.int32) before anything is subtracted; leave out what says that "
                "there is none",
                confidence=0.9,
            )


def echo(measured: Measurements) -> Iterator[Finding]:
    """A forecast that does no better than the last value, though the next change can be told."""
    recipe, skill = measured.recipe, measured.skill
    if skill.target.kind != "regression" or recipe.metric is not None or skill.outputs is None:
        return
    name, part, outcome = "validation", recipe.valid, measured.validated
    if part is None or outcome is None:
        name, part, outcome = "training", recipe.train, measured.trained
    x, target = np.asarray(part[0]), target_of(np.asarray(part[1]), "regression")
    last = last_value(x, target.answers).get(LAST_VALUE, 0.0)
    good = min(last, outcome.skill) > bound("failed") and last < 1
    over = 1 - (1 - outcome.skill) / (1 - last) if good else 1.0
    if over > bound("tie"):
        return
    x = np.asarray(recipe.train[0])
    change_skill = change_to_come(x, skill.target.answers)
    # A later stretch of a series may drift, and its last value be hard to beat for that alone.
    known = last_value(x, skill.target.answers).get(LAST_VALUE, 0.0)
    everywhere = 1 - measured.trained.skill > (1 - bound("tie")) * (1 - known)
    yield (fault if change_skill > bound("signal") and everywhere else note)(
        "last_value_repeated",
        "outputs",
        f"the last value as it is has R² {last:.4f} on the {name} rows, the network "
        f"{outcome.skill:.4f}; "
        + (
            "and a linear model tells the change that comes"
            if change_skill > bound("signal")
            else "nor does a linear model tell the change that comes: it may be a random walk"
        ),
        f"{over:.2f} of the last value's error is gone; a linear model of the changes explains "
        f"{change_skill:.2f} of the change to come",
    )


def mirrored(measured: Measurements, x: np.ndarray, y: np.ndarray) -> Iterator[Finding]:
    """Mirror images of other training rows whose targets are not mirrored with them.

    The copies are held against the originals as one split against another: their targets in another
    order, or of another number, are what a model of the originals says of them.
    """
    skill = measured.skill
    if x.ndim not in (3, 4) or skill.costs or skill.target.kind == "places":
        return
    first = {row.tobytes(): place for place, row in enumerate(by_row(x))}
    for axis in range(1, x.ndim):
        places = [first.get(row.tobytes(), -1) for row in by_row(np.flip(x, axis))]
        pairs = np.array([(i, j) for i, j in enumerate(places) if i < j]).reshape(-1, 2)
        if len(pairs) < max(FEW_ROWS, bound("repeated") * len(x)):
            continue
        one, other = pairs.T
        found = contradiction((x[one], y[one]), (x[other], y[other]), skill.kind)
        if found is None:
            continue
        numbers, edit = found
        outcomes = measured.trained, measured.validated  # contradictions can be learned by heart
        if any(far_below(outcome, numbers.inside) for outcome in outcomes):
            yield fault(
                "corrupted_labels",
                "targets of mirrored rows",
                f"{len(pairs)} training rows are mirror images of others (axis {axis}), and their "
                f"targets contradict those: {edit.differs}",
                f"simple models reach {numbers.inside:.2f} on the originals, and from there "
                f"{numbers.across:.2f} on their mirror images",
                healthy="targets that are mirrored with their image: left becomes right",
                remedy=f"{edit.remedy}, for yv the targets of the mirror images",
                proof=Proof(
                    f"with targets so edited it is {edit.skill:.2f}",
                    before=(numbers.across,),
                    after=(edit.skill,),
                ),
            )
            return


def contradiction(originals: Rows, turned: Rows, kind: str) -> tuple[Numbers, Edit] | None:
    """How the targets of turned rows contradict those of their originals; None if they do not.

    The edit of these targets is the one that makes them what a model of the originals says.
    """
    splits = Splits(originals, turned, kind)
    numbers = splits.numbers
    if numbers is None or numbers.carries is not False:
        return None
    goal = max(numbers.across, 0) + bound("cure") * (numbers.inside - max(numbers.across, 0))
    edits = [e for e in cures(splits) if e.kind in ("labels", "targets") and e.skill > goal]
    return (numbers, edits[0]) if edits else None


def still_columns(recipe: Recipe, x: np.ndarray) -> Iterator[Finding]:
    """Columns that have one value in every row, in a table of which most columns have more."""
    if x.ndim == 2 and 2 < x.shape[1] <= TABLE and len(x) > 2:
        still = np.flatnonzero((x == x[:1]).all(0))
        if 0 < len(still) < x.shape[1] // 2:
            names = ", ".join(map(recipe.column, still[:5]))
            evidence = f"{len(still)} of {x.shape[1]} columns have one value in every row"
            yield note("no_signal", f"columns {names}", evidence)


def still_arrays(recipe: Recipe, x: np.ndarray) -> Iterator[Finding]:
    """Of several arrays of inputs, one of fractions that has one number and no other in all rows.

    So stands a decoder's input, or a second picture, that was made and never filled.
    """
    if recipe.inputs is None or len(recipe.inputs.shapes) < 2:
        return
    at = 0
    for name, shape, dtype in zip(
        recipe.inputs.names, recipe.inputs.shapes, recipe.inputs.dtypes, strict=True
    ):
        size = int(np.prod(shape))
        part = x[:, at : at + size]
        at += size
        if size > 1 and np.dtype(dtype).kind == "f" and (part == part.flat[0]).all():
            yield fault(
                "no_signal",
                f"inputs: {name}",
                f"{name}, {'x'.join(map(str, shape))} numbers a row, is {part.flat[0]:g} "
                "everywhere in all rows: it was made and never filled",
                f"{size * len(x)} times {part.flat[0]:g}",
                healthy="numbers that differ from row to row",
                remedy=f"fill {name} from the rows, or leave it out",
                confidence=0.9,
            )


def copies(measured: Measurements, x: np.ndarray) -> Iterator[Finding]:
    """Training rows that are copies of others, in a data set that looks larger than it is."""
    different = len({row.tobytes() for row in by_row(x)})
    y = np.asarray(measured.recipe.train[1])
    if different == 1 < len(x) and (y != y[:1]).any() and not measured.skill.costs:
        yield fault(
            "no_signal",
            "inputs",
            f"all {len(x)} training rows are the same, and their targets are not: nothing tells "
            "the rows apart",
            f"every number of a row between {x.min():.3g} and {x.max():.3g}",
        )
    elif len(x) >= bound("rows for no signal") and different < bound("copies") * len(x):
        yield note(
            "repeated_rows",
            "training rows",
            f"only {different} of {len(x)} training rows are different ones",
            f"{different / len(x):.0%}",
            healthy=f"above {bound('copies'):.0%}",
            remedy="x, first = np.unique(x, axis=0, return_index=True); y = y[first]",
        )


def constant_targets(measured: Measurements, y: np.ndarray) -> Iterator[Finding]:
    """One target for every row.

    A fault where a metric compares, the one class is not predicted, or the loss asks which class it
    is. Some losses want no targets, and are given zeros in their place; a network that takes sides
    is told by the inputs which is the first.
    """
    silent = measured.skill.takes_sides or measured.skill.without_targets
    if len(y) > 1 and (y == y[:1]).all() and not silent:
        if measured.skill.kind == "regression":
            metric = measured.recipe.metric is not None
            missed = metric and measured.trained.skill < bound("failed")
        else:
            missed = measured.skill.outputs is not None and (
                bool(measured.hardly_predicted) or measured.skill.reads_targets
            )
        yield (fault if missed and not measured.skill.costs else note)(
            "corrupted_labels",
            "targets",
            "every row has the same target: there is nothing to tell apart",
            f"every target {in_short(y[0])}",
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
    if target.kind in ("regression", "places") or repeated.mean() <= bound("repeated"):
        return
    best = lookup(flat, target)
    if best < bound("lookup"):
        yield note(
            "corrupted_labels",
            "targets",
            f"equal rows have unequal targets: no network can go further than {best:.2f} on "
            "them (a constant answer is 0, a perfect one 1)",
            f"{repeated.mean():.0%} of the rows are repeated",
        )


def balance(measured: Measurements) -> Iterator[Finding]:
    """Classes that drown: rare in training, asked for in validation."""
    classes = measured.skill.target.classes
    train = shares(measured.skill.target, classes)
    present = train[train > 0]
    if len(present) < 2 or present.max() < bound("imbalance") * present.min():
        return
    rarest, most = present.min(), present.max()
    clauses = [
        f"the rarest class has {rarest:.1%} of the training rows, the most frequent {most:.0%}"
    ]
    if drowned(measured, int(np.flatnonzero(train == rarest)[0])):
        clauses.append("the network hardly ever predicts it")
    if measured.recipe.valid is not None:
        target = target_of(np.asarray(measured.recipe.valid[1]), measured.skill.kind)
        asked = shares(target, max(classes, target.classes))[:classes][train == rarest].max()
        far = far_below(measured.validated, max(measured.trained.skill, 0))
        some = asked * len(target.answers) >= FEW_OF_A_CLASS
        if far and some and asked > bound("imbalance") / 2 * rarest:
            clauses.append(f"of the validation rows it has {asked:.0%}")
    yield (note if len(clauses) == 1 else fault)(
        "class_imbalance", "targets", "; ".join(clauses), f"a factor of {most / rarest:.0f}"
    )


def weights_turned_round(measured: Measurements) -> Iterator[Finding]:
    """A loss in which the frequent class has the large weight: a rare one that can be told drowns.

    Where the network tells the rare class all the same, it is worth knowing, and no fault.
    """
    skill = measured.skill
    if not skill.weighed_the_wrong_way or skill.weighed is None:
        return
    rows = np.asarray(measured.recipe.train[0])
    counts, weights = skill.counts, skill.weighed.weights
    present = np.flatnonzero(counts)
    rare, most = (int(present[pick(counts[present])]) for pick in (np.argmin, np.argmax))
    able, reached = balanced(rows, skill.target), measured.trained_on_equal_classes
    missed = able > bound("balanced") and reached < bound("learned") * able
    yield (fault if missed else note)(
        "loss_mismatch",
        AtStart(measured.recipe, *measured.initial).loss_line,
        f"a row of class {most}, of which there are {counts[most]}, weighs "
        f"{weights[most] / weights[rare]:.3g} times as much in the loss as one of class {rare}, of "
        f"which there are {counts[rare]}: the weights stand the wrong way round; all classes "
        f"counted alike, the network reaches {reached:.2f}, and a linear model to which they weigh "
        f"the same {able:.2f} (chance 0, perfect 1)",
        f"weights {weights[most]:.3g} and {weights[rare]:.3g}",
        healthy="the larger weight for the rarer class",
        remedy="counts = np.bincount(y); weights = len(y) / (len(counts) * counts)  # by class; of "
        "two, pos_weight = (y == 0).sum() / (y == 1).sum()",
        confidence=0.9,
    )


def masks(measured: Measurements) -> Iterator[Finding]:
    """A rare class of 0/1 masks that the network hardly ever predicts, though it can be told."""
    x, y = (np.asarray(part) for part in measured.recipe.train)
    answers = measured.skill.target.answers
    y = y[..., 0] if y.shape[-1] == 1 else y
    if y.ndim < 2 or y.size != answers.size or not set(np.unique(answers)) <= {-1, 0, 1}:
        return
    if y.ndim == 2 and x.ndim < 3:
        return  # labels of a table, where nothing stands beside a label
    mask = answers.reshape(y.shape)
    counts = np.bincount(mask[mask >= 0], minlength=2)
    rarest = int(counts.argmin())
    if not 0 < bound("imbalance") * counts[rarest] <= counts.max():
        return
    if measured.skill.outputs is None or rarest not in measured.hardly_predicted:
        return
    reached = around_pixels(x, mask)
    if reached > bound("found around"):
        yield fault(
            "class_imbalance",
            "targets",
            f"{counts[rarest] / counts.sum():.1%} of the places of the targets are of class "
            f"{rarest}, and the network hardly ever predicts it; weighted by its share, a linear "
            f"model of the inputs around each place reaches {reached:.2f} (chance 0, perfect 1)",
            f"a factor of {counts.max() / counts[rarest]:.0f}",
            remedy="weigh each place by 1 / share of its class in the loss",
        )


def drowned(measured: Measurements, rarest: int) -> bool:
    """Whether the network hardly ever predicts the rarest class, and learns badly.

    Where accuracy shows nothing that could be learned, a model is asked to which all classes weigh
    the same.
    """
    if measured.skill.outputs is None or rarest not in measured.hardly_predicted:
        return False
    best, reached = measured.reference.best[1], measured.trained.skill
    if best > bound("signal"):
        return reached < bound("failed") * best
    x, target = np.asarray(measured.recipe.train[0]), measured.skill.target
    return reached < bound("signal") and balanced(x, target) > bound("balanced")


def sorted_rows(measured: Measurements) -> Iterator[Finding]:
    """Rows in the order of their class, never shuffled: every batch unlearns the one before."""
    target = measured.skill.target
    if target.kind not in ("binary", "multiclass"):
        return
    counted = target.answers[target.answers >= 0]
    if len(counted) < FEW_ROWS:
        return
    changes = np.mean(counted[1:] != counted[:-1])
    expected = 1 - (shares(target, target.classes) ** 2).sum()
    in_batches = measured.recipe.batch_size < len(target.answers)
    if changes < bound("sorted") * expected and in_batches:
        bad = far_below(measured.trained, max(measured.reference.best[1], 0))
        yield (fault if bad else note)(
            "unshuffled_split",
            "training rows",
            "the rows come class by class and are never shuffled",
            f"the class changes after {changes:.1%} of the rows",
            healthy=f"about {expected:.0%}",
            remedy="shuffle=True",
        )
