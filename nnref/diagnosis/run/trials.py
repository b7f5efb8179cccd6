"""A short run with the subject's own optimizer, in one compiled program, and what it shows."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.causes import bound
from nnref.diagnosis.recipe import Subject, updated

Tree = Any
SNAPSHOTS = 20  # parameter snapshots over a run, for what changes slowly
WORTH = 4.0  # times the compiling of a run: further runs that last less are not worth a program


class Change(NamedTuple):
    """What a run does differently: factors on updates and penalty, and which of the data sets.

    The penalty is that of the loss and the decay of the weights in the optimizer.
    """

    rate: Any = 1.0
    penalty: Any = 1.0
    inputs: Any = 0
    targets: Any = 0


class Step(NamedTuple):
    """What one step shows; norms by leaf of the parameters."""

    loss: Any
    penalty: Any
    largest_output: Any
    gradient: Any
    update: Any
    weight: Any
    along: Any  # cosine between update and gradient: -1 descends
    finite: Any  # of outputs, loss, gradient, updates: the first False is where it was born


@dataclass
class Run:
    """A run as recorded: a Step of arrays over steps, and parameters now and then."""

    steps: Step
    snapshots: list[tuple[int, Tree, Tree]]
    carry: Any
    planned: int
    seconds: float

    @property
    def params(self) -> Tree:
        """Where the run ended."""
        return self.snapshots[-1][1]

    @property
    def state(self) -> Tree:
        """The state of the network there."""
        return self.snapshots[-1][2]

    @property
    def complete(self) -> bool:
        """Whether every step the user asked for was taken."""
        return len(self.steps.loss) >= self.planned


def norms(tree: Tree) -> jax.Array:
    """The Euclidean norm of every leaf, in single precision."""
    return jnp.stack(
        [jnp.linalg.norm(leaf.astype(jnp.float32).ravel()) for leaf in jax.tree.leaves(tree)]
    )


def lengths(norms: Any) -> np.ndarray:
    """Norms of whole trees, in double precision, from those of their leaves: (steps, leaves)."""
    return np.sqrt((np.asarray(norms, np.float64) ** 2).sum(1))


def inner_product(a: Tree, b: Tree) -> jax.Array:
    """Of two trees, in single precision."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    products = [jnp.sum(x.astype(jnp.float32) * y.astype(jnp.float32)) for x, y in pairs]
    return jnp.sum(jnp.stack(products))


def all_finite(tree: Tree) -> jax.Array:
    """Whether every number of a tree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def largest(tree: Tree) -> jax.Array:
    """The largest magnitude in a tree, in single precision."""
    leaves = [jnp.max(jnp.abs(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(leaves))


class Trainer:
    """The training of a subject, compiled once for every change of it."""

    def __init__(
        self, subject: Subject, stepwise: bool = False, decay: tuple[float, ...] = ()
    ) -> None:
        self.subject = subject
        self.stepwise = stepwise
        self.decay = decay  # what a step of the optimizer takes of each parameter, gradient or not
        self.rows = len(subject.train[0])
        self.batch = min(subject.batch_size, self.rows)
        self.steps_per_epoch = self.rows // self.batch
        epochs = subject.epochs
        # The largest divisor that still leaves enough snapshots: one compiled chunk serves all.
        fewest = min(epochs, SNAPSHOTS // 2)
        self.chunk_epochs = max(d for d in range(1, epochs // fewest + 1) if epochs % d == 0)
        self.chunk: Any = jax.jit(self._chunk)
        self.step = jax.jit(self._step)
        self.order = jax.jit(self._order)
        self.compiling = 0.0  # seconds that the chunk took to compile, once it is
        self.lasting = 0.0  # and about what a run of it lasts

    def start(self, key: jax.Array, params: Tree = None, state: Tree = None) -> Any:
        """Parameters, state, optimizer state and key, before the first step."""
        init_key, key = jax.random.split(key)
        if params is None:
            params, state = self.subject.init(init_key)
        return params, state, self.subject.optimizer.init(params), key

    def _order(self, carry: Any) -> tuple[Any, jax.Array]:
        """What an epoch begins with, and its batches of rows."""
        params, state, opt_state, key = carry
        key, order_key = jax.random.split(key)
        rows = jnp.arange(self.rows)
        if self.subject.shuffle:
            rows = jax.random.permutation(order_key, self.rows)
        kept = self.steps_per_epoch * self.batch
        carry = params, self.subject.begun(params, state), opt_state, key
        return carry, rows[:kept].reshape(-1, self.batch)

    def _step(self, carry: Any, rows: jax.Array, x: Any, y: Any, change: Change) -> Any:
        params, state, opt_state, key = carry
        key, apply_key = jax.random.split(key)
        subject = self.subject

        def objective(params: Tree) -> Any:
            given, wanted = x[change.inputs, rows], y[change.targets, rows]
            outputs, after = subject.apply(params, state, given, apply_key, True)
            loss, penalty = subject.loss(outputs, wanted), subject.penalty(params)
            total = loss + change.penalty * penalty
            return jnp.asarray(total, loss.dtype), (after, outputs, loss, penalty)

        (total, (state, outputs, loss, penalty)), gradient = jax.value_and_grad(
            objective, has_aux=True
        )(params)
        updates, opt_state = updated(
            subject.optimizer, gradient, opt_state, params, lambda p: objective(p)[0], total
        )
        if self.decay:
            given_back = jax.tree.unflatten(jax.tree.structure(params), self.decay)
            updates = jax.tree.map(
                lambda u, d, p: u + ((1 - change.penalty) * d * p).astype(u.dtype),
                updates,
                given_back,
                params,
            )
        updates = jax.tree.map(lambda u: (u * change.rate).astype(u.dtype), updates)
        gradient_norms, update_norms = norms(gradient), norms(updates)
        length = jnp.sqrt(jnp.sum(gradient_norms**2)) * jnp.sqrt(jnp.sum(update_norms**2))
        shown = Step(
            loss=loss.astype(jnp.float32),
            penalty=jnp.asarray(penalty, jnp.float32),
            largest_output=largest(outputs),
            gradient=gradient_norms,
            update=update_norms,
            weight=norms(params),
            along=inner_product(updates, gradient) / jnp.maximum(length, 1e-30),
            finite=jnp.stack(
                [all_finite(outputs), jnp.isfinite(loss), all_finite(gradient), all_finite(updates)]
            ),
        )
        return (optax.apply_updates(params, updates), state, opt_state, key), shown

    def _chunk(self, carry: Any, x: Any, y: Any, change: Change) -> Any:
        def epoch(carry: Any, _: None) -> Any:
            carry, rows = self._order(carry)
            return jax.lax.scan(lambda c, r: self._step(c, r, x, y, change), carry, rows)

        carry, shown = jax.lax.scan(epoch, carry, length=self.chunk_epochs)
        return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), shown)

    def advance(self, carry: Any, x: Any, y: Any, change: Change, deadline: float) -> Any:
        """One chunk of epochs, or as many steps of it as the time allows."""
        if not self.stepwise:
            return self.chunk(carry, x, y, change)
        shown = []
        for _ in range(self.chunk_epochs):
            carry, batches = self.order(carry)
            for rows in batches:
                carry, step = self.step(carry, rows, x, y, change)
                shown.append(jax.device_get(step))
                if time.perf_counter() > deadline:
                    break
        return carry, jax.tree.map(lambda *parts: np.stack(parts), *shown)

    def run(
        self, key: jax.Array, *, seconds: float, start: tuple[Tree, Tree] = (None, None)
    ) -> Run:
        """Train as the user would, for so many seconds at most, from a start or from the user's."""
        subject, began = self.subject, time.perf_counter()
        x, y = (jnp.asarray(part)[None] for part in subject.train)
        change = Change(jnp.float32(1), jnp.float32(1), jnp.int32(0), jnp.int32(0))
        carry = self.start(key, *start)
        snapshots = [(0, carry[0], carry[1])]
        shown: list[Step] = []
        taken, planned = 0, subject.epochs * self.steps_per_epoch
        if not self.stepwise:
            self.chunk = jax.jit(self._chunk).lower(carry, x, y, change).compile()
            self.compiling = time.perf_counter() - began
            began = time.perf_counter()  # compiling is not training
        while taken < planned and time.perf_counter() - began < seconds:
            carry, part = self.advance(carry, x, y, change, began + seconds)
            shown.append(jax.device_get(part))
            if not taken and self.stepwise and len(shown[-1].loss) < bound("few steps"):
                began = time.perf_counter()  # the time went into compiling
            taken += len(shown[-1].loss)
            snapshots.append((taken, carry[0], carry[1]))
            if not shown[-1].finite[-1].all():
                break  # nothing comes back from infinity
        self.lasting = (time.perf_counter() - began) * planned / taken
        steps = jax.tree.map(lambda *parts: np.concatenate(parts), *shown)
        return Run(steps, snapshots, carry, planned, time.perf_counter() - began)

    def longer(self, run: Run, factor: int, seconds: float) -> tuple[Tree, Tree, int]:
        """Parameters and state after `factor` times the run, and the steps that this took."""
        subject, began = self.subject, time.perf_counter()
        x, y = (jnp.asarray(part)[None] for part in subject.train)
        change = Change(jnp.float32(1), jnp.float32(1), jnp.int32(0), jnp.int32(0))
        carry, taken = run.carry, len(run.steps.loss)
        while taken < factor * run.planned and time.perf_counter() - began < seconds:
            carry, part = self.advance(carry, x, y, change, began + seconds)
            taken += len(part.loss)
        return carry[0], carry[1], taken

    def trials(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        changes: list[Change],
        starts: list[Any],
        seconds: float,
    ) -> list[tuple[Tree, Tree] | None]:
        """Train once for every change; where each ended.

        All train in one program, unless to run them one after the other, by the program of the run,
        is quicker than to compile another. `x` and `y` stack the data sets that a change names.
        None stands for a run that was not made: one after the other, until the seconds are over.
        """
        began = time.perf_counter()
        x, y = jnp.asarray(x), jnp.asarray(y)
        carries = [self.start(key, *start) for start in starts]
        chunks = self.subject.epochs // self.chunk_epochs
        taken = [jnp.asarray(part[:1]).dtype for part in self.subject.train]
        quick = len(changes) * self.lasting < WORTH * self.compiling
        if self.stepwise or (quick and [x.dtype, y.dtype] == taken):
            ended: list[tuple[Tree, Tree] | None] = []
            for c, carry in zip(changes, carries, strict=True):
                own = x[c.inputs][None], y[c.targets][None]
                change = Change(jnp.float32(c.rate), jnp.float32(c.penalty), *jnp.int32([0, 0]))
                for _ in range(chunks):
                    if time.perf_counter() - began < seconds:
                        carry, shown = self.advance(carry, *own, change, began + seconds)
                        if not shown.finite[-1].all():
                            break  # nothing comes back from infinity
                over = time.perf_counter() - began >= seconds
                ended.append(None if over else (carry[0], carry[1]))
            return ended
        factors = [
            Change(
                jnp.float32(c.rate),
                jnp.float32(c.penalty),
                jnp.int32(c.inputs),
                jnp.int32(c.targets),
            )
            for c in changes
        ]
        many = jax.jit(jax.vmap(self._chunk, in_axes=(0, None, None, 0)))
        carry = jax.tree.map(lambda *parts: jnp.stack(parts), *carries)
        change = jax.tree.map(lambda *parts: jnp.stack(parts), *factors)
        for _ in range(chunks):
            carry, _ = many(carry, x, y, change)
            jax.block_until_ready(carry)
            if time.perf_counter() - began > seconds:
                break
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], (carry[0], carry[1]))
            for i in range(len(changes))
        ]
