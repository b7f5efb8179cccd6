"""From evidence to findings: what is cause, and what its symptom?"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.findings import Finding, upstream
from nnref.diagnosis.judge import data_checks
from nnref.diagnosis.judge.case import Case, Trial
from nnref.diagnosis.judge.evidence import Evidence
from nnref.diagnosis.program.layers import Layer
from nnref.diagnosis.program.tracing import name_of
from nnref.diagnosis.run.trials import lengths

# Primitives of activations that lose their slope on both sides.
BOUNDED = {"logistic", "tanh", "erf", "atan", "clamp"}


# Notes of the program that are the fault where nothing else is: rows that mix, targets not read.
# (A note that is less sure, as of a distance to classes, remains one.)
LAST = ("loss_axis_error", "loss_mismatch")


def hidden(case: Case) -> range:
    """The places of the layers before the last one."""
    return range(len(case.layers) - 1)


def place(layer: Layer) -> str:
    """Where a layer stands."""
    return f"{layer.name}, {layer.where}" if layer.where else layer.name


class Judge(Evidence):
    """The verdict on one case; every method is one question."""

    # What kept it from learning? In the order of the vocabulary where it matters.

    def nonfinite(self) -> Iterator[Finding]:
        """The first number that is not finite, and where it was born."""
        steps = self.case.run.steps
        if self.finite:
            yield from self.nonfinite_answers()
            return
        at = int(np.flatnonzero(~steps.finite.all(1))[0])
        born = ("outputs", "loss", "gradient", "update")[int(np.flatnonzero(~steps.finite[at])[0])]
        before = steps.loss[:at]
        start, last = self.case.start, before[-1] if at else float("nan")
        told = f"the first non-finite number is born in the {born} of step {at + 1}"
        sizes = [level.size for level in start.levels]
        # What grows passes through huge numbers: NaN behind moderate ones is a division or a root.
        huge = next((i for i, size in enumerate(sizes) if size > bound("huge signal")), None)
        if huge is not None and (at == 0 or not self.slower):
            yield Finding(
                "exploding_gradients",
                "fault",
                place(self.case.layers[huge]),
                f"{told}; before any step the signal grows from layer to layer",
                measured=f"root mean square by layer {', '.join(f'{s:.3g}' for s in sizes)}",
                healthy="about 1 in every layer",
                remedy="use relu or tanh in the hidden layers",
            )
            return
        reached = steps.largest_output[:at]
        weights = lengths(steps.weight[: at + 1])
        grew = at > 0 and (
            last > bound("growth") * max(np.min(before), 1e-30)
            or reached[-1] > bound("growth") ** 2 * max(reached[0], 1e-30)
            or weights[-1] > bound("growth") * weights[0]
        )
        leap = float(np.max(self.moves[at - 1])) if at else 0.0
        cured = self.slower
        if grew or (leap > bound("leap") and cured):
            if cured and self.summed and self.case.trainer.batch >= bound("summed rows"):
                yield self.sum_of(cured)
            what = "the loss grows until" if grew else "after steps that leap,"
            yield Finding(
                "learning_rate_too_high",
                "fault",
                "optimizer",
                f"{what} {told}" + (f"; {self.told(cured)}" if cured else ""),
                measured=f"the last step moved the weights by {leap:.2g} of their length; "
                f"loss {before[0]:.3g} at first, {last:.3g} before",
                healthy="about 1e-3 of their length",
                remedy="divide the learning rate by 10",
            )
            return
        yield Finding(
            "numerical_instability",
            "fault",
            born,
            f"{told} while everything before it is moderate",
            measured=f"loss {last:.3g}, largest output {reached[-1] if at else float('nan'):.3g}",
            healthy="finite",
            remedy=self.guard(born),
        )

    def nonfinite_answers(self) -> Iterator[Finding]:
        """Answers that are not finite, though every step was."""
        parts = [np.atleast_1d(leaf) for leaf in jax.tree.leaves(self.case.end.outputs)]
        bad = max(float((~np.isfinite(p.reshape(len(p), -1)).all(1)).mean()) for p in parts)
        if bad:
            yield Finding(
                "numerical_instability",
                "fault",
                "outputs",
                f"in evaluation {bad:.1%} of the rows get answers that are not finite, "
                "though every step of the training was",
                measured="NaN or infinity",
                healthy="finite",
                remedy=self.guard("outputs"),
            )

    def guard(self, born: str) -> str:
        """What to type against a number that is not finite."""
        if born == "outputs":
            return "an epsilon in each denominator and root of apply: x / (x.std() + 1e-6)"
        if born == "update":
            return "raise the optimizer's eps above the smallest number of the dtype, like eps=1e-4"
        return "jnp.log(jnp.clip(p, 1e-7, 1)), or a loss of logits"

    def ascent(self) -> Iterator[Finding]:
        """Updates along the gradient."""
        along = self.case.run.steps.along[:20]
        if np.isfinite(along).all() and np.median(along) > bound("ascent"):
            yield Finding(
                "gradient_ascent",
                "fault",
                "optimizer",
                "the updates point along the gradient, not against it",
                measured=f"cosine of update and gradient {np.median(along):.2f}",
                healthy="below 0",
                remedy="a positive learning rate, and params + updates as optax.apply_updates does",
            )

    def updates(self) -> Iterator[Finding]:
        """A gradient whose updates are zero."""
        steps = self.case.run.steps
        if (steps.gradient.sum(1) > 0).all() and not steps.update.any():
            yield Finding(
                "parameters_not_updated",
                "fault",
                "optimizer",
                "there is a gradient at every step, and every update is exactly 0",
                measured="update 0",
                healthy="an update of about 1e-3 of the weights a step",
                remedy="a learning rate above 0",
            )
            return
        before, after = (
            jax.tree.leaves(tree) for tree in (self.case.initial[0], self.case.run.params)
        )
        kernels = [i for i, leaf in enumerate(before) if leaf.ndim > 1 and steps.update[:, i].all()]
        still = [i for i in kernels if np.array_equal(before[i], after[i])]
        if still and len(still) > len(kernels) / 2:
            moves = self.moves[:, 0]
            yield Finding(
                "parameters_not_updated",
                "fault",
                "optimizer",
                f"every update of {len(still)} of {len(kernels)} kernels is rounded away: in "
                f"{before[still[0]].dtype} they end bit for bit where they began",
                measured=f"updates of {np.median(moves):.1e} of the weights",
                healthy=f"above {float(jnp.finfo(before[still[0]].dtype).eps):.0e} of them",
                remedy="parameters in float32; half precision for the activations alone",
            )

    def statistics(self) -> Iterator[Finding]:
        """Good in training mode, bad in evaluation."""
        mode, end = self.case.trained_in_mode.skill, self.reached
        good = mode >= bound("learned") * max(self.attainable_in_mode, 1e-9)
        if not good or end > bound("failed") * mode:
            return
        yield Finding(
            "batch_statistics_not_updated",
            "fault",
            "state",
            f"the trained network reaches {mode:.2f} in training mode and {end:.2f} in evaluation, "
            "on the same rows",
            measured=f"{end:.2f} of the way from a constant answer to a perfect one",
            healthy=f"about {mode:.2f}, as in training mode",
            remedy="return the new running statistics from apply, and keep them",
        )

    def symmetry(self) -> Iterator[Finding]:
        """Units that start identical."""
        at = self.case.start
        leaves = self.case.initial[0]
        for i in hidden(self.case):
            level, layer = at.levels[i], self.case.layers[i]
            kernel = kernel_of(leaves, layer)
            if kernel is None or kernel.shape[-1] < 2:
                continue
            columns = kernel.reshape(-1, kernel.shape[-1])
            after = kernel_of(self.case.run.params, layer)
            still = after is not None and np.ptp(after.reshape(columns.shape), axis=1).max()
            if after is None or np.ptp(columns, axis=1).max() > 0:
                continue
            if still <= 1e-3 * np.abs(after).max():
                yield Finding(
                    "constant_initialization",
                    "fault",
                    place(layer),
                    f"all {level.units} units start with the same weights, so they get the same "
                    "gradients and stay the same",
                    measured=f"{kernel.shape[-1]} identical columns",
                    healthy="every column its own draw",
                    remedy="draw the kernel at random: jax.nn.initializers.he_normal()",
                )
                return

    def data_scale(self) -> Iterator[Finding]:
        """Inputs and targets whose scale is the cause: scaling alone cures it.

        Where the history shows a loss that explodes, and a smaller rate cures it as well, it is the
        rate: the scale of the targets and of the gradient are one number to plain descent.
        """
        if self.jumps and self.slower:
            return
        cure = self.cured("inputs")
        mean, deviation = self.input_scale
        small = max(deviation, mean) < bound("tiny inputs")
        huge = max(deviation, mean) > bound("huge inputs")
        if huge and not cure and self.saturated_first:
            cure = self.helped("inputs")
        if huge and not cure and not self.cured("rate x10", "rate x100"):
            cure = self.cured("inputs, rate x10", "inputs, rate x100")
        if cure and (small or huge):
            cause = "inputs_scaled_twice" if small else "inputs_not_normalized"
            yield self.scaled(cause, self.told(cure))
        cure = self.cured("targets") or (None if cure else self.cured("inputs and targets"))
        if cure:
            y = np.asarray(self.case.subject.train[1], float)
            yield Finding(
                "targets_not_scaled",
                "fault",
                "targets",
                self.told(cure),
                measured=f"mean {y.mean():.3g}, deviation {y.std():.3g}",
                healthy="mean about 0, deviation about 1",
                remedy="y = (y - y_train.mean()) / y_train.std()",
            )

    def scaled(self, cause: str, evidence: str, confidence: float = 1.0) -> Finding:
        """Inputs whose scale is the cause."""
        told, (mean, deviation) = self.scales, self.input_scale
        column = int(told.deviation.argmax() if deviation > mean else np.abs(told.mean).argmax())
        return Finding(
            cause,
            "fault",
            f"column {column} of the inputs",
            evidence,
            measured=f"mean up to {mean:.4g}, deviation up to {deviation:.4g}",
            healthy="mean about 0, deviation about 1",
            remedy="x = (x - x_train.mean(0)) / x_train.std(0)",
            confidence=confidence,
        )

    def signal(self) -> Iterator[Finding]:
        """The signal and the gradient through the depth, before the first step."""
        levels, layers = self.case.start.levels, self.case.layers
        times = self.case.start.times
        quarter = -(-len(times) // 4)
        early, late = max(times[:quarter], default=0.0), max(times[-quarter:], default=0.0)
        # Such a network may sit still for long before it learns: a run cut short says nothing.
        forgets = self.case.run.complete and early < bound("forgotten") * max(times, default=0.0)
        if forgets and not self.slower:
            yield Finding(
                "vanishing_gradients",
                "fault",
                "the loop over time",
                "of what comes early in a sequence the loss feels next to nothing: the gradient "
                "shrinks with every step back in time",
                measured=f"first quarter at most {early / max(times):.1e} of the largest",
                healthy=f"above {bound('forgotten'):g}",
                remedy="an LSTM with a forget bias of 1, or shorter sequences",
            )
        grown = early > bound("exploding") * late > 0
        if grown and self.case.start.loss > bound("first loss") * abs(self.case.constant_loss):
            yield Finding(
                "exploding_gradients",
                "fault",
                "the loop over time",
                "what comes early in a sequence is felt far more than what comes late: signal and "
                "gradient grow with every step of the loop",
                measured=f"first quarter {early / late:.1e} times the last, first loss "
                f"{self.case.start.loss:.3g}",
                healthy=f"below {bound('exploding'):g} times",
                remedy="jax.nn.initializers.orthogonal() for the recurrent kernel",
            )
        if len(levels) < 2:
            return
        sizes = [max(level.size, 1e-30) for level in levels]
        cure = self.cured("initialization")
        first, last = sizes[0], sizes[-2]
        dies = len(levels) > 3 and last < bound("dying signal") * first
        gradients = np.maximum(self.case.start.gradients, 1e-30)
        bounded = [not BOUNDED.isdisjoint(layer.primitives) for layer in layers[:-1]]
        kernels = [
            kernel * np.sqrt(layer.fan_in)
            for kernel, layer in zip(self.case.start.kernels, layers, strict=True)
        ]
        weak = float(np.median(kernels[:-1]))
        lost = [level.saturated for level, each in zip(levels, bounded, strict=False) if each]
        saturated = float(np.mean(lost)) if lost else 0.0
        if len(layers) > 3 and gradients[0] > bound("exploding") * gradients[-1]:
            yield Finding(
                "exploding_gradients",
                "fault",
                place(layers[0]),
                f"the gradient grows through {len(layers)} layers on its way to the input",
                measured=f"first layer {gradients[0] / gradients[-1]:.0f} times the last",
                healthy=f"below {bound('exploding'):g}",
                remedy="a residual connection around every block: x = x + block(x)",
            )
        elif len(layers) > 3 and last > bound("exploding") * first and not self.slower:
            yield Finding(
                "exploding_gradients",
                "fault",
                place(layers[0]),
                f"the signal grows through {len(layers)} layers on its way to the output",
                measured=f"last hidden layer {last / first:.0f} times the first",
                healthy=f"below {bound('exploding'):g}",
                remedy="jax.nn.initializers.he_normal(), and no gain above sqrt(2) in a layer",
            )
        elif cure and saturated > 0.5:
            yield Finding(
                "initialization_too_large",
                "fault",
                place(layers[0]),
                "most units have lost their slope before any step; " + self.told(cure),
                measured=f"{saturated:.0%} of the units of saturating layers",
                healthy="few of them",
                remedy="jax.nn.initializers.glorot_uniform()",
            )
        elif sum(bounded) >= 3 and gradients[0] < bound("vanishing") * gradients[-1]:
            yield Finding(
                "vanishing_gradients",
                "fault",
                place(layers[0]),
                f"{sum(bounded)} saturating layers: the gradient shrinks on its way to the input",
                measured=f"first layer {gradients[0] / gradients[-1]:.1e} of the last",
                healthy=f"above {bound('vanishing'):g}",
                remedy="use relu in the hidden layers, or fewer of them",
            )
        elif (
            len(levels) > 2 and weak < bound("weak kernel") and (cure or dies or not self.any_cure)
        ):
            yield Finding(
                "initialization_too_small",
                "fault",
                place(layers[0]),
                "the signal shrinks from layer to layer" + (f"; {self.told(cure)}" if cure else ""),
                measured=f"root mean square by layer {', '.join(f'{s:.1e}' for s in sizes)}",
                healthy="about the same in every layer: kernel deviation sqrt(2 / fan_in)",
                remedy="jax.nn.initializers.he_normal()",
            )
        elif cure and weak > bound("strong kernel"):
            yield Finding(
                "initialization_too_large",
                "fault",
                place(layers[0]),
                self.told(cure),
                measured=f"kernel deviation {weak:.2g} / sqrt(fan_in)",
                healthy="1 to 1.5 / sqrt(fan_in)",
                remedy="jax.nn.initializers.he_normal()",
            )

    def penalty(self) -> Iterator[Finding]:
        """A penalty that outweighs the data."""
        cure = self.cured("penalty", "decay")
        steps = self.case.run.steps
        if cure and not steps.penalty.any():
            yield Finding(
                "excessive_regularization",
                "fault",
                "optimizer",
                self.told(cure),
                measured=f"every step takes {max(self.case.decay):.2%} of the weights away",
                healthy="far less than a step of the gradient gives them",
                remedy="divide the weight decay by 100",
            )
        elif cure:
            ratio = steps.penalty[-1] / max(abs(steps.loss[-1]), 1e-30)
            turned = np.nanmin(steps.penalty) < 0
            yield Finding(
                "excessive_regularization",
                "fault",
                "penalty",
                ("the penalty is negative: it rewards large weights; " if turned else "")
                + self.told(cure),
                measured=f"penalty {ratio:.2g} times the data loss at the end",
                healthy="below the data loss",
                remedy="add the penalty to the loss, do not subtract it"
                if turned
                else "divide the penalty's factor by 100",
            )

    def sum_of(self, cured: Trial) -> Finding:
        """The loss as a sum over rows, and a smaller rate that cures it."""
        batch = self.case.trainer.batch
        return Finding(
            "loss_summed_over_batch",
            "fault",
            "loss",
            f"the loss is a sum over rows, so every step is {batch} times as large; "
            + self.told(cured),
            measured="a batch repeated has twice the loss",
            healthy="the same loss",
            remedy="jnp.mean over the rows instead of jnp.sum",
        )

    def metric(self) -> Iterator[Finding]:
        """A metric that finds nothing learned where accuracy or R² finds all of it."""
        if not self.known or not self.finite or self.reached >= bound("failed") * self.reference:
            return
        told = self.case.misjudged
        if told is not None and told >= bound("learned") * self.reference:
            word = "R²" if self.case.kind == "regression" else "accuracy"
            yield Finding(
                "metric_mismatch",
                "fault",
                "metric",
                f"by your metric the network reaches {self.reached:.2f}, by {word} recomputed from "
                f"its outputs {told:.2f}, from 0 for the best constant answer to 1: the metric is "
                "wrong, the training is not",
                measured=f"{self.reached:.2f}",
                healthy=f"{told:.2f}",
                remedy="compare outputs and targets of the same shape: outputs[:, 0] > 0.5 with "
                "y[:, 0]",
                confidence=0.8,
            )

    def faded(self) -> Iterator[Finding]:
        """Updates that end long before the run, though there is a gradient: a schedule's end."""
        steps = self.case.run.steps
        length, slopes = lengths(steps.update), lengths(steps.gradient)
        moving = np.flatnonzero(length > bound("faded") * np.max(length, initial=0.0))
        last = int(moving[-1]) + 1 if len(moving) else 0
        early = 0 < last < len(length) / 2
        # A gradient that ends as well is a loss that is at rest.
        if early and np.median(slopes[last:]) > 0.01 * np.median(slopes[:last]):
            yield Finding(
                "learning_rate_too_low",
                "fault",
                "optimizer",
                f"after step {last} of {len(length)} the updates are 0, though there is a gradient",
                measured=f"{last / len(length):.0%} of the run moves the weights",
                healthy="all of it",
                remedy="a schedule as long as the run: decay_steps = epochs * steps an epoch",
                confidence=0.8,
            )

    def changes(self) -> Iterator[Finding]:
        """Single changes with which the same training goes most of the way."""
        for each in (self.data_scale, self.penalty, self.noise, self.rate):
            yield from each()

    def rate(self) -> Iterator[Finding]:
        """Steps too large or too small for the run."""
        steps = self.case.run.steps
        low, high = self.slower, self.cured("rate x10", "rate x100")
        longer = self.cured("longer")
        if low and self.overshoots and not (high and high.skill > low.skill):
            if self.summed and self.case.trainer.batch >= bound("summed rows"):
                yield self.sum_of(low)
            yield Finding(
                "learning_rate_too_high",
                "fault",
                "optimizer",
                self.told(low),
                measured=f"update {self.pace:.1e} of the weights a step",
                healthy="about 1e-3",
                remedy=f"divide the learning rate by {1 / low.change.rate:.0f}",
            )
            return
        if not high and not longer and self.stands:
            yield Finding(
                "learning_rate_too_low",
                "fault",
                "optimizer",
                "all steps of the run together hardly move the weights",
                measured=f"{self.travel:.1e} of their length in {self.case.run.planned} steps",
                healthy="about 1e-3 a step",
                remedy="ten times the learning rate",
            )
            return
        if high or longer:
            better = high and high.skill >= getattr(longer, "skill", -1.0) - bound("tie")
            short = self.case.run.planned < bound("few steps")
            undertrained = longer and (short or not better)
            chosen = longer if undertrained else high or longer
            assert chosen is not None
            yield Finding(
                "undertrained" if undertrained else "learning_rate_too_low",
                "fault",
                "epochs" if undertrained else "optimizer",
                self.told(chosen),
                measured=f"{len(steps.loss)} steps, update {self.pace:.1e} of the weights a step",
                healthy="about 1e-3, and a loss that has stopped falling",
                remedy="five times the epochs" if undertrained else "ten times the learning rate",
            )

    def dying(self) -> Iterator[Finding]:
        """Layers without a living unit."""
        start, end = self.case.start, self.case.end
        for i in hidden(self.case):
            if end.levels[i].dead >= bound("dead"):
                early = start.levels[i].dead >= bound("dead")
                when = ", from the start"
                if not early:
                    first, last = self.death_of(i)
                    leap = float(np.max(self.moves[first:last], initial=0.0))
                    when = f": they died between steps {first} and {last}"
                    if leap > bound("leap") and not self.slower:
                        yield Finding(
                            "learning_rate_too_high",
                            "fault",
                            "optimizer",
                            f"a step between {first} and {last} moved the weights by {leap:.2g} of "
                            f"their length, and {self.case.layers[i].name} was dead",
                            measured=f"{leap:.2g} of the weights in one step",
                            healthy="about 1e-3",
                            remedy="divide the learning rate by 10, or clip the gradient",
                            confidence=0.7,
                        )
                yield Finding(
                    "dying_relu",
                    "fault",
                    place(self.case.layers[i]),
                    f"no row activates any unit of this layer{when}",
                    measured=f"{end.levels[i].dead:.0%} of {end.levels[i].units} units dead",
                    healthy="a living unit in every layer",
                    remedy="a wider layer, he_normal, or leaky_relu",
                )
                return

    def flattened(self) -> Iterator[Finding]:
        """Hidden layers whose activation makes one unit of many: a softmax in the middle."""
        for layer in self.case.layers[:-1]:
            if layer.activation == "softmax" and not layer.weighs:
                yield Finding(
                    "hidden_activation_mismatch",
                    "fault",
                    place(layer),
                    "a softmax between layers: its units share one unit of signal, and the more "
                    "there are, the less each of them says",
                    measured="softmax",
                    healthy="relu, tanh",
                    remedy="jax.nn.relu instead of jax.nn.softmax",
                    confidence=0.7,
                )
                return

    def noise(self) -> Iterator[Finding]:
        """Dropout that leaves no signal: training without any goes most of the way."""
        quiet = self.case.quiet
        if quiet is None or quiet.skill < max(self.reached, 0) + bound("gap"):
            return
        goal = max(self.attainable, quiet.skill)
        if quiet.skill < self.reached + bound("cure") * (goal - max(self.reached, 0)):
            return
        yield Finding(
            "excessive_dropout",
            "fault",
            "training mode",
            f"of what the outputs tell rows apart by, {self.case.noise:.0%} is drawn at random; "
            + self.told(quiet),
            measured=f"{self.case.noise:.0%} of the variance of the outputs in training mode",
            healthy=f"below {bound('noise'):.0%}",
            remedy="a dropout rate of 0.2 to 0.5",
        )

    def capacity(self) -> Iterator[Finding]:
        """A network that stays behind simple models, and nothing tried cures it.

        What helps a little, or a run of few steps, still says where to look.
        """
        further = self.helped("longer") if self.falls else None
        if further or self.case.run.planned < bound("few steps"):
            yield Finding(
                "undertrained",
                "fault",
                "epochs",
                self.told(further) if further else "the run is a few steps long",
                measured=f"{self.case.run.planned} steps",
                healthy="a loss that has stopped falling",
                remedy="ten times the epochs",
                confidence=0.5,
            )
            return
        widths = [level.units for level in self.case.start.levels[:-1]]
        name, best = self.case.reference.best
        if not self.known or not self.finite:
            return
        if self.share >= bound("learned"):
            yield from self.generalization()
            return
        if max(self.input_scale) > bound("huge inputs") and self.saturated_first:
            yield self.scaled(
                "inputs_not_normalized",
                "most units of the first layer have lost their slope before any step, and no "
                f"change alone helps{self.by_heart}",
                confidence=0.5,
            )
            return
        if not self.case.trials:  # what no change was tried on, none is known not to help
            yield from (replace(note, severity="fault") for note in self.clipping())
            return
        luck = self.cured("initialization")
        yield Finding(
            "insufficient_capacity",
            "fault",
            place(self.case.layers[int(np.argmin(widths))]) if widths else "the whole network",
            f"a simple model ({name}) reaches {best:.2f} on held-out rows, this network "
            f"{self.reached:.2f} on its training rows, and no change of rate, length or scale "
            + ("helps; another start does: with so few units it takes luck" if luck else "helps")
            + self.by_heart,
            measured=f"narrowest layer of {min(widths)} units" if widths else "no hidden layer",
            healthy="what a simple model reaches",
            remedy="more units in the narrowest layer",
            confidence=0.4,
        )

    def generalization(self) -> Iterator[Finding]:
        """A note where validation rows are known far worse than training rows."""
        validated = self.case.validated
        if validated is None or validated.skill >= bound("failed") * self.reached:
            return
        yield Finding(
            "overfitting",
            "note",
            "validation rows",
            f"the network knows its training rows ({self.reached:.2f}) far better than the "
            f"validation rows ({validated.skill:.2f})",
            measured=f"a gap of {self.reached - validated.skill:.2f}",
            healthy=f"validation above {bound('failed'):.0%} of training",
            remedy="more data, a smaller network, regularization",
        )

    def clipping(self) -> Iterator[Finding]:
        """A note where nearly every step is clipped: then the rate alone says little."""
        share = self.case.clipped
        if share is not None and share > bound("clipped"):
            yield Finding(
                "learning_rate_too_low",
                "note",
                "clipping",
                f"{share:.0%} of the steps are clipped: their length is the rate times the "
                "threshold, whatever the gradient says; under Adam the clip nearly cancels",
                measured=f"{share:.0%}",
                healthy="spikes alone",
                remedy="a threshold at the 90th percentile of the norms",
                confidence=0.4,
            )

    def first_loss(self) -> Iterator[Finding]:
        """A note where the first answers are far worse than none: the start speaks too loudly."""
        first, constant = self.case.start.loss, self.case.constant_loss
        if constant > 0 and first > bound("first loss") * constant:
            yield Finding(
                "initialization_too_large",
                "note",
                "loss",
                f"the first loss is {first:.3g}, that of the best constant answer {constant:.3g}",
                measured=f"{first / constant:.3g} times",
                healthy="about that of a constant: ln K for K classes",
                remedy="a smaller last kernel, and a last bias at the mean of the targets",
                confidence=0.4,
            )

    def no_signal(self) -> Iterator[Finding]:
        """Inputs that say nothing about the targets."""
        case = self.case
        if self.known or not self.comparable:
            return
        valid = [trial.valid for trial in case.trials.values() if trial.valid is not None]
        validated = [] if case.validated is None else [case.validated.skill]
        best = max([*valid, *validated], default=self.best_trial)
        if not valid and best >= bound("signal"):
            # What it learns of its training rows may be memory: rows kept back tell.
            best = case.kept_back(max(case.trials.values(), key=lambda trial: trial.skill))
        if best < bound("signal"):
            name = case.reference.best[0]
            yield Finding(
                "corrupted_labels",
                "fault",
                "targets",
                f"no model predicts held-out targets better than a constant: {name} reaches "
                f"{self.reference:.2f}, and {case.shuffled:.2f} where the targets are shuffled; "
                f"this network {best:.2f}",
                measured=f"{max(best, self.reference):.2f} of the way from a constant to perfect",
                healthy="above 0.1",
                remedy="order = rng.permutation(len(x)); x, y = x[order], y[order]",
            )

    def sum_too_large(self) -> list[Finding]:
        """A sum over rows whose first steps leap, of a network that a smaller rate helps."""
        if not self.finite or not self.summed or self.case.trainer.batch < bound("summed rows"):
            return []
        helped = self.helped("rate x0.1") if self.jumps else None
        return [self.sum_of(helped)] if helped else []

    def needed(self, finding: Finding) -> bool:
        """Whether what the program lacks could be missed: a bend where only bends help."""
        if finding.cause != "hidden_activation_missing":
            return True
        skills = self.case.reference.skills
        bent = max((skill for name, skill in skills.items() if name != "linear"), default=1.0)
        return bent > skills.get("linear", 0.0) + bound("gap")

    def impossible(self) -> Iterator[str]:
        """What could not be looked at, and what it would take."""
        case = self.case
        if not case.layers:
            yield "layers: no product with a parameter was found in the traced program"
        if case.subject.valid is None:
            yield "validation, leaks and memory: give valid=(x, y)"
        if case.metric_refused:
            yield f"your metric: {case.metric_refused}"
        if vars(case).get("trials") == {}:
            yield "changes of rate, length, scale and start: no time was left; give more seconds"
        if self.ran and self.finite and not case.run.complete:
            taken, planned = len(case.run.steps.loss), case.run.planned
            yield f"the whole run: {taken} of {planned} steps were taken; give more seconds"

    def measures(self) -> dict[str, Any]:
        """The figures that the verdict rests on."""
        case = self.case
        if not self.ran:
            return {}
        return {
            "skill on training rows": self.reached,
            "skill on validation rows": None if case.validated is None else case.validated.skill,
            "skill of simple models": dict(case.reference.skills),
            "skill of simple models on shuffled targets": vars(case).get("shuffled"),
            "skill on one batch by its rows": vars(case).get("by_heart", {}),
            "share of clipped steps": case.clipped,
            "steps": len(case.run.steps.loss),
            "loss of the best constant answer": vars(case).get("constant_loss"),
            "first loss": float(case.run.steps.loss[0]),
            "last loss": float(case.run.steps.loss[-1]),
            "trials": {t.name: t.skill for t in vars(case).get("trials", {}).values()},
        }

    def verdict(self, structural: Iterable[Finding]) -> list[Finding]:
        """All findings: faults only where the network did not learn, the most upstream first."""
        structural = list(structural)
        data = list(data_checks.check(self.case))
        if any(finding.cause == "nonfinite_data" for finding in data):
            return under_their_cause(data)
        wrong = [finding for finding in data if finding.severity == "fault"]
        known = [finding for finding in data if finding.severity == "note"]
        if self.learned and wrong:
            known += self.generalization()
            lost = [*wrong, *filter(certain_loss, structural)]
            return [*under_their_cause(lost), *known, *map(as_note, structural)]
        found = self.of_the_run(structural, wrong)
        if self.learned:
            return [*found, *known, *self.generalization()]
        clipping = [] if any(f.where == "clipping" for f in found) else self.clipping()
        return [*found, *known, *clipping, *self.first_loss()]

    def of_the_run(self, structural: list[Finding], wrong: list[Finding]) -> list[Finding]:
        """What the run shows, where the data are not all there is to it."""
        mistaken = list(self.metric())
        if mistaken:
            return [*mistaken, *map(as_note, structural)]
        if self.learned:
            # Units that stay the same, layers never used: lost, however well the rest does.
            lost = [*self.symmetry(), *filter(certain_loss, structural)]
            rest = [as_note(finding) for finding in structural if not certain_loss(finding)]
            return [*under_their_cause(lost), *rest]
        structural = [f if self.needed(f) else as_note(f) for f in structural]
        if not self.finite:  # what may be negative was
            structural = [
                replace(f, severity="fault") if f.cause == "output_activation_missing" else f
                for f in structural
            ]
        program = [finding for finding in structural if finding.severity == "fault"]
        notes = [finding for finding in structural if finding.severity == "note"]
        certain = [*self.nonfinite(), *self.ascent(), *self.updates(), *self.symmetry()]
        certain += [*self.sum_too_large(), *(self.faded() if self.failed else ())]
        if self.hardly_begun:
            # A run of so few steps has shown nothing: what cannot work at all is all there is.
            hard = [finding for finding in program if finding.confidence >= bound("hard")]
            soft = [as_note(finding) for finding in program + wrong if finding not in hard]
            return [*under_their_cause(hard + certain), *soft, *notes]
        if not certain and not program and not wrong and not self.failed:
            better = [*self.changes()] if self.known and self.case.run.complete else []
            return [*map(as_note, under_their_cause(better)), *notes]
        found = wrong + program + certain
        # What cannot work needs no further runs.
        hard = any(finding.confidence >= bound("hard") for finding in program)
        if not hard and self.failed:
            found += [*self.statistics(), *self.signal(), *self.flattened()]
            found += [] if wrong else self.no_signal()  # of a class that drowns nothing is heard
            if self.finite and (self.case.run.complete or not self.falls or self.stands):
                found += [*self.changes(), *self.dying()]
                if not found:
                    mixed = [n for n in notes if n.cause in LAST and n.confidence >= 0.5]
                    notes = [note for note in notes if note not in mixed]
                    found = [replace(note, severity="fault") for note in mixed]
                found = found or list(self.capacity())
        return [*under_their_cause(found), *notes]


def certain_loss(finding: Finding) -> bool:
    """Whether it is a mistake even where the network learns: a layer never used, a leak."""
    causes = ("parameters_not_updated", "leaked_targets")
    sure = finding.severity == "fault" and finding.confidence >= bound("hard")
    return finding.cause in causes and sure


def as_note(finding: Finding) -> Finding:
    """The same, of a network that learns."""
    return replace(finding, severity="note")


def under_their_cause(found: list[Finding]) -> list[Finding]:
    """The most upstream fault, with the others as its symptoms."""
    ordered = upstream(found)
    if not ordered:
        return []
    # An output that can be learned with is not what keeps a dead signal from arriving.
    soft = ordered[0].confidence < bound("soft") and ordered[0].cause.startswith("output")
    dead = [finding for finding in ordered if finding.cause == "initialization_too_small"]
    if soft and dead:
        ordered = [*dead, *(finding for finding in ordered if finding not in dead)]
    others = [finding for finding in ordered[1:] if finding.cause != ordered[0].cause]
    return [replace(ordered[0], symptoms=tuple(others[:3]))]


def kernel_of(params: Any, layer: Layer) -> np.ndarray | None:
    """The kernel of a layer, by its path."""
    for path, leaf in jax.tree.leaves_with_path(params):
        if name_of(path) == layer.parameters[0]:
            return np.asarray(leaf, float) if leaf.ndim > 1 else None
    return None
