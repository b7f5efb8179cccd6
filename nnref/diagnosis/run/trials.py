"""The user's training, in the steps of `nnref run`, and the same with one thing changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.budget import Budget
from nnref.diagnosis.run.changes import Change, End, changed, scaled
from nnref.parts.schedules import PlateauState
from nnref.training import train
from nnref.training.probes import StepParts, all_finite, leaf_cosines, leaf_norms
from nnref.training.task import Functions
from nnref.training.train import TrainState
from nnref.training.work import work_of

Tree = Any
SNAPSHOTS = 20  # parameter snapshots over a run, for what changes slowly
# One program for all trials must be compiled. It is, where the trials one after the other, in the
# program of the run, would take more than these seconds of a core; for a few it never pays.
WORTH = 4.0
FEW = 2
OPERATION = 2e-7  # seconds that an operation takes beside its arithmetic, in a compiled epoch
STEP = 1e-5  # and that a step takes there
CALL = 5e-4  # seconds that a step takes which is called from Python


class StepMeasures(NamedTuple):
    """The measures of one step; norms by leaf of the parameters."""

    loss: Any
    penalty: Any
    largest_output: Any
    gradient: Any
    update: Any
    weight: Any
    cosine: Any  # of update and gradient, by leaf: -1 descends straight
    finite: Any  # of outputs, loss, gradient, updates: the first False is where it was born


class Carry(NamedTuple):
    """Where a run stands."""

    state: TrainState
    epoch: Any  # the number of the next one, from 1


@dataclass
class RecordedRun:
    """A run as recorded: a StepMeasures of arrays over steps, and parameters now and then."""

    steps: StepMeasures
    snapshots: list[tuple[int, Tree, Tree]]  # steps taken, parameters, state of the network
    carry: Any
    planned: int  # steps that the user asked for; fewer where the experiment says when to stop
    network: tuple[Tree, Tree] | None = None  # that training leaves, where it is not the last one
    losses: Any = ()  # of the epochs, as `nnref run` shows them

    @property
    def params(self) -> Tree:
        """The parameters that the run leaves."""
        return self.snapshots[-1][1] if self.network is None else self.network[0]

    @property
    def state(self) -> Tree:
        """The state of the network that goes with them."""
        return self.snapshots[-1][2] if self.network is None else self.network[1]

    @property
    def complete(self) -> bool:
        """Whether every step the user asked for was taken."""
        return len(self.steps.loss) >= self.planned


class DataSets:
    """Stacked arrays of which one is read, row by row: a program of many runs copies none."""

    def __init__(self, stacked: jax.Array, number: Any) -> None:
        self.stacked, self.number = stacked, number

    def __len__(self) -> int:
        return self.stacked.shape[1]

    def __getitem__(self, rows: Any) -> jax.Array:
        return self.stacked[self.number, rows]


def lengths(norms: Any) -> np.ndarray:
    """Norms of whole trees, in double precision, from those of their leaves, (steps, leaves)."""
    return np.sqrt((np.asarray(norms, np.float64) ** 2).sum(1))


def largest(tree: Tree) -> jax.Array:
    """The largest magnitude in a tree, in single precision."""
    leaves = [jnp.max(jnp.abs(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(leaves))


def by_leaf(step: StepParts) -> StepMeasures:
    """The measures of a step that a diagnosis looks at."""
    return StepMeasures(
        loss=step.loss.astype(jnp.float32),
        penalty=jnp.asarray(step.penalty, jnp.float32),
        largest_output=largest(step.outputs),
        gradient=leaf_norms(step.gradient),
        update=leaf_norms(step.updates),
        weight=leaf_norms(step.params),
        cosine=leaf_cosines(step),
        finite=all_finite(step.outputs, step.loss, step.gradient, step.updates),
    )


def goes_on(state: TrainState, change: Change) -> TrainState:
    """The state of a run that goes on whatever happens, unless the rule to stop holds for it."""
    return state._replace(running=state.running | ~change.stops)


class Trainer:
    """The training of a recipe, compiled once for every change of it."""

    def __init__(
        self,
        recipe: Recipe,
        stepwise: bool = False,
        decays: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self.recipe = recipe
        self.budget = Budget() if budget is None else budget
        self.plan = recipe.plan
        self.stepwise = stepwise
        self.decays = decays  # whether the optimizer is without its decay once it is shown zeros
        self.rows = len(recipe.train[0])
        self.batch = min(recipe.batch_size, self.rows)
        self.steps_per_epoch = -(-self.rows // self.batch)
        self.planned = recipe.epochs * self.steps_per_epoch
        self.length = self.planned  # steps of a trial: as many as the run itself took
        # The largest divisor that still leaves enough snapshots: one compiled chunk serves all.
        fewest = min(recipe.epochs, SNAPSHOTS // 2)
        most = recipe.epochs // fewest
        self.chunk_epochs = max(d for d in range(1, most + 1) if recipe.epochs % d == 0)
        self.chunk: Any = jax.jit(self._chunk)
        self.begin = jax.jit(self._start)
        self.begin_epoch = jax.jit(self._begin_epoch)
        self.step = jax.jit(self._step)
        self.end_epoch = jax.jit(self._end_epoch)

    @property
    def work_of_a_step(self) -> float:
        """Seconds of an idle core that a step takes."""
        return self.arithmetic + (CALL if self.stepwise else STEP)

    @cached_property
    def arithmetic(self) -> float:
        """Seconds of the operations of a step, counted from its traced program."""
        network = jax.eval_shape(self.recipe.init, jax.random.key(0))
        carry = jax.eval_shape(self.start, network)
        x, y = self.recipe.train
        data = jax.eval_shape(lambda: self.data(x[None], y[None], carry.state))
        rows = jax.ShapeDtypeStruct((self.batch,), jnp.int32)
        inner = carry.state, jax.ShapeDtypeStruct((), jnp.int32)
        program = jax.make_jaxpr(self._step)(inner, carry.state.key, rows, data, Change())
        return work_of(program.jaxpr, OPERATION)[0]

    def _start(
        self, network: tuple[Tree, Tree], hyperparameters: Any, data: Any, seed: Any
    ) -> Carry:
        """Where a run of this network begins: key, patience and the optimizer's state are new."""

        def setup(hyperparameters: Any) -> Any:
            functions, optimizer = self.recipe.build(hyperparameters)
            return functions._replace(init=lambda key: network, adapt=None), optimizer

        state, _ = train.start(setup, self.plan, hyperparameters, seed, data)
        return Carry(state, jnp.int32(1))

    def start(self, network: tuple[Tree, Tree], seed: int | None = None) -> Carry:
        """Where a run of this network begins; a rule to stop sees what it measures there.

        The order of the rows, and what is drawn in training, are those of the seed, by default the
        user's.
        """
        chosen = jnp.uint32(self.recipe.seed if seed is None else seed)
        splits = {"train": self.recipe.train, "valid": self.recipe.valid}
        seen = {} if self.plan.stop is None else splits
        data = {name: split for name, split in seen.items() if split is not None}
        return self.begin(network, dict(self.recipe.hyperparameters), data, chosen)

    def data(self, inputs: Any, targets: Any, state: TrainState) -> dict[str, Any]:
        """The arrays of a program: stacked sets, and the validation rows where training asks."""
        arrays: dict[str, Any] = {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(targets)}
        leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda s: isinstance(s, PlateauState))
        watched = self.plan.stop or any(isinstance(leaf, PlateauState) for leaf in leaves)
        if watched and self.recipe.valid is not None:
            arrays["valid"] = tuple(map(jnp.asarray, self.recipe.valid))
        return arrays | {"hyperparameters": dict(self.recipe.hyperparameters)}

    def change(self, change: Change) -> Change:
        """The same change, and whether the experiment's rule to stop holds with it."""
        stops = self.plan.stop is not None and change.inputs == change.targets == 0
        return change._replace(stops=stops)

    def setup(self, change: Change, hyperparameters: Mapping[str, Any]) -> tuple[Functions, Any]:
        """Functions and optimizer of a trial, whose hyperparameters are scaled already."""
        built = self.recipe.build(hyperparameters)
        # In the program of an experiment nothing is added: XLA would round differently.
        return built if self.recipe.setup else changed(*built, change, self.decays)

    def built(self, data: Any, change: Change) -> tuple[Functions, Any]:
        """Functions and optimizer of a trial."""
        return self.setup(change, scaled(data["hyperparameters"], change))

    def _chunk(self, carry: Carry, data: Any, change: Change) -> tuple[Carry, Any]:
        """Some epochs as one program: the measures of their steps, their losses, which are run."""
        sets = DataSets(data["inputs"], change.inputs), DataSets(data["targets"], change.targets)
        splits = {"train": sets} | ({"valid": data["valid"]} if "valid" in data else {})
        setup = partial(self.setup, change)
        hyperparameters = scaled(data["hyperparameters"], change)

        def epoch(carry: Carry, _: None) -> Any:
            state, number = carry
            state, row = train.one_epoch(
                setup, self.plan, hyperparameters, state, splits, number, by_leaf
            )
            carry = Carry(goes_on(state, change), number + 1)
            return carry, (row["probes"], row["train_loss"], row["active"])

        return jax.lax.scan(epoch, carry, length=self.chunk_epochs)

    def _begin_epoch(self, carry: Carry, data: Any, change: Change) -> Any:
        """The state before the first step of an epoch, the epoch's key, and its order of rows."""
        functions, _ = self.built(data, change)
        state = carry.state
        begun = train.restart(functions, state.params, state.model_state)
        key = jax.random.fold_in(state.key, carry.epoch)
        order = train.epoch_order(key, self.rows, self.plan.batch_size, self.plan.shuffle)
        return state._replace(model_state=begun), key, order

    def _step(self, carry: Any, key: Any, rows: Any, data: Any, change: Change) -> Any:
        """One step of an epoch; carries the state and the number of the step."""
        functions, optimizer = self.built(data, change)
        x, y = data["inputs"][change.inputs, rows], data["targets"][change.targets, rows]
        return train.numbered_step(functions, optimizer, key, carry, x, y, by_leaf)

    def _end_epoch(
        self, state: TrainState, sums: Any, epoch: Any, data: Any, change: Change
    ) -> Any:
        """The state after an epoch, which may end in a validation, and the loss of the epoch."""
        functions, _ = self.built(data, change)
        splits = {"valid": data["valid"]} if "valid" in data else {}
        row = train.epoch_measures(functions, sums)
        state, row = train.end_of_epoch(functions, self.plan, state, row, splits, epoch)
        return goes_on(state, change), row["train_loss"]

    def advance(self, carry: Carry, data: Any, change: Change, most: int) -> Any:
        """A chunk of epochs; step by step, `most` steps of it at most.

        Returns:
            Where the run stands, the measures of its steps, (steps, ...), and the losses of its
            epochs.
        """
        if not self.stepwise:
            carry, (steps, losses, active) = self.chunk(carry, data, change)
            active = np.asarray(active)
            steps = jax.tree.map(
                lambda leaf: np.asarray(leaf)[active].reshape(-1, *leaf.shape[2:]), steps
            )
            return carry, steps, np.asarray(losses)[active]
        steps, losses = [], []
        for _ in range(self.chunk_epochs):
            state, key, order = self.begin_epoch(carry, data, change)
            inner, sums = (state, jnp.int32(1)), []
            for first in range(0, self.rows, self.batch):
                rows = order[first : first + self.batch]
                inner, each = self.step(inner, key, rows, data, change)
                sums.append(jax.device_get(each))
                if len(steps) + len(sums) >= most:
                    break
            steps += [each["probes"] for each in sums]
            carry = Carry(inner[0], carry.epoch)
            if len(sums) < self.steps_per_epoch:
                break  # the work is done in the middle of an epoch
            sums = jax.tree.map(lambda *parts: np.stack(parts), *sums)
            state, loss = self.end_epoch(inner[0], sums, carry.epoch, data, change)
            carry = Carry(state, carry.epoch + 1)
            losses.append(loss)
            if not state.running or len(steps) >= most:
                break
        return carry, jax.tree.map(lambda *parts: np.stack(parts), *steps), np.array(losses)

    def run(
        self, network: tuple[Tree, Tree], *, work: float = np.inf, seed: int | None = None
    ) -> RecordedRun:
        """Train as the user would, from this network, with so much work at most."""
        carry, change = self.start(network, seed), self.change(Change())
        x, y = self.recipe.train
        data = self.data(x[None], y[None], carry.state)
        snapshots = [(0, *network)]
        shown: list[StepMeasures] = []
        losses: list[np.ndarray] = []
        taken, planned = 0, self.planned
        most = int(max(1.0, min(planned, work / self.work_of_a_step)))
        while taken < min(planned, most):
            carry, part, of_epochs = self.advance(carry, data, change, most - taken)
            shown.append(part)
            losses.append(of_epochs)
            taken += len(part.loss)
            snapshots.append((taken, carry.state.params, carry.state.model_state))
            if not part.finite[-1].all():
                break  # nothing comes back from infinity
            if not carry.state.running:
                planned = taken  # the experiment says when to stop
        if most < planned:
            self.length = most
        self.budget.spend(taken * self.work_of_a_step)
        steps = jax.tree.map(lambda *parts: np.concatenate(parts), *shown)
        network = train.networks(carry.state)
        return RecordedRun(steps, snapshots, carry, planned, network, np.concatenate(losses))

    def longer(self, run: RecordedRun, factor: int) -> End | None:
        """The end of `factor` times the run; None where the work is too much."""
        carry, change, taken = run.carry, self.change(Change()), len(run.steps.loss)
        work = (factor * run.planned - taken) * self.work_of_a_step
        if not self.budget.affords(work):
            return None
        x, y = self.recipe.train
        data = self.data(x[None], y[None], carry.state)
        losses = [np.asarray(run.losses)]
        while taken < factor * run.planned and carry.state.running:
            carry, part, each = self.advance(carry, data, change, factor * run.planned - taken)
            taken += len(part.loss)
            losses.append(each)
        self.budget.spend(work)
        return End(train.networks(carry.state), np.concatenate(losses))

    def trials(
        self,
        inputs: Any,
        targets: Any,
        changes: list[Change],
        networks: list[tuple[Tree, Tree]],
        seeds: Sequence[int | None] | None = None,
    ) -> list[End | None]:
        """Train once for every change, from the network that goes with it.

        All train in one program, unless to run them one after the other, by the program of the run,
        is quicker than to compile another.

        Args:
            inputs: stacked data sets, of which a change names one.
            targets: likewise.
            changes: what is different in each run.
            networks: where each begins, parameters and state.
            seeds: of each; None for the user's.

        Returns:
            Where each ended, after as many steps as the run itself took. None stands for one whose
            work was too much for what is left: the first ones go first.
        """
        seeds = seeds or [None] * len(networks)
        carries = [self.start(*begun) for begun in zip(networks, seeds, strict=True)]
        dtypes = [jnp.asarray(part[:1]).dtype for part in self.recipe.train]
        same = [jnp.asarray(part[:1, :1]).dtype for part in (inputs, targets)] == dtypes
        work = self.length * self.work_of_a_step
        many = len(changes) if np.isinf(self.budget.left) else int(self.budget.left // work)
        made = min(len(changes), max(many, 0))
        self.budget.spend(made * work)
        quick = made <= FEW or made * work < WORTH
        each = self.one_by_one if self.stepwise or (quick and same) else self.together
        ended = each(inputs, targets, changes[:made], carries[:made]) if made else []
        return [*ended, *[None] * (len(changes) - made)]

    @staticmethod
    def left(carry: Carry, change: Change) -> tuple[Tree, Tree]:
        """The network that a trial leaves: of another data set there was no best one to keep."""
        kept = carry.state.kept
        if kept is None:
            return train.networks(carry.state)
        own = (change.inputs == 0) & (change.targets == 0)
        last = train.networks(carry.state._replace(kept=None))
        return jax.tree.map(lambda best, end: jnp.where(own, best, end), kept, last)

    def one_by_one(
        self, inputs: Any, targets: Any, changes: list[Change], carries: list[Carry]
    ) -> list[End]:
        """Trials by the program of the run."""
        ended = []
        for change, carry in zip(changes, carries, strict=True):
            own = inputs[change.inputs][None], targets[change.targets][None]
            data = self.data(*own, carry.state)
            factors = self.change(change)._replace(inputs=0, targets=0)
            taken, losses = 0, [np.zeros(0)]
            while taken < self.length and carry.state.running:
                carry, steps, each = self.advance(carry, data, factors, self.length - taken)
                taken += len(steps.loss)
                losses.append(each)
                if not steps.finite[-1].all():
                    break  # nothing comes back from infinity
            ended.append(End(self.left(carry, change), np.concatenate(losses)))
        return ended

    def together(
        self, inputs: Any, targets: Any, changes: list[Change], carries: list[Carry]
    ) -> list[End]:
        """Trials in one program."""
        data = self.data(inputs, targets, carries[0].state)
        many = jax.jit(jax.vmap(self._chunk, in_axes=(0, None, 0)))

        @jax.jit  # one program, where each leaf would be one
        def stack(*trees: Tree) -> Tree:
            return jax.tree.map(lambda *parts: jnp.stack(parts), *trees)

        carry, change = stack(*carries), stack(*map(self.change, changes))
        shown = []
        for _ in range(-(-self.length // (self.chunk_epochs * self.steps_per_epoch))):
            carry, (_, *losses) = many(carry, data, change)
            shown.append(losses)
        ends, shown = jax.device_get((jax.jit(jax.vmap(self.left))(carry, change), shown))
        losses, active = (np.concatenate(part, axis=1) for part in zip(*shown, strict=True))
        return [
            End(jax.tree.map(lambda leaf, i=i: leaf[i], ends), losses[i][active[i]])
            for i in range(len(changes))
        ]
