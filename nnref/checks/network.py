"""Properties of a network, each as one call: it raises, or says its figures."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.checks.subject import Answer, NotApplicable, Subject, checked
from nnref.diagnosis.findings import Finding, as_note, fault, note
from nnref.diagnosis.judge.judge import fault_even_if_it_learns
from nnref.diagnosis.judge.signal_checks import first_loss, measured_in_depth
from nnref.diagnosis.program.arithmetic import gradients
from nnref.diagnosis.program.at_start import SeveralOutputs
from nnref.diagnosis.program.blocked import blocked
from nnref.diagnosis.program.broadcasts import broadcasts
from nnref.diagnosis.program.ignored import filler_of
from nnref.diagnosis.program.keys import draws, random_key, randomness
from nnref.diagnosis.program.outputs import outputs
from nnref.diagnosis.program.rows import batch_dependence
from nnref.diagnosis.program.sequences import FEWEST, future_leakage, seen_ahead
from nnref.diagnosis.program.step import batch_scale, statistics
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.program.updates import listed, optimizer
from nnref.diagnosis.program.wiring import unused
from nnref.diagnosis.thresholds import bound
from nnref.parts.chain import updated

STEPS = 5  # after which every parameter has moved: a last layer of zeros lets pass from the second
GROWN = (4, 16, 64)  # times as large as at the start: a network that has grown sure
LARGE_OUTPUT = 30.0  # beyond which an exponential of outputs may overflow, as it may in training
LONGER = 3  # steps of padding that are added


def outputs_of(subject: Subject, x: Any, train: bool = False, key: int = 0) -> list[np.ndarray]:
    """The outputs before the first step, in double precision."""
    start = subject.start
    tree, _ = start.network(start.params, start.state, x, jax.random.key(key), train)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def apart(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """The largest difference of two lists of arrays, over the largest number of the first."""
    sizes = [float(np.max(np.abs(a), initial=0)) for a in first]
    moved = [float(np.max(np.abs(a - b), initial=0)) for a, b in zip(first, second, strict=True)]
    return max(moved, default=0.0) / max(*sizes, 1e-30)


@checked
def overfits_one_batch(subject: Subject, *, least: float = 0.9) -> Answer:
    """Two rows, and larger batches, are learned by heart, under Adam without regularization.

    What cannot do that is no question of data or patience (Karpathy 2019, "A recipe for training
    neural networks"). Skill is 0 for the best constant answer and 1 for a perfect one; the smallest
    batch must reach `least`.
    """
    skills = subject.interventions.overfit_one_batch
    if not skills:
        raise NotApplicable(
            "overfits_one_batch: no batch of two different targets could be trained"
        )
    rows, skill = next(iter(skills.items()))
    measured = {f"skill on {rows} rows": skill for rows, skill in skills.items()}
    found = []
    if skill < least:
        fails = subject.measured.skill.fits and max(skills.values()) < bound("good")
        # Targets of thousands are out of Adam's reach in so few steps: what learns all rows as it
        # is trained can learn two.
        fails = fails and not subject.signals.learned
        found = [
            (fault if fails else note)(
                "gradient_blocked",
                "the network",
                f"trained on {rows} rows alone, under Adam at 0.01 and without regularization, it "
                f"reaches a skill of {skill:.2f} on them",
                f"{skill:.2f}",
                healthy=f"{least:g}",
                remedy="nnref.diagnose(task) says why: a way that no gradient passes, a loss of "
                "other targets, an output that cannot reach them",
            )
        ]
    return Answer(measured, found)


@checked
def loss_at_start(subject: Subject) -> Answer:
    """The first loss is finite, and about that of knowing nothing: ln K of K classes."""
    loss, constant = subject.measured.start.loss, subject.measured.skill.constant_loss
    found = list(first_loss(subject.signals))
    if not np.isfinite(loss):
        found = [fault("numerical_instability", "loss", "the first loss is not finite", f"{loss}")]
    return Answer({"loss": loss, "loss of the best constant": constant}, found)


@checked
def loss_fits_outputs(subject: Subject) -> Answer:
    """The loss takes what the network gives and what the targets are: ranges, widths, axes.

    What only looks odd, and learns as well as simple models do, is worth knowing and no fault.
    """
    start = subject.start
    try:
        found = [*outputs(start), *broadcasts(start)]
    except SeveralOutputs as error:
        raise NotApplicable(f"loss_fits_outputs: {error}") from None
    return Answer({"width": start.width}, noted_if_it_learns(subject, found))


def noted_if_it_learns(subject: Subject, found: list[Finding]) -> list[Finding]:
    """Faults of a network that learns all the same, as notes; it is trained only if there are."""
    wrong = [finding for finding in found if finding.severity == "fault"]
    if any(not fault_even_if_it_learns(finding) for finding in wrong) and subject.signals.learned:
        return [f if fault_even_if_it_learns(f) else as_note(f) for f in found]
    return found


@checked
def gradients_match_finite_differences(subject: Subject) -> Answer:
    """The gradient is the slope of the loss, as central differences measure it, leaf by leaf."""
    return Answer({"parameters": sizes(subject)}, list(gradients(subject.start)))


def sizes(subject: Subject) -> int:
    """The number of the parameters."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(subject.start.params))


@checked
def all_parameters_train(subject: Subject, *, frozen: tuple[str, ...] = ()) -> Answer:
    """Every parameter gets a gradient and moves within five steps of the optimizer.

    `frozen` are beginnings of the paths of those that are meant to stay.
    """
    start = subject.start
    moves = moved(subject)
    still = [n for n, move in moves.items() if not move.any() and not n.startswith(frozen)]
    found = list(chain(unused(start), blocked(start), optimizer(start), alike(subject, moves)))
    if still and not found:
        found = [
            note(
                "parameters_not_updated",
                listed(still),
                f"{listed(still)}: not moved by {STEPS} steps of the optimizer",
                "exactly 0",
                remedy='frozen=("path",) where it is meant to stay',
            )
        ]
    kept = [f for f in found if not (frozen and f.where.startswith(frozen))]
    every = np.concatenate([move.ravel() for move in moves.values()])
    figures = {"largest move": float(every.max()), "share that moved": float((every > 0).mean())}
    return Answer({"parameters": sizes(subject)} | figures, kept)


def alike(subject: Subject, moves: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Units of a layer that start with the same weights and take the same steps."""
    kernels = jax.tree.leaves(subject.start.params)
    for (path, move), kernel in zip(moves.items(), kernels, strict=True):
        if move.ndim < 2 or move.shape[-1] < 2 or not move.any():
            continue
        units, steps = (np.asarray(a).reshape(-1, move.shape[-1]) for a in (kernel, move))
        same = np.ptp(steps, axis=1).max() <= bound("identical") * steps.max()
        if same and not np.ptp(units, axis=1).any():
            yield fault(
                "constant_initialization",
                path,
                f"all {move.shape[-1]} units start with the same weights and take the same steps: "
                "together they are no more than one",
                f"{move.shape[-1]} identical columns",
            )


def moved(subject: Subject) -> dict[str, np.ndarray]:
    """How far each number of a parameter is from its start after a few steps, by its path."""
    recipe, start = subject.recipe, subject.start
    batches = [subject.batch(number) for number in range(STEPS)]

    def objective(params: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
        loss, _, state = start.objective(params, state, x, y, key)
        return loss + jnp.sum(jnp.asarray(recipe.penalty(params))), state

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, x: Any, y: Any, key: Any) -> Any:
        gradient, state = jax.grad(objective, has_aux=True)(params, state, x, y, key)
        updates, opt_state = updated(recipe.optimizer, gradient, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    params, state, opt_state = start.params, start.state, recipe.optimizer.init(start.params)
    for number, (x, y) in enumerate(batches):
        key = jax.random.key(number)
        params, state, opt_state = step(params, state, opt_state, x, y, key)
    before, after = (jax.tree.leaves_with_path(tree) for tree in (start.params, params))
    return {
        name_of(path): np.abs(np.asarray(b, float) - np.asarray(a, float))
        for (path, a), (_, b) in zip(before, after, strict=True)
    }


@checked
def rows_are_independent(subject: Subject) -> Answer:
    """No answer changes with the other rows of its batch, nor with its place among them."""
    if subject.recipe.restart is not None or len(subject.recipe.train[0]) < 3:
        raise NotApplicable("rows_are_independent: the state goes on from batch to batch")
    return Answer({}, list(batch_dependence(subject.start)))


@checked
def is_causal(subject: Subject) -> Answer:
    """Of a sequence, no output changes with what comes after its step."""
    x, outputs = np.asarray(subject.recipe.train[0]), subject.start.sample.outputs
    same_steps = outputs is not None and x.ndim > 1 and outputs.shape[1:2] == x.shape[1:2]
    if outputs is None or not same_steps or x.shape[1] < FEWEST:
        raise NotApplicable("is_causal: inputs and outputs are no sequences of the same steps")
    share = seen_ahead(subject.start, outputs)
    found = list(future_leakage(subject.start))
    if not found and share > bound("batch dependence"):
        found = [
            note(
                "leaked_targets",
                subject.start.last,
                "outputs of early steps change with later steps of the inputs",
                f"by {share:.2g} of the largest output",
                healthy="0",
                remedy="a causal mask, jnp.tril(jnp.ones((steps, steps))), or one direction",
            )
        ]
    return Answer({"change with later steps": share}, found)


@checked
def train_and_eval_modes_differ_only_as_told(subject: Subject) -> Answer:
    """Evaluation draws nothing, and its statistics are those that training has written.

    Where training draws nothing and keeps no statistics, both modes give the same numbers.
    """
    start, (x, _) = subject.start, subject.batch(0)
    found = [f for f in randomness(start) if f.cause != "random_key_reused"]
    found += statistics(start)
    evaluated = outputs_of(subject, x)
    differs = apart(evaluated, outputs_of(subject, x, train=True))
    plain = not jax.tree.leaves(start.state) and not draws(start.training, start.training.outputs)
    if plain and differs > bound("batch dependence"):
        found.append(
            note(
                "batch_statistics_not_updated",
                "apply",
                "training mode gives other outputs than evaluation, draws nothing and keeps no "
                "statistics",
                f"by {differs:.2g} of the largest output",
                healthy="0",
                remedy="running statistics in evaluation, or the same function in both modes",
            )
        )
    return Answer({"difference of the modes": differs}, found)


@checked
def padding_is_ignored(subject: Subject, *, pad: float | None = None) -> Answer:
    """Outputs stay as they are where steps of padding are added behind a sequence.

    `pad` is the number that stands for nothing; by default the one that pads the training rows.
    """
    x = np.asarray(subject.recipe.train[0])
    pad = filler_of(x) if pad is None else pad
    if pad is None or x.ndim < 2:
        raise NotApplicable("padding_is_ignored: nothing pads these rows; say pad=0")
    x, _ = subject.batch(0)
    wide = [(0, 0), (0, LONGER), *[(0, 0)] * (x.ndim - 2)]
    before = outputs_of(subject, x)
    try:
        after = outputs_of(subject, np.pad(x, wide, constant_values=pad))
    except Exception as error:  # a network of one length, which cannot be asked
        raise NotApplicable(f"padding_is_ignored: it takes no longer rows: {error}") from None
    pairs = zip(before, after, strict=True)
    after = [b if a.shape == b.shape else b[:, : a.shape[1]] for a, b in pairs]
    share = apart(before, after)
    found = []
    if share > bound("batch dependence"):
        found = [
            note(
                "inputs_misread",
                subject.start.last,
                f"outputs change where {LONGER} steps of padding ({pad:g}) are added behind a row",
                f"by {share:.2g} of the largest output",
                healthy="0",
                remedy=f"a mask: x != {pad:g}, in attention, in means and in the last step",
            )
        ]
    return Answer({"change with padding": share}, found)


@checked
def no_dead_units_at_start(subject: Subject, *, most: float = 0.5) -> Answer:
    """In no hidden layer is a larger share of the units than `most` silent for every row."""
    levels = subject.measured.start.levels[:-1]
    shares = {
        layer.place: level.dead
        for layer, level in zip(subject.measured.layers, levels, strict=False)
    }
    if not shares:
        raise NotApplicable("no_dead_units_at_start: no hidden layer was found")
    place = max(shares, key=shares.__getitem__)
    found = []
    if shares[place] > most or shares[place] >= bound("dead"):
        found = [
            (fault if shares[place] >= bound("dead") else note)(
                "dying_relu",
                place,
                f"{shares[place]:.0%} of the units of {place} are 0 for every row before training",
                f"{shares[place]:.0%}",
                healthy=f"at most {most:.0%}",
            )
        ]
    return Answer({"dead units": shares[place]}, found)


@checked
def loss_is_a_mean(subject: Subject) -> Answer:
    """A batch that is repeated has the same loss."""
    try:
        return Answer({}, list(batch_scale(subject.start)))
    except SeveralOutputs as error:
        raise NotApplicable(f"loss_is_a_mean: {error}") from None


@checked
def key_matters(subject: Subject) -> Answer:
    """Random numbers of training come from the key of the step: another key draws others."""
    start, (x, _) = subject.start, subject.batch(0)
    if not draws(start.training, start.training.outputs[:1]):
        raise NotApplicable("key_matters: training draws no random numbers")
    outputs = [outputs_of(subject, x, train=True, key=key) for key in (1, 2)]
    return Answer({"difference by key": apart(*outputs)}, list(random_key(start)))


@checked
def same_seed_same_bits(subject: Subject) -> Answer:
    """Drawn and called twice from one seed, the network is the same to the last bit."""
    x, _ = subject.batch(0)

    def once() -> list[np.ndarray]:
        # A function of its own each time: numbers that Python draws while tracing are drawn anew.
        def called(key: Any) -> Any:
            params, state = subject.recipe.init(key)
            return params, subject.recipe.apply(params, state, x, key, True)[0]

        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(called)(jax.random.key(0)))]

    first, second = once(), once()
    same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)]
    found = []
    if not all(same):
        found = [
            note(
                "random_key_reused",
                "init or apply",
                f"{same.count(False)} of {len(same)} arrays differ between two calls from one "
                "seed: numbers are drawn outside of JAX",
                f"{apart(first, second):.2g} of the largest number",
                healthy="0",
                remedy="jax.random with the key that is passed, not np.random, random or a clock",
            )
        ]
    return Answer({"arrays": len(same)}, found)


@checked
def survives_extreme_batches(subject: Subject) -> Answer:
    """Loss and gradient are finite for the largest rows, one row, equal rows, and rows of zeros.

    The loss is so for a network that has grown sure as well: it keeps weights of 4, 16 and 64
    times their size.
    """
    found = list(not_finite(subject)) or noted_if_it_learns(
        subject, list(not_finite_when_sure(subject))
    )
    return Answer({"batches": len(extremes(subject))}, found)


def extremes(subject: Subject) -> dict[str, tuple[np.ndarray, np.ndarray, bool]]:
    """Batches at the edge, and whether their rows stand in the data."""
    x, y = subject.recipe.train
    rows = min(len(x), subject.recipe.rows or subject.recipe.batch_size)
    length = np.abs(x.reshape(len(x), -1).astype(np.float64)).max(1)
    order, by_target = np.argsort(length, kind="stable"), np.argsort(y.reshape(len(y), -1)[:, 0])
    batches = {
        "the largest rows": (x[order[-rows:]], y[order[-rows:]], True),
        "the smallest rows": (x[order[:rows]], y[order[:rows]], True),
        "rows of one target": (x[by_target[:rows]], y[by_target[:rows]], True),
        "equal rows": (np.repeat(x[:1], rows, 0), np.repeat(y[:1], rows, 0), False),
    }
    if subject.recipe.rows is None:
        batches["one row"] = x[:1], y[:1], False
    if x.dtype.kind == "f":
        batches["rows of zeros"] = np.zeros_like(x[:rows]), y[:rows], False
    return batches


def not_finite(subject: Subject) -> Iterator[Finding]:
    """The extreme batches whose loss or gradient is NaN or infinite."""
    start = subject.start

    @jax.jit
    def both(params: Any, x: Any, y: Any) -> Any:
        def loss(params: Any) -> Any:
            return start.objective(params, start.state, x, y, jax.random.key(0))[0]

        return jax.value_and_grad(loss, allow_int=True)(params)

    for name, (x, y, real) in extremes(subject).items():
        value, gradient = both(start.params, x, y)
        leaves = [
            leaf for leaf in jax.tree.leaves(gradient) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        if np.isfinite(value) and all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves):
            continue
        what = "gradient" if np.isfinite(value) else "loss"
        yield (fault if real else note)(
            "numerical_instability",
            start.loss_line,
            f"for {name} the {what} is not finite",
            f"loss {float(value):.3g}",
        )
        return


def not_finite_when_sure(subject: Subject) -> Iterator[Finding]:
    """A loss that is NaN or infinite where weights have grown, and no output is large."""
    start, (x, y) = subject.start, subject.batch(0)
    measure = jax.jit(start.objective)
    for times in GROWN:
        grown = jax.tree.map(lambda leaf, times=times: leaf * times, start.params)
        loss, outputs, _ = measure(grown, start.state, x, y, jax.random.key(0))
        sizes = [float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(outputs)]
        if not np.isfinite(loss) and all(size <= LARGE_OUTPUT for size in sizes):
            yield fault(
                "numerical_instability",
                start.loss_line,
                f"with weights {times} times as large, as training makes them, the loss is not "
                f"finite, and no output is beyond {max(sizes, default=0.0):.3g}",
                f"loss {float(loss):.3g}",
                remedy="a loss of logits, or a logarithm of jnp.maximum(p, 1e-7)",
            )
            return


@checked
def signal_at_start(subject: Subject) -> Answer:
    """Root mean squares of each layer's outputs and of its kernel's gradient before training.

    They are finite, and neither explode nor vanish through the depth of a network that does not
    learn; beyond that they are figures to compare a later one with.
    """
    seen = subject.measured.start
    measured = {}
    for number, (level, gradient) in enumerate(zip(seen.levels, seen.gradients, strict=False), 1):
        measured |= {f"signal of layer {number}": level.size, f"gradient of {number}": gradient}
    bad = [name for name, size in measured.items() if not np.isfinite(size)]
    if bad:
        found = [fault("numerical_instability", bad[0], f"{bad[0]} is not finite")]
    else:
        found = noted_if_it_learns(subject, list(measured_in_depth(subject.signals)))
    return Answer(measured | {"parameters": sizes(subject)}, found)


@checked
def learns(subject: Subject, *, least: float | None = None) -> Answer:
    """Trained as told, as far as the effort goes, it reaches the skill `least` on training rows.

    By default that of a run which has not failed, beside simple models on the same rows.
    """
    measured = subject.measured
    trained, reference = measured.trained, measured.reference.best[1]
    needed = bound("failed") * reference if least is None else least
    found = []
    if not trained.skill >= needed:
        found = [
            fault(
                "undertrained",
                "the run",
                f"trained as told it reaches a skill of {trained.skill:.2f}",
                f"{trained.skill:.2f}, loss {trained.loss:.3g}",
                healthy=f"{needed:.2f}",
                remedy="nnref.diagnose(task) says why",
            )
        ]
    figures = {"skill on training rows": trained.skill, "loss on training rows": trained.loss}
    if measured.validated is not None:
        figures["skill on validation rows"] = measured.validated.skill
    return Answer(figures, found)
