"""Further trainings, each with one thing changed, and how well they end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnref.diagnosis.causes import EDITS
from nnref.diagnosis.data.references import scales, standardized
from nnref.diagnosis.data.targets import target_of
from nnref.diagnosis.data.tasks import simple_targets
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.recipe import no_penalty
from nnref.diagnosis.run.changes import Change, End, Trial
from nnref.diagnosis.run.starts import first_network, he_start
from nnref.diagnosis.run.trials import Trainer
from nnref.diagnosis.thresholds import bound

BATCHES = (2, 16, 64)  # rows of the batches that a network is asked to overfit
STEPS_ON_A_BATCH = 300
CLASSES = 100  # numbers of classes hardly go further
HE = 17  # the seed of kernels that are drawn anew
SEEDS = (1, 2)  # added to the user's, from which what is reported is trained again
LONGER = 5  # times the epochs of the user's run


class Interventions:
    """The trainings of one recipe with something changed, each made once, while work is left."""

    def __init__(self, measurements: Measurements) -> None:
        """Take the measurements of the user's own run; nothing is trained yet."""
        self.measurements = measurements
        self.recipe = measurements.recipe
        # How what is no change of the user's own run is made again, from other seeds.
        self.makers: dict[str, Callable[[Sequence[int]], list[Trial]]] = {}

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """The training again with one thing changed each time."""
        measured = self.measurements
        inputs, targets, changes = self.planned()
        # As far as the work goes: the likeliest first.
        changes = {name: changes[name] for name in self.likeliest(changes)}
        measured.progress(f"training again, one thing changed: {', '.join(changes)}")
        ends = measured.trainer.trials(
            np.stack(inputs),
            np.stack(targets),
            list(changes.values()),
            [self.start_of(name) for name in changes],
        )
        trials = {}
        for (name, change), end in zip(changes.items(), ends, strict=True):
            if end is not None:
                rows = inputs[int(change.inputs)], targets[int(change.targets)]
                trials[name] = self.trial(name, change, end, rows)
        if measured.run.complete and np.isfinite(measured.run.steps.loss[-1]):
            measured.progress(f"training {EDITS['longer']}")
            end = measured.trainer.longer(measured.run, LONGER)
            if end is not None:
                trials["longer"] = self.trial("longer", Change(), end)
        return trials

    def planned(self) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, Change]]:
        """The inputs, the targets, and what each trial changes, by its name."""
        x, y = (np.asarray(part) for part in self.recipe.train)
        inputs, targets = [x], [y]
        rates = {
            "rate x0.1": Change(rate=0.1),
            "rate x10": Change(rate=10.0),
            "rate x0.01": Change(rate=0.01),
            "rate x100": Change(rate=100.0),
            "turned": Change(rate=-1.0),
        }
        first = {}
        columns = scales(x)
        ordinary = abs(columns.mean).max() < 3 and 0.1 < columns.deviation.max() < 3
        if not ordinary and self.takes_fractions:
            inputs.append(standardized(x))
            first["inputs"] = Change(inputs=1)
            # Plain descent had to go slowly for the largest column, and now goes too slowly.
            rates["inputs, rate x10"] = Change(inputs=1, rate=10.0)
            rates["inputs, rate x100"] = Change(inputs=1, rate=100.0)
        if self.measurements.skill.outputs is None and y.ndim == 2 and y.dtype.kind == "f":
            wide = (y.std(0) > 3) & (np.ptp(y, axis=0) > CLASSES)  # values, beside classes
            scaled = np.where(wide, (y - y.mean(0)) / np.maximum(y.std(0), 1e-30), y)
            if wide.any():
                targets.append(scaled.astype(y.dtype))
                first["targets"] = Change(targets=1)
        elif self.measurements.skill.kind == "regression" and self.measurements.skill.any_scale:
            spread = float(np.std(y.astype(float)))
            if spread > 3 or 0 < spread < 0.1 or abs(y.mean()) > 10:
                scaled = (y - y.mean(0)) / np.maximum(y.std(0), 1e-30)
                flags = np.isin(y, (0, 1)).all(0)  # beside values they say which of these count
                scaled = scaled if flags.all() else np.where(flags, y, scaled)
                dtype = y.dtype if y.dtype.kind == "f" else np.float32  # fractions are no integers
                targets = [y.astype(dtype), scaled.astype(dtype)]
                first["targets"] = Change(targets=1)
                if "inputs" in first:
                    first["inputs and targets"] = Change(inputs=1, targets=1)
        if self.outweighing:
            first["decay"] = Change(penalty=0.0)
        elif np.any(self.measurements.run.steps.penalty):
            first["penalty"] = Change(penalty=0.0)
        simple = simple_targets(x, y, self.measurements.skill.kind)
        last = {}
        if simple is not None and np.isfinite(simple.astype(float)).all():
            last["another task"] = Change(targets=len(targets))
            targets.append(simple.astype(targets[-1].dtype))
        return inputs, targets, {**first, "initialization": Change(), **rates, **last}

    @property
    def outweighing(self) -> bool:
        """Whether the optimizer decays the weights by much, and can be asked to do without."""
        decay, added = self.measurements.decay, self.measurements.added
        if added is None:
            return bool(decay) and self.recipe.setup is not None
        return bool(decay) or added.beside > bound("decay beside")

    def start_of(self, name: str) -> tuple[Any, Any]:
        """Parameters and state that a trial starts from: the user's, but for one trial."""
        return self.he_start if name == "initialization" else self.measurements.initial

    def repeated(self, trial: Trial) -> list[tuple[Trial, Trial]]:
        """The run and a trial of it, from other seeds; [] where work is short."""
        measured, recipe = self.measurements, self.recipe
        measured.progress(f"training again {EDITS[trial.name]}, from two other seeds")
        others = [recipe.seed + further for further in SEEDS]
        if trial.name == "longer":
            return self.longer_from(others)
        if trial.name in self.makers:
            made = self.makers[trial.name](others)
            ended = partial(self.trial, "", Change())
            own = self.from_seeds(measured.trainer, Change(), ended, others) if made else []
            return list(zip(own, made, strict=True)) if own else []
        inputs, targets, changes = self.planned()
        seeds = [seed for seed in others for _ in range(2)]
        pairs = [Change(), changes[trial.name]] * len(SEEDS)
        starts = [first_network(recipe, seed) for seed in seeds]
        if trial.name == "initialization":
            for i in range(1, len(starts), 2):
                starts[i] = he_start(measured.products, starts[i], seeds[i])
        sets = np.stack(inputs), np.stack(targets)
        ends = measured.trainer.trials(*sets, pairs, starts, seeds)
        made = [end for end in ends if end is not None]
        if len(made) < len(ends):
            return []
        rows = [(inputs[int(c.inputs)], targets[int(c.targets)]) for c in pairs]
        runs = [self.trial(trial.name, *run) for run in zip(pairs, made, rows, strict=True)]
        return list(zip(runs[::2], runs[1::2], strict=True))

    def longer_from(self, seeds: Sequence[int]) -> list[tuple[Trial, Trial]]:
        """The run from other seeds, and where it goes in more epochs; [] where work is short."""
        trainer, pairs = self.measurements.trainer, []
        for seed in seeds:
            if not trainer.budget.affords(LONGER * trainer.planned * trainer.work_of_a_step):
                return []
            run = trainer.run(first_network(self.recipe, seed), seed=seed)
            further = trainer.longer(run, LONGER) if np.isfinite(run.steps.loss[-1]) else None
            own = End((run.params, run.state), np.asarray(run.losses))
            ends = own, own if further is None else further
            pairs.append(tuple(self.trial("longer", Change(), end) for end in ends))
        return pairs

    def from_seeds(
        self, trainer: Trainer, change: Change, ended: Callable[[End], Trial], seeds: Sequence[int]
    ) -> list[Trial]:
        """A training from other seeds, the user's first networks; [] where work is short.

        Args:
            trainer: of the recipe, or of an edited one.
            change: to each of these trainings.
            ended: makes the trial of where one of them ended.
            seeds: one a training.
        """
        starts = [first_network(self.recipe, seed) for seed in seeds]
        x, y = (np.asarray(part)[None] for part in trainer.recipe.train)
        ends = trainer.trials(x, y, [change] * len(seeds), starts, seeds)
        made = [ended(end) for end in ends if end is not None]
        return made if len(made) == len(seeds) else []

    @cached_property
    def he_start(self) -> tuple[Any, Any]:
        """The user's parameters with kernels drawn as He et al. 2015 do."""
        return he_start(self.measurements.products, self.measurements.initial, HE)

    def trial(self, name: str, change: Change, end: End, rows: Any = None) -> Trial:
        """How well a trial ended on its training rows (None: the user's), and on validation rows.

        The validation rows are scaled as the user's training rows: where a trial scales these
        otherwise, it is not asked about them.
        """
        skill, valid = self.measurements.skill, None
        asked = skill.of_other_targets(rows) if change.targets and rows is not None else skill
        if self.recipe.valid is not None and not change.inputs and not change.targets:
            valid = skill.outcome(*end.network, self.recipe.valid).skill
        return Trial(name, change, asked.outcome(*end.network, rows).skill, valid, end.losses)

    def likeliest(self, names: Iterable[str]) -> list[str]:
        """Trials in the order in which the run so far speaks for them."""
        steps = self.measurements.run.steps
        finite = steps.finite.all(1)  # of no step at all there is no median
        update, weight = (part[finite] for part in (steps.update, steps.weight))
        slow = bool(finite.any() and np.median(update) < 1e-4 * np.median(weight))
        climbs = not np.isfinite(steps.loss).all() or np.max(steps.loss) > 1.2 * abs(steps.loss[0])
        order = ["rate x10", "rate x100"] if slow else ["rate x0.1", "rate x0.01"] if climbs else []
        order += ["inputs", "penalty", "decay", "initialization", "rate x10", "rate x0.1"]
        return [name for name in dict.fromkeys([*order, *names]) if name in set(names)]

    @cached_property
    def takes_fractions(self) -> bool:
        """Whether the inputs may be other numbers than whole ones, as tokens may not."""
        x, layout = np.asarray(self.recipe.train[0]), self.recipe.inputs
        if layout is not None and layout.whole:
            return False
        if np.issubdtype(x.dtype, np.inexact):
            return True
        if any(layer.kind == "gather" for layer in self.measurements.layers):
            return False
        rows = jax.ShapeDtypeStruct((self.recipe.rows or 2, *x.shape[1:]), jnp.float32)
        params, state = self.measurements.initial
        try:
            jax.eval_shape(lambda x: self.recipe.apply(params, state, x, None, False), rows)
        except Exception:  # whatever the user's function raises: it does not take them
            return False
        return True

    def held_out(self, trial: Trial | None) -> float:
        """The skill on a fifth of the training rows that a trial (None: the run) did not see."""
        measured = self.measurements
        x, y = (np.asarray(part) for part in self.recipe.train)
        order = np.random.default_rng(1).permutation(len(x))
        held_out, rows = np.split(order, [len(x) // 5])
        change = Change() if trial is None else trial.change._replace(inputs=0, targets=0)
        longer = LONGER if trial is not None and trial.name == "longer" else 1
        recipe = replace(self.recipe, train=(x[rows], y[rows]), epochs=longer * self.recipe.epochs)
        start = self.start_of("" if trial is None else trial.name)
        own = measured.trainer
        trainer = Trainer(recipe, own.stepwise, own.decays, measured.budget)
        (end,) = trainer.trials(x[rows][None], y[rows][None], [change], [start])
        rest = x[held_out], y[held_out]
        # Where no work is left, it is not doubted.
        return 1.0 if end is None else measured.skill.outcome(*end.network, rest).skill

    @cached_property
    def quiet(self) -> Trial | None:
        """The training again without anything drawn, where most of the signal is noise."""
        measured = self.measurements
        if not self.recipe.random or measured.noise < bound("noise") or measured.moded:
            return None
        recipe = replace(self.recipe, apply=self.without_noise, setup=None, stop=None)
        trainer = Trainer(recipe, measured.trainer.stepwise, budget=measured.budget)
        if not measured.budget.affords(trainer.planned * trainer.work_of_a_step):
            return None
        ended = partial(self.trial, "quiet", Change())
        self.makers["quiet"] = partial(self.from_seeds, trainer, Change(), ended)
        run = trainer.run(measured.initial)
        skill = measured.skill.outcome(run.params, run.state).skill
        return Trial("quiet", Change(), skill, None, run.losses)

    def without_noise(self, params: Any, state: Any, x: Any, key: Any, train: bool) -> Any:
        """The network without dropout, where leaving training mode loses no state."""
        if self.measurements.moded:
            return self.recipe.apply(params, state, x, key, train)
        return self.recipe.apply(params, state, x, None, False)

    @cached_property
    def overfit_one_batch(self) -> dict[int, float]:
        """The skill on one batch of 2, 16 and 64 rows after training on it alone, by its size.

        All regularization is off but what the optimizer brings, which is Adam at 0.01 here: what
        cannot learn two rows like this is no question of data or patience. Small batches are
        repeated to the length of the largest, so that one program serves all.
        """
        measured = self.measurements
        recipe = self.recipe
        x, y = (np.asarray(part) for part in recipe.train)
        rows = recipe.rows or min(BATCHES[-1], len(x))
        sizes = [size for size in BATCHES if size <= rows]
        if not sizes:
            return {}
        order = np.random.default_rng(2).permutation(len(x))
        others = np.flatnonzero((y[order] != y[order[0]]).reshape(len(y), -1).any(1))
        if len(others):  # the first two rows have different targets
            order[[1, others[0]]] = order[[others[0], 1]]
        batches = [np.resize(order[:size], rows) for size in sizes]
        learner = Trainer(
            replace(
                recipe,
                apply=self.without_noise,
                penalty=no_penalty,
                train=(x[batches[-1]], y[batches[-1]]),
                optimizer=optax.adam(1e-2),
                batch_size=rows,
                epochs=STEPS_ON_A_BATCH,
                shuffle=False,
                setup=None,
                stop=None,
            ),
            measured.trainer.stepwise,
            budget=measured.budget,
        )
        sets = x[np.stack(batches)], y[np.stack(batches)]
        changes = [Change(inputs=i, targets=i) for i in range(len(sizes))]
        starts = [measured.initial] * len(sizes)
        skills = {}
        ends = learner.trials(*sets, changes, starts)
        for size, batch, end in zip(sizes, batches, ends, strict=True):
            target = target_of(y[batch], measured.skill.kind)
            alike = bool((target.answers == target.answers[:1]).all())
            if end is not None and not alike:  # targets that are all the same explain nothing
                outcome = measured.skill.outcome(*end.network, (x[batch], y[batch]), measured.moded)
                skills[size] = outcome.skill
        return skills
