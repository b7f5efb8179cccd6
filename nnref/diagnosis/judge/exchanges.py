"""The training with a piece of the program exchanged for a trusted one, and how well it ends."""

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import EDITS
from nnref.diagnosis.findings import Finding
from nnref.diagnosis.judge.skill import Skill
from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.ignored import filler_of, in_front
from nnref.diagnosis.program.terms import outweighed, terms
from nnref.diagnosis.recipe import Recipe, no_penalty
from nnref.diagnosis.run.changes import Change, End, Trial
from nnref.diagnosis.run.edits import (
    BATCH,
    plain_network,
    same_losses,
    trusted_loss,
    trusted_optimizer,
    untrusted,
    with_raw_outputs,
    with_relu,
    with_trusted_optimizer,
    with_usual_batches,
)
from nnref.diagnosis.run.snapshot import looked_at
from nnref.diagnosis.run.trials import Trainer
from nnref.diagnosis.thresholds import bound

if TYPE_CHECKING:
    from nnref.diagnosis.judge.interventions import Interventions

RATES = {"": Change(), " x10": Change(rate=10.0)}  # of the trusted optimizer
WIDER = 4  # times the units of each hidden layer, where a wider network is tried


class Exchanges:
    """Trainings of a recipe with a piece exchanged, each in a program of its own.

    Skills are by accuracy or R² here, whatever the user's metric is, as outputs may have become
    logits: where the two disagree on the user's own run, neither outputs nor loss are exchanged.
    """

    def __init__(self, interventions: "Interventions") -> None:
        """Take the further runs of a recipe; nothing is trained yet."""
        self.interventions = interventions
        self.measurements = interventions.measurements
        self.recipe = interventions.recipe
        self.at_start = AtStart(self.recipe, *self.measurements.initial)

    @cached_property
    def metrics_agree(self) -> bool:
        """Whether accuracy or R² says of the user's own run what the user's metric says."""
        measured = self.measurements
        if measured.skill.outputs is None or not measured.skill.fits:
            return False
        recomputed = measured.recomputed
        return recomputed is None or abs(recomputed - measured.trained.skill) < bound("gap")

    @cached_property
    def optimizer(self) -> dict[str, Trial]:
        """Under a trusted optimizer, at two rates."""
        recipe = with_trusted_optimizer(self.recipe)
        return self.tried("optimizer", recipe, self.recipe.train, RATES)

    @cached_property
    def activation(self) -> dict[str, Trial]:
        """With ReLU for the hidden activations that are not known to work; {} where all are."""
        if not untrusted(self.measurements.layers):
            return {}
        recipe = with_relu(self.recipe)
        return self.tried("activation", recipe, self.recipe.train, {"": Change()})

    @cached_property
    def batch(self) -> dict[str, Trial]:
        """In batches of the usual size; {} where they are not far larger."""
        if self.measurements.trainer.batch < bound("huge batch") * BATCH:
            return {}
        recipe = with_usual_batches(self.recipe)
        return self.tried("batch", recipe, self.recipe.train, {"": Change()})

    @cached_property
    def opposite(self) -> dict[str, Trial]:
        """With each of two targets in the place of the other; {} where there are more.

        To a classifier of rows both are alike; to a distance, or outputs on one side of 0, not.
        """
        values = np.unique(self.recipe.train[1])
        if len(values) != 2:
            return {}

        def turned(rows: tuple[Any, Any]) -> tuple[Any, Any]:
            return rows[0], (values.sum() - np.asarray(rows[1])).astype(values.dtype)

        valid = None if self.recipe.valid is None else turned(self.recipe.valid)
        recipe = replace(self.recipe, valid=valid)
        return self.tried("opposite", recipe, turned(self.recipe.train), {"": Change()})

    @cached_property
    def padding(self) -> dict[str, Trial]:
        """With what fills up each row in front of it; {} where none stands behind most rows."""
        x, y = (np.asarray(part) for part in self.recipe.train)
        filler = None if self.recipe.inputs is not None or y.size > len(y) else filler_of(x)
        front = in_front(x, filler)
        if front is None:
            return {}
        valid = self.recipe.valid
        if valid is not None:
            held = in_front(np.asarray(valid[0]), filler)
            valid = None if held is None else (held, valid[1])
        recipe = replace(self.recipe, valid=valid)
        return self.tried("padding", recipe, (front, y), {"": Change()})

    @cached_property
    def tail_is_identity(self) -> bool:
        """Whether the outputs are what the last layer gives, with nothing behind it."""
        tail = self.at_start.sample.tail
        if tail is None:
            return True
        make, shape = tail
        drawn = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
        outputs = np.asarray(make(drawn))
        return outputs.size == drawn.size and np.allclose(outputs.ravel(), drawn.ravel(), rtol=1e-3)

    @property
    def is_real(self) -> bool:
        """Whether the outputs are real numbers."""
        traced, leaves = self.at_start.training, jax.tree.leaves(self.at_start.sample.tree)
        outputs = [traced.avals[value] for value in traced.outputs[1 : 1 + len(leaves)]]
        return not any(jnp.issubdtype(aval.dtype, jnp.complexfloating) for aval in outputs)

    @property
    def trusted(self) -> Any:
        """The loss that fits the targets; classes weigh in it as they do in the user's own."""
        skill = self.measurements.skill
        y = np.asarray(self.recipe.train[1])
        return trusted_loss(skill.kind, skill.width, y, skill.weights)

    @cached_property
    def loss(self) -> Any:
        """The loss of raw outputs that fits the targets; None where it is the user's own.

        Of complex outputs there is none.
        """
        if not self.metrics_agree or not self.is_real:
            return None
        trusted = self.trusted
        if trusted is None:
            return None
        outputs, y = np.asarray(self.at_start.outputs, np.float32), self.at_start.sample.y
        return None if same_losses(self.recipe.loss, trusted, outputs, y) else trusted

    @cached_property
    def head(self) -> dict[str, Trial]:
        """With raw outputs, with the loss that fits the targets, and with both."""
        if not self.metrics_agree:
            return {}
        recipes = {}
        tail = self.at_start.sample.tail
        other_form = tail is not None and tail[1] != np.shape(self.at_start.outputs)
        if not self.tail_is_identity and not other_form:  # as the codes behind a distance
            raw = with_raw_outputs(self.recipe)
            recipes["outputs"] = raw
            if self.loss is not None:
                recipes["outputs and loss"] = with_loss(raw, self.loss)
        elif self.loss is not None and self.tail_is_identity:
            recipes["loss"] = with_loss(self.recipe, self.loss)
        tried: dict[str, Trial] = {}
        for name, recipe in recipes.items():
            tried |= self.tried(name, recipe, self.recipe.train, {"": Change()})
        return tried

    @cached_property
    def outweighed(self) -> Finding | None:
        """A term of the loss without targets that the training served alone."""
        measured = self.measurements
        first = terms(self.at_start, *measured.initial)
        return outweighed(first, terms(self.at_start, measured.run.params, measured.run.state))

    @cached_property
    def scaled(self) -> tuple[np.ndarray, np.ndarray]:
        """The training rows, standardized where they are far from unit scale."""
        inputs, targets, changes = self.interventions.planned()
        scaled = changes.get("targets", Change()).targets
        return inputs[-1], targets[int(scaled)]

    @cached_property
    def everything(self) -> dict[str, Trial]:
        """Everything exchanged but the layers: scales, start, optimizer, loss, outputs, noise.

        What does not learn even so is a matter of the layers themselves.
        """
        recipe = replace(self.recipe, apply=self.interventions.without_noise, penalty=no_penalty)
        recipe = with_trusted_optimizer(recipe)
        if self.metrics_agree and not self.tail_is_identity:
            recipe = with_raw_outputs(recipe)
        if self.loss is not None:
            recipe = with_loss(recipe, self.loss)
        start = self.interventions.he_start
        return self.tried("everything", recipe, self.scaled, RATES, start)

    @cached_property
    def width(self) -> dict[str, Trial]:
        """A plain network of the user's widths, and one of wider layers, trained as is trusted.

        {} where the user's network is no chain of dense layers, or is wide already.
        """
        layers, x = self.measurements.layers, np.asarray(self.recipe.train[0])
        kernels = [leaf for leaf in jax.tree.leaves(self.measurements.initial[0]) if leaf.ndim > 1]
        dense = all(layer.kind == "dot_general" and len(layer.shape) == 2 for layer in layers)
        chain = dense and len(layers) == len(kernels) > 1 and x.dtype.kind == "f"
        if not chain or not self.metrics_agree:
            return {}
        widths = [int(np.prod(x.shape[1:])), *(layer.shape[-1] for layer in layers[:-1])]
        loss = self.trusted
        if loss is None or min(widths[1:]) >= bound("wide"):
            return {}
        tried: dict[str, Trial] = {}
        for name, factor in (("same width", 1), ("wider", WIDER)):
            network = plain_network(widths, factor, self.at_start.outputs.shape[1:])
            recipe = replace(
                self.recipe, loss=loss, penalty=no_penalty, optimizer=trusted_optimizer(), **network
            )
            start = jax.jit(recipe.init)(jax.random.key(self.recipe.seed))
            tried |= self.tried(name, recipe, self.scaled, RATES, start)
        return tried

    def tried(
        self,
        name: str,
        recipe: Recipe,
        rows: tuple[Any, Any],
        changes: dict[str, Change],
        start: Any = None,
    ) -> dict[str, Trial]:
        """Trials of an edited recipe on these rows; {} where the work is too much."""
        measured = self.measurements
        measured.progress(f"training again {EDITS[name]}")
        recipe = replace(recipe, train=rows)
        trainer = Trainer(recipe, measured.trainer.stepwise, budget=measured.budget)
        own = start is None  # the user's first network: then it can be made again from other seeds
        start = measured.initial if own else start
        x, y = (np.asarray(part) for part in rows)
        ends = trainer.trials(x[None], y[None], list(changes.values()), [start] * len(changes))
        tried = {}
        for (word, change), end in zip(changes.items(), ends, strict=True):
            if end is not None:
                ended = partial(self.trial, name + word, recipe, change)
                tried[name + word] = ended(end)
                if own:
                    make = partial(self.interventions.from_seeds, trainer, change, ended)
                    self.interventions.makers[name + word] = make
        return tried

    def trial(self, name: str, recipe: Recipe, change: Change, end: End) -> Trial:
        """How well a trial of an edited recipe ended on its training rows, and on validation rows.

        Of rows that are scaled otherwise these are not asked, see `Interventions.trial`.
        """
        valid = None
        same_scale = recipe.train is self.recipe.train or recipe.valid is not self.recipe.valid
        if recipe.valid is not None and same_scale:
            valid = self.scored(recipe, end.network, recipe.valid)
        return Trial(
            name, change, self.scored(recipe, end.network, recipe.train), valid, end.losses
        )

    def scored(self, recipe: Recipe, end: tuple[Any, Any], rows: tuple[Any, Any]) -> float:
        """The skill of an edited recipe on some rows."""
        measured = self.measurements
        if recipe.apply is self.recipe.apply and recipe.loss is self.recipe.loss:
            return measured.skill.outcome(*end, rows).skill
        x = recipe.train[0][looked_at(recipe)]
        outputs = jax.jit(lambda p, s, x: recipe.apply(p, s, x, None, False)[0])(*end, x)
        skill = Skill(replace(recipe, metric=None), jax.tree.map(np.asarray, outputs))
        skill.kind = measured.skill.kind
        return skill.outcome(*end, rows).skill


def with_loss(recipe: Recipe, loss: Any) -> Recipe:
    """The recipe with another loss."""
    return replace(recipe, loss=loss, setup=None, stop=None, metric=None)
