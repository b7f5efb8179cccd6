"""A loop that does not learn, with small edits of its lines, judged by its own evaluation."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nnref.diagnosis.findings import Finding
from nnref.diagnosis.loop.running import Loop, Theirs, made
from nnref.diagnosis.loop.stepping import Arrays, copied, is_array, numbers
from nnref.diagnosis.one_edit.judging import cured, of_evaluation
from nnref.diagnosis.one_edit.scale import Scale, scale_of
from nnref.diagnosis.one_edit.search import Batch, Trained, functions_of

BYTES = 2**28  # of batches that are kept
SECONDS = 10.0  # of an idle core, for the first runs of all edits


def one_edit(loop: Loop, effort: float) -> list[Finding]:
    """The edit of one expression with which a loop learns that does not.

    Raises:
        Theirs: what the evaluation raises.
        Exception: where the step cannot be traced with its edits.
    """
    if len(loop.steps) != 1 or loop.programs[0] is None:
        return []
    scale = scale_for(loop)
    if scale is None or not has_not_learned(loop, scale):
        return []
    end = loop.further.state.arrays
    training = trained(loop)
    steps = loop.count + len(loop.further.lengths)
    ran = functions_of(training)
    evaluated = of_evaluation(training, ran, scale, loop.start.arrays, end, steps)
    best = cured(training, ran, scale, SECONDS * effort)
    # What no training is needed for is the plainer cause, unless another one brings clearly more.
    if evaluated and not (best and scale.improves(evaluated.error, best.error)):
        best = evaluated
    return [] if best is None else [best.finding]


def scale_for(loop: Loop) -> Scale | None:
    """The scale of the loop's evaluation; None where there is none, or its best is not known.

    Raises:
        Theirs: what the evaluation raises.
    """
    if loop.evaluate is None:
        return None
    return scale_of(loop.evaluate, score_of(loop, loop.start.arrays))


def has_not_learned(loop: Loop, scale: Scale) -> bool:
    """Whether the evaluation says so, behind the further steps.

    Raises:
        Theirs: what the evaluation raises.
    """
    return scale.cures(scale.error(score_of(loop, loop.further.state.arrays)), scale.best)


def gets_better(loop: Loop) -> bool:
    """Whether the evaluation of the state behind the further steps is better than at the start.

    Raises:
        Theirs: what the evaluation raises.
    """
    scale = scale_for(loop)
    if scale is None:
        return False
    start = scale.error(score_of(loop, loop.start.arrays))
    return scale.improves(start, scale.error(score_of(loop, loop.further.state.arrays)))


def score_of(loop: Loop, arrays: Arrays) -> dict[str, float]:
    """The numbers of the evaluation of a state.

    Raises:
        Theirs: what the user's function raises.
    """
    try:
        whole = loop.start.rebuild(copied(arrays))
        return numbers(loop.evaluate(whole)) if loop.evaluate is not None else {}
    except Exception as error:
        raise Theirs(error) from error


class Supply:
    """The batches of a loop, epoch after epoch, as far as there is room; then these come again."""

    def __init__(self, loop: Loop) -> None:
        """Of a loop that was run; the user's functions make the batches once more."""
        self.loop, self.drawn = loop, dict[int, Any]()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(loop.batch(0)) if is_array(leaf))
        self.most = BYTES // max(size, 1)
        again = made(loop.given_batches)
        # What is no iterable, or one that has been used up, gives no more than it gave.
        over = not isinstance(again, Iterable) or iter(again) is loop.given_batches
        self.kept = list(loop.batches) if over else []
        self.coming = iter(()) if over else self.epochs()

    def epochs(self) -> Iterator[Any]:
        """The batches of all epochs; a list is one that comes again."""
        while True:
            epoch = made(self.loop.given_batches)
            yield from epoch
            if epoch is self.loop.given_batches:
                return

    def batch(self, place: int, seed: int) -> Any:
        """The batch of a step; a seed but the first takes them in another order."""
        if self.loop.drawn is not None:
            place += seed * self.loop.count
            if place not in self.drawn:
                self.drawn[place] = self.loop.drawn(place)
            return self.drawn[place]
        while len(self.kept) <= place and len(self.kept) < self.most:
            new = next(self.coming, None)
            if new is None:
                break
            self.kept.append(new)
        count = len(self.kept)
        if count == 0:
            return ()
        if seed:
            order = np.random.default_rng([seed, place // count]).permutation(count)
            place = int(order[place % count])
        return self.kept[place % count]


def trained(loop: Loop) -> Trained:
    """The loop as a training: each seed but the first takes the batches in another order."""
    leaves, structure = jax.tree.flatten(loop.batch(0))

    def step(arrays: Arrays, batch: Sequence[Any], key: Any) -> Arrays:
        rest = iter(batch)
        whole = structure.unflatten([next(rest) if is_array(leaf) else leaf for leaf in leaves])
        return {**arrays, **loop.steps[0](loop.start, arrays, whole, key).state.arrays}

    def supply() -> Batch:
        whole = Supply(loop).batch
        return lambda place, seed: [
            leaf for leaf in jax.tree.leaves(whole(place, seed)) if is_array(leaf)
        ]

    return Trained(
        lambda seed: copied(loop.start.arrays),
        step,
        supply(),
        lambda arrays: score_of(loop, arrays),
        loop.key,
        supply,
    )
