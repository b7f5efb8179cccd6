"""Training against validation and test: the same rows, other classes, another meaning."""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from nnref.diagnosis.data.codes import as_they_appear, renumbered_columns
from nnref.diagnosis.data.edits import Edit, cures
from nnref.diagnosis.data.references import FEW_ROWS, by_row, scales
from nnref.diagnosis.data.splits import Numbers, Splits, own_statistics, steadiness, told_apart
from nnref.diagnosis.data.targets import Rows, shares, target_of
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.judge.skill import Outcome
from nnref.diagnosis.proof import Proof
from nnref.diagnosis.thresholds import bound


def check(measured: Measurements) -> Iterator[Finding]:
    """What validation and test rows show beside the training rows."""
    recipe = measured.recipe
    for name, part in (("validation", recipe.valid), ("test", recipe.test)):
        if part is None:
            continue
        rows = np.asarray(part[0]), np.asarray(part[1])
        yield from repeated(measured, name, rows[0])
        split = ComparedSplit(measured, name, rows)
        differ = list(meaning(split))
        yield from differ
        if not any(finding.severity == "fault" for finding in differ):
            yield from numbered_anew(split)
            yield from shifted(split)
            yield from other_classes(split)


class ComparedSplit:
    """A split beside the training rows: what simple models and the network do on both."""

    def __init__(self, measured: Measurements, name: str, rows: Rows) -> None:
        """Take the rows of the split that has this name."""
        self.measured, self.name, self.rows = measured, name, rows
        self.x = np.asarray(measured.recipe.train[0])

    @cached_property
    def outcome(self) -> Outcome | None:
        """How the network does on it."""
        measured = self.measured
        return measured.validated if self.name == "validation" else measured.outcome_on(self.rows)

    @cached_property
    def splits(self) -> Splits | None:
        """Simple models of both; None where targets are costs."""
        return (
            self.measured.splits if self.name == "validation" else self.measured.beside(self.rows)
        )

    @cached_property
    def numbers(self) -> Numbers | None:
        """The three numbers."""
        return None if self.splits is None else self.splits.numbers

    @cached_property
    def in_time(self) -> bool:
        """Whether rows follow each other in time: another region later on is what time does."""
        return min(steadiness(self.x), steadiness(self.rows[0])) > bound("in time")

    def good(self, skill: float) -> bool:
        """Whether the network is nearly as good on it as a skill."""
        return self.outcome is not None and self.outcome.skill >= bound("failed") * skill

    @cached_property
    def severity(self) -> Callable[..., Finding]:
        """A fault where the network is far worse on it than on its training rows, else a note.

        A note, too, where the rows follow each other in time.
        """
        return fault if self.far and not self.in_time else note

    @property
    def far(self) -> bool:
        """Whether the network has learned its training rows, and is far worse on it."""
        skill = self.measured.trained.skill
        return skill > bound("signal") and far_below(self.outcome, skill)


def far_below(outcome: Outcome | None, skill: float) -> bool:
    """Whether an outcome is known, and far below a skill."""
    return outcome is not None and outcome.skill < bound("failed") * skill


def meaning(split: ComparedSplit) -> Iterator[Finding]:
    """Splits that can be learned and do not mean the same, whatever the network learned.

    What simple models of the training rows find there is held against what they find in folds; the
    edit of the split that mends it is the proof and the remedy.
    """
    own = own_statistics(split.x) and own_statistics(split.rows[0])
    numbers = split.numbers
    if numbers is None or split.good(max(numbers.inside, numbers.within)):
        if own:
            yield scaled_by_its_own(split, note)
        return
    if numbers.carries is not False:
        if own:
            yield scaled_by_its_own(split, note)
        yield from unlearnable(split)
        return
    assert split.splits is not None, "there are numbers of it"
    goal = max(numbers.across, 0) + bound("cure") * (numbers.inside - max(numbers.across, 0))
    edits = [edit for edit in cures(split.splits) if edit.skill > goal]
    if edits:
        yield edited(split, *edits)
    elif own:
        yield scaled_by_its_own(split, note if split.in_time else fault)
    elif numbers.both:
        yield unexplained(split)
    else:
        yield from unlearnable(split)


def in_words(split: ComparedSplit) -> str:
    """The three numbers in a clause."""
    numbers = split.numbers
    assert numbers is not None, "asked of splits that can be compared"
    return (
        f"simple models reach {numbers.inside:.2f} inside the training rows, {numbers.within:.2f} "
        f"inside the {split.name} rows, and {numbers.across:.2f} from one to the other"
    )


def edited(split: ComparedSplit, edit: Edit, *others: Edit) -> Finding:
    """The edit that mends the split; of another scale in time, a note: series drift.

    Another kind of edit that does as well is said too: nothing in the rows tells which it was.
    """
    numbers = split.numbers
    assert numbers is not None, "asked of splits that can be compared"
    drift = split.in_time and edit.kind in ("scale", "targets")
    cause = "inputs_not_normalized" if edit.kind == "scale" else "splits_differ"
    tied = [o for o in others if o.kind != edit.kind and o.skill > edit.skill - bound("tie")]
    also = f"; as well it may be that {tied[0].differs}" if tied else ""
    place = "targets" if edit.kind in ("labels", "targets") else "inputs"
    return (note if drift else fault)(
        cause,
        f"{split.name} {place}",
        f"in the {split.name} rows, {edit.differs}{also}",
        in_words(split),
        healthy="the same preparation of both splits, by the statistics of the training rows",
        remedy=edit.remedy,
        proof=Proof(
            f"with {split.name} rows so edited, the same simple model, fitted to the training "
            f"rows, goes on them from {numbers.across:.2f} to {edit.skill:.2f}",
            before=(numbers.across,),
            after=(edit.skill,),
        ),
    )


def scaled_by_its_own(split: ComparedSplit, severity: Callable[..., Finding]) -> Finding:
    """A split that was standardized by its own mean and deviation."""
    return severity(
        "splits_differ",
        f"{split.name} inputs",
        f"training and {split.name} rows each have mean 0 and deviation 1 to three places: each "
        "split was scaled by its own statistics, so that one number means two things",
        "" if split.numbers is None else in_words(split),
        healthy="the mean and deviation of the training rows, for both",
        remedy="x_train, xv = ((x - mean) / std for x in (x_train, xv)), with mean and std of the "
        "raw training rows",
    )


def unexplained(split: ComparedSplit) -> Finding:
    """Splits of which each can be learned, and no edit that was tried mends it."""
    assert split.splits is not None, "there are numbers of it"
    apart, columns = told_apart(split.splits)
    seen = apart > bound("told apart")
    where = f"{split.name} inputs" if seen else f"{split.name} targets"
    evidence = (
        f"the inputs of the splits are told apart by a linear model ({apart:.2f}; 0 is chance), by "
        f"column {columns[0]} first"
        if seen
        else "the inputs of the splits are alike, and what is asked of them is not"
    )
    return (note if split.in_time else fault)(
        "unshuffled_split" if split.in_time else "splits_differ",
        where,
        f"each split can be learned, and they do not mean the same: {evidence}",
        in_words(split),
        confidence=bound("soft"),
    )


def unlearnable(split: ComparedSplit) -> Iterator[Finding]:
    """Targets of one split that belong to other rows: the inputs are alike, one can be learned."""
    numbers, least = split.numbers, bound("rows for no signal")
    if numbers is None or split.splits is None or split.in_time:
        return
    rows = (split.x, split.rows[0])
    if not split.splits.shaped:
        rows = (split.splits.x, split.splits.held_x)
    if min(map(len, rows)) < least:
        return
    learned, lost = sorted((numbers.inside, numbers.within), reverse=True)
    # A model of drawn targets may be right about others by chance, the more so of few columns.
    foreign = numbers.across < bound("failed") * learned
    # Where some targets belong to their rows, a model of them is surely better elsewhere.
    mixed = numbers.within > numbers.inside and numbers.behind_inside < -bound("sure")
    surely = learned > 2 * bound("learnable") and lost < bound("collapse") * learned
    if not (surely and (foreign or mixed)) or told_apart(split.splits)[0] > bound("told apart"):
        return
    wrong = "training" if numbers.within > numbers.inside else split.name
    yield fault(
        "corrupted_labels",
        f"{wrong} targets",
        f"the {wrong} targets do not belong to their rows: inputs are alike in both splits, and "
        f"only those of the {split.name if wrong == 'training' else 'training'} rows say something "
        "about their targets",
        in_words(split),
        remedy="order = rng.permutation(len(x)); x, y = x[order], y[order]; and where rows are "
        "turned or mirrored, both by one draw",
        confidence=0.9,
    )


def repeated(measured: Measurements, name: str, x: np.ndarray) -> Iterator[Finding]:
    """Rows of a split that are training rows."""
    train = by_row(measured.recipe.train[0])
    known = {row.tobytes() for row in train}
    same = np.mean([row.tobytes() in known for row in by_row(x)])
    if same > bound("leak") and len(known) > len(train) // 2:
        yield note(
            "repeated_rows",
            f"{name} rows",
            f"{same:.0%} of the {name} rows are training rows: {name} measures memory",
            f"{same:.0%}",
            healthy=f"below {bound('leak'):.0%}",
        )


def numbered_anew(split: ComparedSplit) -> Iterator[Finding]:
    """Categories that were numbered in each split by itself."""
    train, kind = split.measured.recipe.train, split.measured.skill.kind
    remedy = "encoder.fit(train); x_train, xv = encoder.transform(train), encoder.transform(valid)"
    if split.x.ndim == 2 and split.x.shape[1:] == split.rows[0].shape[1:]:
        own = sorted({*as_they_appear(split.x)} & {*as_they_appear(split.rows[0])})
        if own:
            names = ", ".join(split.measured.recipe.column(column) for column in own)
            yield split.severity(
                "splits_differ",
                f"{split.name} inputs, column {names}",
                f"the categories of column {names} are numbered as they appear, in the training "
                f"rows and anew in the {split.name} rows: there, too, the first one is 0 and each "
                "new one the next number, so that a number means another category",
                f"{[int(split.rows[0][:, column].max()) + 1 for column in own]} numbers",
                healthy="one table of numbers, made of the training rows, for every split",
                remedy=remedy,
            )
            return
    for found in renumbered_columns((split.x, np.asarray(train[1])), split.rows, kind):
        listed = ", ".join(map(str, found.missing[:6])) + ", ..." * (len(found.missing) > 6)
        yield split.severity(
            "splits_differ",
            f"{split.name} inputs, column {found.column}",
            f"the categories of column {found.column} are numbered anew: 0 to {found.known - 1} in "
            f"the training rows, 0 to {found.here - 1} without a gap in the {split.name} rows, "
            f"where those that training calls {listed} seem to be missing, and all behind them "
            "have another number",
            f"the training means of the numbers explain {found.before:.0%} of the {split.name} "
            f"targets, and {found.after:.0%} with those left open",
            healthy="one encoder, fitted to the training rows, for every split",
            remedy=remedy,
        )


def shifted(split: ComparedSplit) -> Iterator[Finding]:
    """A split that is scaled otherwise than the training rows."""
    x, other, name = split.x, split.rows[0], split.name
    if x.shape[1:] != other.shape[1:] or len(other) < FEW_ROWS:
        return
    train, held = scales(x), scales(other)
    deviation = max(float(np.sqrt(np.mean(train.deviation**2))), 1e-30)
    shift = float(np.sqrt(np.mean((train.mean - held.mean) ** 2))) / deviation
    ratio = float(np.sqrt(np.mean(held.deviation**2))) / deviation
    column = int(np.abs(train.mean - held.mean).argmax())
    if shift > bound("shifted, in order") and in_order(x.reshape(len(x), -1)[:, column]):
        yield split.severity(
            "unshuffled_split",
            f"column {column} of the inputs",
            f"training rows are sorted by column {column}, and {name} rows are of another region",
            f"mean {train.mean[column]:.3g} and {held.mean[column]:.3g}",
        )
    elif shift > bound("shifted") or not 1 / bound("stretched") < ratio < bound("stretched"):
        yield split.severity(
            "inputs_not_normalized",
            f"{name} inputs",
            f"{name} rows are scaled otherwise than training rows",
            f"mean {shift:.2g} deviations away, deviation {ratio:.2g} times as large",
            healthy="the mean and deviation of the training rows, for both",
            remedy="xv = (xv - x_train.mean(0)) / x_train.std(0)",
        )


def in_order(values: np.ndarray) -> bool:
    """Whether numbers never fall, or never rise."""
    return bool((np.diff(values) * np.sign(values[-1] - values[0]) >= 0).all())


def other_classes(split: ComparedSplit) -> Iterator[Finding]:
    """A split whose classes are others than those of the training rows."""
    skill, name = split.measured.skill, split.name
    known, target = skill.target, target_of(split.rows[1], skill.kind)
    if known.kind not in ("binary", "multiclass"):
        return
    classes = max(target.classes, known.classes)
    train, held = shares(known, classes), shares(target, classes)
    unseen = float(held[train == 0].sum())
    distance = float(np.abs(train - held).sum() / 2)
    # Where training itself is skewed, the skew is the finding, not the split.
    skewed = train.max() > bound("imbalance") * train[train > 0].min(initial=1)
    if unseen > bound("unseen") or (distance > bound("histograms") and not skewed):
        # Other shares of the same classes harm none of the models that carry over.
        carries = not unseen and split.numbers is not None and split.numbers.carries
        # Classes that no training row has are told by no model, whatever the order of the rows.
        never = unseen > bound("mostly") and split.far
        answers = known.answers
        if never and in_order(answers) and split.measured.reference.best[1] < bound("signal"):
            yield fault(
                "corrupted_labels",
                "targets",
                "targets stand in the order of their classes, and simple models find nothing of "
                "them in the inputs: the inputs were shuffled, and the targets were not",
                f"skill {split.measured.reference.best[1]:.2f} of simple models inside training",
                healthy=f"above {bound('signal'):g}",
                remedy="one order for both: x, y = x[order], y[order]",
                confidence=0.8,
            )
            return
        yield (note if carries else fault if never else split.severity)(
            "unshuffled_split",
            f"{name} targets",
            f"training and {name} rows hold different classes"
            + (f": {unseen:.0%} of the {name} rows are of classes never trained" if unseen else ""),
            f"{distance:.0%} of the rows would have to change their class",
            healthy=f"below {bound('histograms'):.0%}",
        )
