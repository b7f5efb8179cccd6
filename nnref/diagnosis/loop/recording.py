"""A recorder for a loop that cannot be handed over: it is called beside each step.

with nnref.recording() as record:
    for batch in batches:
        state, loss = step(state, batch)
        record(state, loss=loss)
print(record.diagnose())
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.findings import Finding, Findings, fault, note, upstream
from nnref.diagnosis.loop import carried
from nnref.diagnosis.loop.course import Course, distance, inexact
from nnref.diagnosis.loop.movement import weight
from nnref.diagnosis.loop.roles import refuse
from nnref.diagnosis.loop.stepping import Parted, copied, is_array, on_host, paths_of
from nnref.diagnosis.program.updates import listed
from nnref.diagnosis.run.history import SHORTEST, History, Steps, diagnosed, history_of, measured
from nnref.diagnosis.run.step_faults import first_nonfinite
from nnref.diagnosis.thresholds import bound
from nnref.errors import UserError
from nnref.training.checkpoint import is_key
from nnref.training.probes import update_ratio

EVERY = 10  # calls, of which one keeps the state
MOST = 32  # states that are kept; then every other one goes, and half as many come
BYTES = 2**28  # that they take at most; two are kept of any state


@jax.jit
def flat(leaves: list[Any]) -> tuple[Any, Any]:
    """All numbers of floating point in one array, and all others in another: both are copies."""
    floats = [jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves if inexact(leaf)]
    others = [jnp.ravel(raw(leaf)).astype(jnp.uint32) for leaf in leaves if not inexact(leaf)]
    one, other = (jnp.concatenate(p) if p else jnp.zeros(0) for p in (floats, others))
    return one, other


def raw(leaf: Any) -> Any:
    """An array as numbers: of a key those that it is made of."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


class Recorder:
    """What was recorded of a loop; see `recording`."""

    def __init__(self, every: int, roles: dict[str, str] | None) -> None:
        """Begin with nothing."""
        self.every, self.roles = every, roles
        self.state: Any = None
        self.calls = 0
        self.losses: list[Any] = []
        self.valid: list[Any] = []
        self.measured: list[Steps] = []
        self.places: list[int] = []  # of the arrays among the leaves of the state
        self.dtypes: list[Any] = []  # of the arrays of the last state that is kept
        self.kept: list[tuple[Any, Any]] = []

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing is caught: what a loop raises is the user's to see."""

    def __call__(
        self,
        state: Any,
        *,
        loss: Any = None,
        valid_loss: Any = None,
        gradients: Any = None,
        updates: Any = None,
    ) -> None:
        """Note a step: its losses, and every few calls a copy of the state.

        Args:
            state: after the step, any tree; its buffers may be given away afterwards.
            loss: of the step, one number.
            valid_loss: where it was measured.
            gradients: of the loss, a tree like the parameters.
            updates: a tree like the gradients, what the step adds to the parameters; of both the
                lengths and the angle between them are kept, where they come with a loss.

        Raises:
            UserError: where gradients and updates are not of one form.
        """
        if gradients is not None and updates is not None and loss is not None:
            if jax.tree.structure(gradients) != jax.tree.structure(updates):
                raise UserError(
                    "record: gradients and updates are trees of different forms; give what "
                    "jax.grad and optimizer.update return"
                )
            self.measured.append(measured(loss, gradients, updates))
        if loss is not None:
            self.losses.append(loss)
        if valid_loss is not None:
            self.valid.append(valid_loss)
        if self.calls % self.every == 0:
            self.keep(state)
        self.calls += 1

    def keep(self, state: Any) -> None:
        """Keep a copy of the state, and fewer of them the longer the loop is."""
        leaves = jax.tree.leaves(state)
        if not self.kept:
            self.state = copied(state)
            self.places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]
        arrays = [leaves[place] for place in self.places]
        self.dtypes = [leaf.dtype for leaf in arrays]
        self.kept.append(flat(arrays))
        size = sum(part.nbytes for part in self.kept[0])
        if len(self.kept) > max(min(MOST, BYTES // max(size, 1)), 2):
            del self.kept[1:-1:2]
            self.every *= 2

    def history(self) -> History:
        """The losses, and the steps where each of them was measured."""
        losses = {"loss": self.losses} | ({"valid_loss": self.valid} if self.valid else {})
        whole = len(self.measured) == len(self.losses)
        steps = jax.device_get(self.measured) if whole else None
        stacked = steps and jax.tree.map(lambda *norms: np.stack(norms).astype(float), *steps)
        if stacked:
            stacked = stacked._replace(finite=stacked.finite.astype(bool))
        return history_of(jax.device_get(losses), stacked or None)

    def diagnose(self) -> Findings:
        """What the record says.

        Raises:
            UserError: where nothing was recorded.
        """
        if not self.calls:
            raise UserError("recording: nothing was recorded; call record(state, loss=loss)")
        findings = diagnosed(self.history()) if self.losses else Findings()
        if len(self.kept) < 2:
            return findings
        course = Recorded(self)
        found = [finding for look in LOOKS.values() for finding in look(course)]
        causes = {finding.cause for finding in found}
        found += [finding for finding in findings if finding.cause not in causes]
        measures = {**findings.measures, "roles": dict(course.roles)}
        checked = *LOOKS, *findings.checked
        return Findings(tuple(upstream(found)), checked, findings.impossible, measures)


class Recorded(Course):
    """The course of a state as it was recorded."""

    def __init__(self, record: Recorder) -> None:
        """Take what was kept onto the host, and apart."""
        paths, leaves = paths_of(record.state), jax.tree.leaves(record.state)
        names = [paths[place].removesuffix(".value") for place in record.places]
        start = dict(zip(names, (leaves[place] for place in record.places), strict=True))
        super().__init__(record.state, Parted(start, lambda new: new), refuse(record.roles, names))
        first = on_host(start)
        self.states = [self.unflat(first, kept) for kept in jax.device_get(record.kept)]
        self.states[0] = first
        for name, dtype in zip(names, record.dtypes, strict=True):
            if inexact(first[name]):
                self.states[-1][name] = self.states[-1][name].astype(dtype)
        self.moves = {
            name: np.array([distance(b[name], a[name]) for b, a in self.pairs]) for name in names
        }
        self.programs, self.turns = [None], len(self.states) - 1
        self.comes_back, self.every, self.steps = True, record.every, record.calls
        self.losses = jax.device_get(record.losses)
        self.last = {}

    def unflat(self, first: dict[str, np.ndarray], kept: Any) -> dict[str, np.ndarray]:
        """The arrays of a state that was kept as two."""
        places, found = [0, 0], {}
        for name, leaf in first.items():
            which = 0 if inexact(leaf) else 1
            part = kept[which][places[which] : places[which] + leaf.size]
            places[which] += leaf.size
            part = part.reshape(leaf.shape) if part.size == leaf.size else part
            found[name] = part.astype(leaf.dtype) if which else part
        return found


def nonfinite(course: Recorded) -> Iterator[Finding]:
    """The first state that was kept and has a number that is not finite."""
    floating = course.floating()
    for number, state in enumerate(course.states):
        names = [name for name in floating if not np.isfinite(state[name]).all()]
        if names:
            step = min(number * course.every, course.steps)
            yield first_nonfinite(
                "parameters",
                step,
                f"in {listed(names)}",
                grew=number > 1 and grows(course, number),
                where=listed(names),
                confidence=0.6,
            )
            return


def grows(course: Recorded, number: int) -> bool:
    """Whether the parameters have grown many times before a state."""
    names = course.of("parameter") or course.floating()
    sizes = [
        max(float(np.abs(state[name].astype(np.float64)).max(initial=0)) for name in names)
        for state in (course.states[0], course.states[number - 1])
    ]
    return sizes[1] > bound("growth") * max(sizes[0], 1e-30)


def standing(course: Recorded) -> Iterator[Finding]:
    """Copies, statistics and other arrays that no step has moved, while the parameters move."""
    if not any(course.moves[path].any() for path in course.of("parameter")):
        return
    targets = [path for path in course.of("target") if course.stands(path)]
    if targets:
        named = any(word in path.lower() for path in targets for word in ("target", "ema", "slow"))
        long = course.steps >= bound("long record")
        yield (fault if named and long else note)(
            "target_stands",
            listed(targets),
            f"{listed(targets)}: a copy of the network that learns, and in "
            f"{course.steps} steps it was never moved: fine for a teacher alone",
            "moved by 0",
            confidence=0.7 if named and long else 0.4,
        )
    others = [
        path
        for path in course.floating()
        if path not in course.optimizers | set(course.copies) and course.stands(path)
    ]
    first = course.states[0]
    ones = [p for p in others if first[p].ndim and (first[p] == 1).all()]
    zeros = {first[p].shape for p in others if not first[p].any()}
    never = [p for p in ones if first[p].shape in zeros and p not in course.moments.values()]
    if never and course.moments:
        yield fault(
            "batch_statistics_not_updated",
            listed(never),
            f"{listed(never)} are 1 at every step, beside others that are 0, while the parameters "
            "move: running statistics that were never measured",
            "moved by 0",
            confidence=0.7,
        )


def slow(course: Recorded) -> Iterator[Finding]:
    """Parameters that hardly move, where the loss has not fallen."""
    loss = np.asarray(course.losses, float).ravel()
    if len(loss) < SHORTEST or not np.isfinite(loss).all():
        return
    first, *_, last = History(loss).parts
    if first - last > bound("fallen") * abs(first):
        return
    weights = np.array([weight(course, state) for state, _ in course.pairs])
    step = float(np.median(update_ratio(course.moved(), weights, 1e-30))) / course.every
    if 0 < step < bound("slow step"):
        yield fault(
            "learning_rate_too_low",
            "updates",
            f"the loss goes from {first:.4g} to {last:.4g}, and a step moves the parameters by "
            f"{step:.1e} of their length",
            f"{step:.1e}",
            remedy="a learning rate ten to a hundred times as large",
            confidence=0.7,
        )


LOOKS = {
    "whether what changes comes back": carried.nothing_comes_back,
    "numbers that are not finite": nonfinite,
    "parameters that stand": carried.parameters_stand,
    "the optimizer's own state": carried.optimizer_stands,
    "dtypes": carried.dtypes,
    "copies and statistics that stand": standing,
    "steps against the weights": slow,
}


def recording(every: int = EVERY, roles: dict[str, str] | None = None) -> Recorder:
    """A recorder to be called beside each step of a loop: `record(state, loss=loss)`.

    Args:
        every: calls, of which one compares the state with what it was before; all take the loss.
        roles: of leaves of the state, where what is inferred is wrong: see `nnref.examine`.

    Raises:
        UserError: where `every` is no whole number from 1 up.
    """
    if not isinstance(every, int) or every < 1:
        raise UserError(f"recording: every is {every!r}; it is a whole number from 1 up")
    return Recorder(every, roles)
