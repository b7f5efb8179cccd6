"""Inputs that the network does not look at: what changes no output when it is changed.

It is measured on rows of the data, not read from the program: columns, steps and tokens are
exchanged between rows, for several draws of the parameters. Padding stays where it is, so that a
mask made of it stays the same while the text changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.references import references
from nnref.diagnosis.data.targets import Target, target_of
from nnref.diagnosis.findings import Finding, fault, note
from nnref.diagnosis.program.at_start import AtStart, LossAtStart, beside
from nnref.diagnosis.program.loss_facts import kind_of
from nnref.diagnosis.program.tracing import COMPARISONS, Operation, Trace
from nnref.diagnosis.thresholds import bound
from nnref.training.checkpoint import on_host

FITTED = 1200  # rows that simple models are fitted to
# The parameters are drawn around the first ones, then smaller: what saturates hides its inputs.
SCALES = (1.0, 1.0, 0.1, 0.01)
PLACES = 512  # of a row, at most, that are exchanged one by one; a gradient sees more at once
TOKENS = 1024  # different ones, at most, that are held against each other
# Parts of names of what says which rows or steps count.
WHICH_COUNT = ("mask", "done", "terminal", "valid", "length", "weight", "discount")
TABLE = 4000  # columns of one-hot tokens, at most, for the simple models
NOT_BEHIND = (
    "a mask of the filling (mask_zero=True in Keras), the output of the last step that is none, or "
    "the filling in front: padding='pre'"
)

Outputs = Callable[[Any, Any], list[Any]]  # of parameters and rows: the leaves of the outputs


@dataclass(frozen=True)
class Looked:
    """Which parts of the inputs change the outputs.

    `asked` and `seen` have the shape of a row: where the data vary, and where a change is seen.
    `twins` gives for a token the one that the network takes it for; `filler` is the number that
    stands for nothing, such as padding (None: there is none), and is changed nowhere. `alive` says
    whether anything at all in the inputs changes the outputs.
    """

    asked: np.ndarray
    seen: np.ndarray
    twins: dict[int, int] = field(default_factory=dict)
    filler: float | None = None
    alive: bool = True

    @property
    def ignored(self) -> np.ndarray:
        """Where the data vary, and the network does not see it."""
        return self.asked & ~self.seen

    @property
    def share(self) -> float:
        """The share of the places at which the data vary that the network does not see."""
        return float(self.ignored.sum() / max(self.asked.sum(), 1))

    def visible(self, x: np.ndarray) -> np.ndarray:
        """Rows as the network sees them: all that it cannot tell apart is the same there."""
        x = np.array(x)
        for token, twin in self.twins.items():
            x[x == token] = twin
        content = contents(x, self.filler)
        common = x[content][0] if content.any() else x.flat[0]
        return np.where(content & self.ignored, common, x)


def contents(x: np.ndarray, filler: float | None) -> np.ndarray:
    """Where something stands that is no filler."""
    return np.ones(x.shape, bool) if filler is None else x != filler


def filler_of(x: np.ndarray) -> float | None:
    """The number that stands for nothing: zeros, or the token at the end or start of many rows."""
    if x.ndim < 2 or x.dtype.kind not in "iuf":
        return None
    flat = x.reshape(len(x), -1)
    if x.dtype.kind == "f":
        return 0.0 if np.mean(flat == 0) > bound("filler") else None
    values, counts = np.unique(flat, return_counts=True)
    common = values[counts.argmax()]
    ends = max(np.mean(flat[:, -1] == common), np.mean(flat[:, 0] == common))
    often = min(counts.max() / flat.size, ends) > bound("filler")
    return float(common) if often and len(values) > 3 else None


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists of arrays are the same, bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class Looking:
    """Exchanges parts of some rows, and looks at the outputs."""

    def __init__(self, outputs: Outputs, params: Any, x: np.ndarray, filler: float | None) -> None:
        self.outputs, self.params, self.x = outputs, params, x
        self.content = contents(x, filler)
        self.rolled, self.asked = self.exchanged()
        self.seen = np.zeros(x.shape[1:], bool)
        self.by = np.zeros(x.shape[1:], int)  # the draw that saw it first
        self.alive = False

    def exchanged(self) -> tuple[np.ndarray, np.ndarray]:
        """Every place with what stands there in another row; where that is something else."""
        rows = len(self.x)
        flat, content = self.x.reshape(rows, -1), self.content.reshape(rows, -1)
        order = np.argsort(np.where(content, flat, np.inf), axis=0, kind="stable")
        many, rank = content.sum(0), np.arange(rows)[:, None]
        # Half of the sorted rows further on: another value wherever there are two.
        source = np.where(rank < many, (rank - many // 2) % np.maximum(many, 1), rank)
        rolled = np.empty_like(flat)
        moved = np.take_along_axis(np.take_along_axis(flat, order, 0), source, 0)
        np.put_along_axis(rolled, order, moved, 0)
        varies = (rolled != flat).any(0).reshape(self.x.shape[1:])
        return rolled.reshape(self.x.shape), varies

    def look(self) -> None:
        """Fill in `seen`."""
        for seed, scale in enumerate(SCALES):
            if not (self.asked & ~self.seen).any():
                return
            params, before = beside(self.params, scale, seed), self.seen.copy()
            base = self.of(params, self.x)
            if not all(np.isfinite(leaf).all() for leaf in base):
                continue
            rolled = self.of(params, np.roll(self.x, 1, 0))
            self.alive |= not same(rolled, base)
            if self.seen.size > PLACES and self.x.dtype.kind == "f":
                self.seen |= self.slopes(params)
            self.by_rows(params, base)
            self.in_groups(params, base, np.flatnonzero((self.asked & ~self.seen).ravel()))
            self.by[self.seen & ~before] = seed

    def of(self, params: Any, x: np.ndarray) -> list[np.ndarray]:
        """The leaves of the outputs."""
        return [np.asarray(leaf, np.float64) for leaf in self.outputs(params, x)]

    def slopes(self, params: Any) -> np.ndarray:
        """Where the outputs of some row have a slope."""

        def total(x: Any) -> Any:
            leaves = self.outputs(params, x)
            return sum(
                jnp.sum(leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape))
                for leaf in leaves
            )

        return np.any(np.nan_to_num(np.asarray(jax.grad(total)(self.x))) != 0, axis=0)

    def by_rows(self, params: Any, base: list[np.ndarray]) -> None:
        """Change one place of each row, another one in each; rows that change have seen it."""
        rows, places = len(self.x), self.seen.size
        flat, rolled = self.x.reshape(rows, -1), self.rolled.reshape(rows, -1)
        differs = flat != rolled
        if places > PLACES or not all(leaf.shape[:1] == (rows,) for leaf in base):
            return
        waiting = np.flatnonzero((self.asked & ~self.seen).ravel()).tolist()
        while waiting:
            x, mine, later = flat.copy(), {}, []
            for place in waiting:
                free = next((r for r in np.flatnonzero(differs[:, place]) if r not in mine), None)
                if free is None:
                    later.append(place)
                else:
                    mine[free] = place
                    x[free, place] = rolled[free, place]
            after = self.of(params, x.reshape(self.x.shape))
            for row, place in mine.items():
                if not same([leaf[row] for leaf in after], [leaf[row] for leaf in base]):
                    self.seen.flat[place] = True
            waiting = later

    def in_groups(self, params: Any, base: list[np.ndarray], places: np.ndarray) -> None:
        """Change places in all rows together, and halve those groups that are seen."""
        waiting = [places] if len(places) else []
        while waiting:
            group = waiting.pop()
            x = self.x.reshape(len(self.x), -1).copy()
            x[:, group] = self.rolled.reshape(x.shape)[:, group]
            after = self.of(params, x.reshape(self.x.shape))
            if same(after, base):
                continue
            if len(group) == 1:
                self.seen.flat[group[0]] = True
            else:
                waiting += [part for part in np.array_split(group, 2) if len(part)]

    def twins(self, tokens: np.ndarray) -> dict[int, int]:
        """Tokens that change nothing when they are exchanged for each other, in three places."""
        rows = len(self.x)
        seen = np.argwhere(self.content & self.seen)
        signatures: list[tuple[bytes, ...]] = [() for _ in tokens]
        for row, *place in seen[np.linspace(0, len(seen) - 1, 3).round().astype(int)]:
            draw = int(self.by[tuple(place)])
            params = beside(self.params, SCALES[draw], draw)
            for at in range(0, len(tokens), rows):
                x = np.repeat(self.x[row][None], rows, 0)
                some = tokens[at : at + rows]
                x[(np.arange(len(some)), *place)] = some
                after = self.of(params, x)
                if not all(leaf.shape[:1] == (rows,) for leaf in after):
                    return {}
                for i in range(len(some)):
                    signatures[at + i] += tuple(leaf[i].tobytes() for leaf in after)
        first: dict[tuple[bytes, ...], int] = {}
        skills = {}
        for token, signature in zip(tokens.tolist(), signatures, strict=True):
            twin = first.setdefault(signature, token)
            skills |= {token: twin} if twin != token else {}
        return skills


def looked(outputs: Outputs, params: Any, data: np.ndarray, x: np.ndarray) -> Looked:
    """Which parts of the inputs a network looks at.

    Args:
        outputs: the leaves of the outputs for parameters and rows.
        params: the first parameters.
        data: all inputs, rows first.
        x: those rows that are changed.
    """
    filler = filler_of(data)
    looking = Looking(outputs, params, x, filler)
    looking.look()
    twins: dict[int, int] = {}
    tokens = np.unique(data) if data.dtype.kind in "iu" else np.zeros(0)
    if 2 < len(tokens) <= TOKENS and (looking.content & looking.seen).any():
        twins = looking.twins(tokens[tokens != filler])
        if twins:  # a place is asked by tokens that are not one for the network
            x, rolled = looking.x.copy(), looking.rolled.copy()
            for token, twin in twins.items():
                x[x == token], rolled[rolled == token] = twin, twin
            looking.asked &= (x != rolled).any(0)
    return Looked(looking.asked, looking.seen, twins, filler, looking.alive)


def ignored(start: AtStart) -> Iterator[Finding]:
    """Parts of the inputs that the network ignores; a fault where they hold the answer."""
    recipe, data = start.recipe, np.asarray(start.recipe.train[0])

    def outputs(params: Any, x: Any) -> list[Any]:
        return jax.tree.leaves(start.network(params, start.state, x, jax.random.key(0), False)[0])

    look = looked(outputs, start.params, data, np.asarray(start.sample.x))
    if look.alive and not (look.ignored.any() or look.twins):
        return
    forgotten = behind_filler(outputs, start.params, np.asarray(start.sample.x), look.filler)
    if not look.alive and not forgotten:
        return  # where nothing is seen, the signal dies elsewhere
    target = target_of(recipe.train[1], kind_of(recipe, start.sample.tree, start.sample.y).task)
    everything, visible = (skill_of(x, target) for x in (data, look.visible(data)))
    visible = visible if look.alive else 0.0
    lost = visible < bound("failed") * everything and everything > bound("signal")
    if not lost and (forgotten or look.share < bound("much ignored")):
        return
    if lost and forgotten:
        yield fault(
            "inputs_ignored",
            start.last,
            f"behind what a row says stands {look.filler:g} up to its end, and what it says does "
            "not reach the outputs: with the filling in front it does",
            f"exchanging all that a row says moves its outputs by {forgotten.behind:.1e}, and by "
            f"{forgotten.front:.1e} with the filling in front; simple models find {everything:.2f} "
            "of the answer in the inputs",
            healthy="outputs that change with what a row says",
            remedy=NOT_BEHIND,
            confidence=0.95,
        )
        return
    what = described(look, data)
    if recipe.inputs is not None and len(recipe.inputs.shapes) > 1 and look.ignored.any():
        what = "inputs " + in_short([recipe.column(int(n)) for n in np.flatnonzero(look.ignored)])
    yield (fault if lost else note)(
        "inputs_ignored",
        line_that_drops(start, look) or start.last,
        f"{what} change no output when they change, whatever the parameters are"
        + (
            f"; simple models find {everything:.2f} of the answer in the inputs, and "
            f"{max(visible, 0):.2f} in what the network looks at"
            if lost
            else ""
        ),
        f"{look.share:.0%} of the places of a row are not looked at"
        if look.share
        else f"{len(look.twins)} tokens are taken for others",
        confidence=0.95 if lost else 0.5,
    )


class Forgotten(NamedTuple):
    """How far the outputs of a row move when all that it says is exchanged, the median of rows."""

    behind: float  # with its filling behind what it says, as the rows are
    front: float  # with its filling in front


def behind_filler(
    outputs: Outputs, params: Any, x: np.ndarray, filler: float | None
) -> Forgotten | None:
    """What rows say, where their filling hides it that stands behind, and would not in front."""
    front = in_front(x, filler)
    if front is None or filler is None:
        return None
    moves = Forgotten(*(moved(outputs, params, rows, filler) for rows in (x, front)))
    # A loop forgets by a factor a step: what rounding leaves is not always exactly nothing.
    return moves if moves.behind < bound("hidden") * moves.front else None


def in_front(x: np.ndarray, filler: float | None) -> np.ndarray | None:
    """Rows with their filling in front of them; None where it stands behind few of them."""
    if filler is None or x.ndim < 2:
        return None
    steps = np.any(contents(x, filler).reshape(*x.shape[:2], -1), axis=2)
    if steps[:, -1].mean() > 1 - bound("mostly"):
        return None
    order = np.argsort(steps, axis=1, kind="stable").reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return np.take_along_axis(x, order, 1)


def moved(outputs: Outputs, params: Any, x: np.ndarray, filler: float) -> float:
    """How far the outputs of a row move when all that it says is exchanged, the median of rows."""
    content = contents(x, filler)
    if x.dtype.kind == "f":
        other = np.where(content, x + x.std(), x)
    else:
        tokens = np.unique(x[content])
        other = np.where(content, tokens[np.searchsorted(tokens, x) - 1], x)
    before, after = ([np.asarray(leaf) for leaf in outputs(params, rows)] for rows in (x, other))
    far = [
        np.abs(a - b).reshape(len(x), -1).max(1)
        for a, b in zip(before, after, strict=True)
        if len(a) == len(x)
    ]
    return float(np.median(np.max(far, axis=0))) if far else 0.0


def ignored_by_loss(start: LossAtStart) -> Iterator[Finding]:
    """Parts of a batch that a bare loss does not depend on; there is no answer to ask for."""
    params, _, batch, _ = start.arguments
    leaves, tree = jax.tree.flatten(batch)
    for place, leaf in enumerate(leaves):
        data = np.asarray(leaf) if np.ndim(leaf) and np.shape(leaf)[0] > 2 else np.zeros(0)
        if data.dtype.kind not in "iuf" or data.size < 2:
            continue

        @jax.jit
        def outputs(params: Any, x: Any, place: int = place) -> list[Any]:
            whole = jax.tree.unflatten(tree, [*leaves[:place], x, *leaves[place + 1 :]])
            return [start.objective(params, {}, whole, (), jax.random.key(0))[0]]

        look = looked(outputs, params, data, data)
        name = start.training.paths[start.training.arguments[2][place]] or "batch"
        means = look.share == 1 and any(word in name.lower() for word in WHICH_COUNT)
        if look.share >= bound("much ignored"):
            yield (fault if means else note)(
                "inputs_ignored",
                f"{name}; {start.loss_line}" if means else name,
                f"{described(look, data)} change no loss when they change, whatever the "
                "parameters are" + (f"; {name} says which rows or steps count" if means else ""),
                f"{look.share:.0%} of the places of a row are not looked at",
                remedy=f"multiply by {name}, or by 1 - {name}, where a step or a row counts no more"
                if means
                else "",
                confidence=0.7 if means else 0.5,
            )


def skill_of(x: np.ndarray, target: Target) -> float:
    """The best skill of simple models; tokens are counted, and one-hot where these are few."""
    rows = np.random.default_rng(0).permutation(len(x))[:FITTED]
    x, target = x[rows], target._replace(answers=target.answers[rows])
    if x.dtype.kind in "iu" and target.kind != "places":
        known = np.unique(x)
        if len(known) <= TOKENS:
            flat = x.reshape(len(x), -1)
            one_hot = flat[..., None] == known
            x = one_hot.sum(1)
            if one_hot[0].size <= TABLE:
                x = np.concatenate([x, one_hot.reshape(len(x), -1)], 1)
    return references(x.astype(np.float32), target).best[1]


def described(look: Looked, data: np.ndarray) -> str:
    """The places that are ignored, in words."""
    places = look.ignored
    if not places.any():
        tokens = sorted(look.twins)
        return f"tokens {in_short(np.array(tokens))} are taken for {look.twins[tokens[0]]}, and"
    kept = f" (beside where {look.filler:g} stands)" if look.filler is not None else ""
    if not look.seen[look.asked].any():
        return f"all inputs{kept}"
    word = "steps" if data.dtype.kind in "iu" or data.ndim == 3 else "columns"
    if places.ndim == 1:
        return f"{word} {in_short(np.flatnonzero(places))} of {len(places)}{kept}"
    for axis, name in ((0, word), (places.ndim - 1, "features")):
        others = tuple(i for i in range(places.ndim) if i != axis)
        whole = np.asarray(places.any(others))
        if np.array_equal(places.sum(others), look.asked.sum(others) * whole):
            return f"{name} {in_short(np.flatnonzero(whole))} of {len(whole)}{kept}"
    return f"{look.share:.0%} of the places of a row{kept}"


def in_short(numbers: np.ndarray | list[str]) -> str:
    """Numbers as `3`, `1 to 29` or `1, 4, 6, ...`; names likewise."""
    if not isinstance(numbers, list) and len(numbers) > 2 and np.all(np.diff(numbers) == 1):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")


def line_that_drops(start: AtStart, look: Looked) -> str:
    """The line of the first operation at which a change of what is ignored is lost."""
    x = np.asarray(start.sample.x)
    looking = Looking(lambda params, x: [], start.params, x, look.filler)
    other = np.where(look.ignored, looking.rolled, x)
    if np.array_equal(other, x):
        other = np.array(x)
        for token, twin in look.twins.items():
            other[x == token] = twin
    leaves = [
        jax.tree.leaves((beside(start.params, 1.0, 0), start.state, rows)) for rows in (x, other)
    ]
    dropping = where_lost(start.sample.trace, *leaves)
    return dropping.where if dropping else ""


def where_lost(traced: Trace, first: list[Any], second: list[Any]) -> Operation | None:
    """The first operation that takes something changed and gives something unchanged.

    Args:
        traced: a program.
        first: the leaves of its arguments, but for a key.
        second: other ones.
    """
    key = jax.random.key(0)
    needed = traced.needed(traced.outputs)
    moving = traced.reached(traced.arguments[2]) & needed
    operations = [op for op in traced.operations if moving & set(op.outputs)]
    wanted = list(
        dict.fromkeys([*traced.arguments[2], *(v for op in operations for v in op.outputs)])
    )
    evaluate = jax.jit(lambda leaves: traced.evaluate(leaves, wanted))
    before, after = (evaluate([*leaves, key]) for leaves in (first, second))
    changed = {
        value
        for value, a, b in zip(wanted, before, after, strict=True)
        if not np.array_equal(on_host(a), on_host(b), equal_nan=False)
    }
    lost = [
        op
        for op in operations
        if op.where and changed & set(op.inputs) and not changed & set(op.outputs)
    ]
    return next((op for op in lost if op.name not in COMPARISONS), lost[0] if lost else None)
