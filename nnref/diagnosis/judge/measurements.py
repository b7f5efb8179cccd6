"""What is measured of a recipe, each figure once, in the order in which it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.references import SimpleModels, references, through
from nnref.diagnosis.data.splits import Splits
from nnref.diagnosis.judge.skill import Outcome, Skill
from nnref.diagnosis.program.at_start import AtStart, drawn_like
from nnref.diagnosis.program.decay import Decay, decay_of, decays
from nnref.diagnosis.program.layers import Layer, layers
from nnref.diagnosis.program.tracing import COMPARISONS, Trace, trace
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.budget import Budget
from nnref.diagnosis.run.replay import BirthInRun, birth_in_run
from nnref.diagnosis.run.snapshot import Snapshot, watcher
from nnref.diagnosis.run.starts import first_network
from nnref.diagnosis.run.trials import RecordedRun, Trainer, lengths
from nnref.diagnosis.thresholds import bound
from nnref.parts.chain import updated

CHUNK = 0.1  # of the work of a run: the most of it that is one compiled piece
RUN = 20.0  # seconds of an idle core that the user's own run may take, at an effort of 1
CODES = 4  # times the width of a code, that a linear code is allowed
ALL_RUNS = 3.0  # times that: all runs together


def quietly(doing: str) -> None:
    """Progress that nobody wants to hear of."""


@dataclass
class Measurements:
    """A recipe and what is measured of it, with so much effort.

    `progress` is told what is being done, before it is done.
    """

    recipe: Recipe
    effort: float = 1.0
    progress: Callable[[str], None] = quietly

    @cached_property
    def budget(self) -> Budget:
        """The work that all runs together may take."""
        return Budget(ALL_RUNS * RUN * self.effort)

    # The network

    @cached_property
    def initial(self) -> tuple[Any, Any]:
        """Parameters and state before the first step, the same that the run starts from."""
        return first_network(self.recipe)

    @cached_property
    def layers(self) -> list[Layer]:
        """Products with parameters that run once, in the order of the data."""
        return [layer for layer in self.products if not layer.looped]

    @cached_property
    def products(self) -> list[Layer]:
        """All products with parameters, those inside of loops too."""
        return layers(self.recipe)

    @cached_property
    def look(self) -> Callable[[Any, Any], Snapshot]:
        """Looks at the network at some parameters."""
        return watcher(self.recipe, self.layers)

    @cached_property
    def start(self) -> Snapshot:
        """The network before the first step."""
        return self.look(*self.initial)

    @cached_property
    def end(self) -> Snapshot:
        """The network after the last step."""
        return self.look(self.run.params, self.run.state)

    @cached_property
    def moded(self) -> bool:
        """Whether training mode differs by a state, as with batch normalization, not by noise.

        Keys and counters, as NNX keeps them for dropout, are no such state.
        """
        leaves = jax.tree.leaves(self.initial[1])
        return any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)

    @cached_property
    def noise(self) -> float:
        """How much of the variance of the first outputs is drawn at random in training mode."""
        params, state = self.initial
        x = jnp.asarray(self.recipe.train[0][:64])
        apply = jax.jit(lambda p, s, x, key: self.recipe.apply(p, s, x, key, True)[0])
        outputs = [apply(params, state, x, jax.random.key(i)) for i in range(8)]
        drawn = np.stack([np.asarray(jax.tree.leaves(each)[0], float) for each in outputs])
        within, total = drawn.var(0).mean(), drawn.var((0, 1)).mean()
        return float(within / total) if total > 0 else 0.0

    def slopes_at(self, rows: np.ndarray) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A function that gives loss and gradient before the first step, and its arguments."""
        start, (x, y) = AtStart(self.recipe, *self.initial), self.recipe.train

        def slopes(params: Any, state: Any, x: Any, y: Any, key: Any) -> Any:
            return jax.value_and_grad(lambda p: start.objective(p, state, x, y, key)[0])(params)

        batch = (jnp.asarray(np.asarray(part)[rows]) for part in (x, y))
        return slopes, (*self.initial, *batch, jax.random.key(0))

    # The optimizer

    @cached_property
    def optimizer(self) -> Trace:
        """The program of an update: arguments gradient, optimizer state, parameters."""
        params, optimizer = self.initial[0], self.recipe.optimizer
        arguments = params, optimizer.init(params), params
        return trace(lambda *arguments: updated(optimizer, *arguments)[0], *arguments)

    @cached_property
    def taken(self) -> tuple[float, ...]:
        """The share of each parameter that a step takes away where no gradient is.

        It is below 0 where parameters grow by it, and () where no step looks at the parameters.
        """
        params, optimizer = self.initial[0], self.recipe.optimizer
        if self.optimizer.reached(self.optimizer.arguments[2]).isdisjoint(self.optimizer.outputs):
            return ()
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(lambda *arguments: updated(optimizer, *arguments))(
            zero, optimizer.init(params), params
        )
        shares = []
        for update, leaf in zip(*map(jax.tree.leaves, (updates, params)), strict=True):
            update, leaf = np.asarray(update, float), np.asarray(leaf, float)
            share = -float((update * leaf).sum() / max((leaf**2).sum(), 1e-30))
            shares.append(share if np.allclose(update, -share * leaf, rtol=1e-3) else 0.0)
        return tuple(shares)

    @cached_property
    def decay(self) -> tuple[float, ...]:
        """What a step takes away, whatever the gradient; () where a run takes next to nothing."""
        most = self.trainer.planned * max(self.taken, default=0)
        return self.taken if most > bound("decayed") else ()

    @cached_property
    def growth(self) -> float:
        """The share by which a step makes a parameter longer; 0 where it is nothing in a run."""
        share = -min(self.taken, default=0)
        return share if self.trainer.planned * share > bound("decayed") else 0.0

    @cached_property
    def decays(self) -> bool:
        """Whether the optimizer decays the weights, and can be asked to do without."""
        return decays(self.recipe.optimizer, self.initial[0])

    @cached_property
    def added(self) -> Decay | None:
        """The decay that can be taken out of the optimizer, at the first gradient of the run."""
        if not self.decays:
            return None
        slopes, arguments = self.slopes_at(np.arange(self.trainer.batch))
        gradient = jax.jit(slopes)(*arguments)[1]
        return decay_of(self.recipe.optimizer, self.initial[0], gradient)

    @cached_property
    def clipped(self) -> float | None:
        """The share of steps whose gradient was longer than the optimizer lets through.

        None where its program compares the global norm of the gradient with nothing.
        """
        params, optimizer = self.initial[0], self.recipe.optimizer
        drawn = drawn_like(params)
        traced = self.optimizer
        gradient = set(traced.arguments[0])
        norm = sum(np.sum(np.square(np.asarray(leaf))) for leaf in jax.tree.leaves(drawn)) ** 0.5
        moving = traced.reached(traced.inputs)
        for op in traced.operations:
            sides = [value for value in op.inputs if traced.shape(value) == ()]
            if op.name not in COMPARISONS | {"min", "max", "clamp"} or len(sides) < 2:
                continue
            norms = [value for value in sides if gradient <= traced.needed([value])]
            fixed = [value for value in sides if value not in moving]
            if len(norms) == 1 and fixed:
                leaves = jax.tree.leaves((drawn, optimizer.init(params), params))
                length, *limits = map(float, traced.evaluate(leaves, [*norms, *fixed]))
                if np.isclose(length, norm, rtol=1e-3):
                    return float((lengths(self.run.steps.gradient) > max(limits)).mean())
        return None

    # The user's own run

    @cached_property
    def trainer(self) -> Trainer:
        """The compiled training; step by step where a compiled chunk is too much work at once."""
        convolves = any(layer.kind == "conv_general_dilated" for layer in self.layers)
        stepwise = convolves and jax.default_backend() == "cpu"
        trainer = Trainer(self.recipe, stepwise, self.decays, self.budget)
        if not stepwise:
            chunk = trainer.work_of_a_step * trainer.chunk_epochs * trainer.steps_per_epoch
            trainer.stepwise = chunk > CHUNK * RUN * self.effort
        return trainer

    @cached_property
    def run(self) -> RecordedRun:
        """The user's own training."""
        self.progress("training as told")
        return self.trainer.run(self.initial, work=RUN * self.effort)

    @cached_property
    def birth(self) -> BirthInRun | None:
        """The operation at which the run's first number that is not finite is born."""
        return birth_in_run(self.trainer, self.initial)

    # How well it does

    @cached_property
    def skill(self) -> Skill:
        """Scores this network."""
        return Skill(self.recipe, self.start.outputs)

    @cached_property
    def trained(self) -> Outcome:
        """At the end of the run, on the training rows, in evaluation mode."""
        return self.skill.outcome(self.run.params, self.run.state)

    @cached_property
    def trained_in_mode(self) -> Outcome:
        """At the end of the run, on the training rows, in training mode."""
        return self.skill.outcome(self.run.params, self.run.state, train=True)

    @cached_property
    def validated(self) -> Outcome | None:
        """At the end of the run, on the validation rows."""
        return None if self.recipe.valid is None else self.outcome_on(self.recipe.valid)

    def outcome_on(self, rows: tuple[Any, Any]) -> Outcome | None:
        """At the end of the run, on rows that were not trained on.

        None where all their targets are the same: no answer explains anything of these, unless the
        network takes sides. Where they are of one class that no training row has, no constant of
        the training rows is right: the skill is the share of the rows that are answered right.
        """
        y, network = np.asarray(rows[1]), (self.run.params, self.run.state)
        if (y != y[:1]).any() or self.skill.takes_sides:
            return self.skill.outcome(*network, rows)
        return self.skill.of_unseen_class(*network, rows) if self.skill.is_unseen(y) else None

    @cached_property
    def recomputed(self) -> float | None:
        """The skill of the trained network by accuracy or R², where there is a user's metric."""
        if self.recipe.metric is None or self.skill.outputs is None:
            return None
        return self.skill.recomputed(*self.skill.outputs_at(self.run.params, self.run.state))

    @cached_property
    def trained_on_equal_classes(self) -> float:
        """The skill of the trained network, of classes that count alike: balanced accuracy."""
        outputs, y = self.skill.outputs_at(self.run.params, self.run.state)
        return self.skill.recomputed(outputs, y, self.skill.of_equal_classes)

    @cached_property
    def hardly_predicted(self) -> set[int]:
        """Classes that the trained network predicts far less often than rows are of them."""
        return self.skill.hardly_predicted(self.run.params, self.run.state)

    @cached_property
    def reference(self) -> SimpleModels:
        """What simple models reach on held-out rows.

        They show nothing where the network meets noise in evaluation, too, and they do not.
        """
        always = self.recipe.random and not self.recipe.modes
        if not self.skill.fits or (always and self.noise > bound("always noisy")):
            return SimpleModels({}, {}, 0)
        x, y = (np.asarray(part) for part in self.recipe.train)
        if x.size == y.size and self.layers and np.array_equal(x.ravel(), y.ravel()):
            # To copy its inputs a simple model needs no code: it gets one, a few times as wide.
            width = CODES * min(int(layer.shape[-1]) for layer in self.layers)
            return SimpleModels({f"linear, by {width} numbers": through(x, width)}, {}, len(x))
        return references(x, self.skill.target)

    @cached_property
    def splits(self) -> Splits | None:
        """Simple models of training and of validation rows."""
        return None if self.recipe.valid is None else self.beside(self.recipe.valid)

    def beside(self, rows: tuple[Any, Any]) -> Splits | None:
        """Simple models of the training rows and of others; None where targets are costs."""
        return None if self.skill.costs else Splits(self.recipe.train, rows, self.skill.kind)

    @cached_property
    def shuffled(self) -> float:
        """The best skill of the same models where targets are dealt to the rows at random."""
        x = np.asarray(self.recipe.train[0])
        shuffled = references(x, self.skill.target, shuffles=1).shuffled
        return max(shuffled.values(), default=0.0)
