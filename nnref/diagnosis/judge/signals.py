"""Signals drawn from the measurements: did it learn, what helped, how did it move?"""

from functools import cached_property

import jax
import numpy as np

from nnref.diagnosis.causes import EDITS
from nnref.diagnosis.data.references import Scales, scales
from nnref.diagnosis.judge.exchanges import Exchanges
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.program.arithmetic import stops_its_target
from nnref.diagnosis.proof import Proof, curve
from nnref.diagnosis.run.changes import Trial
from nnref.diagnosis.run.trials import StepMeasures, lengths
from nnref.diagnosis.thresholds import bound
from nnref.training.probes import update_ratio


class Signals:
    """Numbers, and answers of yes or no, that the checks of a run ask for."""

    def __init__(
        self,
        measurements: Measurements,
        interventions: Interventions,
        mistakes: list[str] | None = None,
    ) -> None:
        """Take what is measured of a run, and what is tried beside it; both are lazy.

        `mistakes` takes a line for each check of the run in which nnref itself raises.
        """
        self.mistakes = [] if mistakes is None else mistakes
        self.measurements = measurements
        self.interventions = interventions

    @property
    def steps(self) -> StepMeasures:
        """The steps of the user's own run."""
        return self.measurements.run.steps

    @property
    def trials(self) -> dict[str, Trial]:
        """The training again with one thing changed each time, by what was changed."""
        made = self.interventions.trials
        return {name: trial for name, trial in made.items() if name != "another task"}

    @cached_property
    def exchanges(self) -> Exchanges:
        """The training again with a piece of the program exchanged, as far as it is asked for."""
        return Exchanges(self.interventions)

    @property
    def tried(self) -> dict[str, Trial]:
        """All further runs that were made of this network, by what is different in them."""
        exchanged = {} if "exchanges" not in vars(self) else vars(self.exchanges)
        names = ("head", "opposite", "padding", "activation", "batch", "optimizer", "everything")
        made = [exchanged.get(name, {}) for name in names]
        return {**self.trials, **{word: trial for each in made for word, trial in each.items()}}

    # Did it learn?

    @cached_property
    def reference(self) -> float:
        """The best skill of simple models on held-out rows."""
        return self.measurements.reference.best[1]

    @cached_property
    def reached(self) -> float:
        """The skill of the network at the end of its run."""
        return self.measurements.trained.skill

    @property
    def share(self) -> float:
        """The part of the skill of simple models that the network reached."""
        return self.reached / self.reference if self.known else 1.0

    @property
    def known(self) -> bool:
        """Whether a simple model shows what can be learned."""
        return self.reference > bound("signal")

    @property
    def ran(self) -> bool:
        """Whether the training was run at all: data that are not finite need none."""
        return "run" in vars(self.measurements)

    @property
    def finite(self) -> bool:
        """Whether all numbers of all steps were finite."""
        return bool(self.steps.finite.all())

    @property
    def collapsed(self) -> bool:
        """Good on the training rows and no better than a constant on the validation rows."""
        validated = self.measurements.validated
        if validated is None:
            return False
        return validated.skill < bound("collapse") * max(self.reference, 0)

    @property
    def learned(self) -> bool:
        """As well as simple models do, in finite steps; where those fail, beyond memory."""
        # A skill is measured against targets that are given, and stay.
        if self.measurements.skill.costs or self.moving_target:
            return self.finite and not self.runs_away
        if not self.finite or self.collapsed:
            return False
        if self.known:
            return self.share >= bound("learned")
        validated = self.measurements.validated
        if validated is not None:
            return validated.skill > bound("failed")
        return self.reached > bound("failed") and self.beyond_memory

    @property
    def runs_away(self) -> bool:
        """Whether the loss ends so far above its first value that no target explains it."""
        loss = self.steps.loss
        end = float(np.median(loss[-max(len(loss) // 10, 1) :]))
        return bool(end > bound("runs away") * abs(loss[0]))

    @property
    def unmeasured(self) -> bool:
        """Whether simple models say little of what there is to learn, and there may be more."""
        skill, recipe = self.measurements.skill, self.measurements.recipe
        validated = self.measurements.validated
        return bool(
            validated is not None
            and skill.fits
            and not (skill.costs or self.moving_target or recipe.replayed)
            and self.measurements.run.complete
            and self.reference < bound("failed") * self.reached
            and self.reached < 1 - bound("gap")
            and validated.skill < 1 - bound("plain gain")
        )

    @cached_property
    def moving_target(self) -> bool:
        """Whether the network computes what it is held against, and no loss tells what it learns.

        So it is with temporal differences, whose loss may rise while values become right.
        """
        return stops_its_target(self.exchanges.at_start)

    @property
    def rows_can_tell(self) -> bool:
        """Whether held-out rows can tell memory from learning: enough of them, no sequences."""
        recipe = self.measurements.recipe
        enough = len(recipe.train[0]) >= bound("rows for no signal")
        # Simple models do not see the order of a sequence, and may fail for that reason alone.
        sequences = np.ndim(recipe.train[0]) == 3 or recipe.restart is not None
        return enough and self.measurements.skill.fits and not sequences

    @cached_property
    def beyond_memory(self) -> bool:
        """Whether the network is good on held-out rows, where no validation rows were given."""
        return not self.rows_can_tell or self.interventions.held_out(None) >= bound("signal")

    @property
    def failed(self) -> bool:
        """So much worse than simple models that optimization itself must be at fault."""
        if not self.finite or self.collapsed:
            return True
        if self.known:
            return self.share < bound("failed")
        validated = self.measurements.validated
        # How far a loss can fall below that of a constant is not known where nothing else is.
        least = bound("signal" if self.measurements.skill.fits else "of the constant")
        if validated is not None and validated.skill < least:
            return True
        if self.reached > bound("signal") and validated is None and not self.beyond_memory:
            return True
        return self.reached < bound("failed") * self.best_trial

    # What helped?

    @property
    def best_trial(self) -> float:
        """The best skill of any run with one thing changed."""
        trials = self.tried.values()
        return max((t.skill for t in trials if not self.memorizes(t)), default=0.0)

    def memorizes(self, trial: Trial) -> bool:
        """Whether what a trial gains on its own rows is no learning.

        Where simple models say what can be learned, so it is with a trial that stays far behind
        them on validation rows, as the run does, unless simple models do not carry over either;
        where none says it, with one that is no better there than a constant, or loses half of its
        gain.
        """
        validated = self.measurements.validated
        if validated is None or trial.valid is None:
            return False
        gain = trial.skill - max(self.reached, 0.0)
        if not self.known:
            constant = bound("signal") if gain > bound("gap") else 0.0
            return gain > 0 and trial.valid < max(validated.skill - gain / 2, constant)
        if not self.collapsed:
            return False
        knows_its_rows = self.share >= bound("failed")
        splits = self.measurements.splits
        numbers = None if splits is None else splits.numbers
        if not knows_its_rows and numbers is not None and numbers.carries is False:
            return False
        goal = self.reference if knows_its_rows else min(trial.skill, self.reference)
        return trial.valid < bound("collapse") * goal

    @property
    def attainable(self) -> float:
        """The best skill that a simple model or a trial reached."""
        return max(self.reference, self.best_trial)

    def cured(self, *names: str) -> Trial | None:
        """The best of these trials, if it went most of the way to the best that was reached."""
        trials = [self.tried[name] for name in names if name in self.tried]
        trials = [trial for trial in trials if not self.memorizes(trial)]
        if not trials:
            return None
        best = max(trials, key=lambda trial: trial.skill)
        base = max(self.reached, 0.0)
        gap = self.attainable - base
        enough = base + bound("cure") * gap
        return best if gap > bound("gap") and best.skill >= enough else None

    @property
    def slower(self) -> Trial | None:
        """A smaller learning rate, if it went most of the way."""
        return self.cured("rate x0.1", "rate x0.01")

    def beyond_rate(self, *names: str) -> Trial | None:
        """The best of these trials, if it went most of the way and a tenth of the rate does less.

        To a loss that explodes, the scale of what is multiplied and the rate are one number. Where
        it takes a hundredth, and with another scale none, the rate is an ordinary one.
        """
        cure, slower = self.cured(*names), self.cured("rate x0.1")
        alike = cure and slower and cure.skill < slower.skill + bound("tie")
        return None if alike else cure

    @property
    def head_cures(self) -> bool:
        """Whether other outputs or another loss alone let the network learn."""
        trials = self.exchanges.head
        return any(self.cured(name) is not None for name in trials)

    @property
    def program_learns(self) -> bool:
        """Whether the same network, loss and gradient learned all there is from another start."""
        best = max((trial.skill for trial in self.trials.values()), default=0.0)
        return self.known and best >= bound("learned") * self.reference

    def helped(self, name: str) -> Trial | None:
        """A trial that is better than the run by more than the noise of one seed."""
        trial = self.trials.get(name)
        if trial is None or self.memorizes(trial):
            return None
        return trial if trial.skill > max(self.reached, 0.0) + bound("gap") else None

    def proof(self, trial: Trial | None) -> Proof | None:
        """What a trial changed, and how far the run and the trial went; None for no trial."""
        if trial is None:
            return None
        words = (
            f"{EDITS[trial.name]}, the same training goes from "
            f"{self.reached:.2f} to {trial.skill:.2f} (a constant answer is 0, a perfect one 1)"
        )
        seed = self.measurements.recipe.seed
        curves = curve(seed, False, self.measurements.run.losses), curve(seed, True, trial.losses)
        return Proof(words, trial.name, (self.reached,), (trial.skill,), curves)

    @property
    def batches_in_words(self) -> str:
        """How well the network overfits single batches, as a clause; "" where none was tried."""
        skills = self.interventions.overfit_one_batch
        listed = ", ".join(f"{skill:.2f} of {rows} rows" for rows, skill in skills.items())
        return f"; trained on one batch alone it learns {listed}" if skills else ""

    # How did it start, and move?

    @cached_property
    def scales(self) -> Scales:
        """Location and spread of the inputs, column by column."""
        return scales(np.asarray(self.measurements.recipe.train[0]))

    @property
    def input_scale(self) -> tuple[float, float]:
        """The largest mean and deviation of a column of the inputs."""
        return float(np.abs(self.scales.mean).max()), float(self.scales.deviation.max())

    @property
    def saturated_first(self) -> bool:
        """Whether most units of the first layer have lost their slope before any step."""
        levels = self.measurements.start.levels
        return len(levels) > 1 and levels[0].saturated > bound("saturated")

    @property
    def jumps(self) -> bool:
        """Whether the loss climbed far above its first value, or a step outran the weights."""
        loss = self.steps.loss[np.isfinite(self.steps.loss)]
        climbed = len(loss) > 1 and loss[1:].max() > bound("overshoot") * abs(loss[0])
        return bool(climbed or np.max(self.update_ratios[:5], initial=0.0) > bound("outrun"))

    @cached_property
    def update_ratios(self) -> np.ndarray:
        """The length of each step over that of the weights, (steps, kernels)."""
        kernels = [leaf.ndim > 1 for leaf in jax.tree.leaves(self.measurements.initial[0])]
        weight = self.steps.weight[:, kernels]
        # What starts at 0 moves infinitely far in its first step, and nothing is wrong with it: its
        # steps are held against the longest that it becomes.
        longest = np.nanmax(np.where(np.isfinite(weight), weight, 0), axis=0, keepdims=True)
        length = np.where(weight[:1] > 0, weight, longest)
        return update_ratio(self.steps.update[:, kernels], length, 1e-12)

    @cached_property
    def update_ratio(self) -> float:
        """The median of the update ratios over steps and kernels."""
        return float(np.median(self.update_ratios)) if self.update_ratios.size else 0.0

    @property
    def distance(self) -> float:
        """How far the planned run goes at this update ratio, in lengths of the weights."""
        planned, taken = self.measurements.run.planned, max(len(self.steps.loss), 1)
        return float(np.median(self.update_ratios, 1).sum()) * planned / taken

    @cached_property
    def faded_at(self) -> int | None:
        """The step behind which all updates are next to nothing, though there is a gradient.

        None where there is none in the first half of the run; a gradient that ends as well is a
        loss that is at rest.
        """
        length, slopes = lengths(self.steps.update), lengths(self.steps.gradient)
        moving = np.flatnonzero(length > bound("faded") * np.max(length, initial=0.0))
        last = int(moving[-1]) + 1 if len(moving) else 0
        if not 0 < last < len(length) / 2:
            return None
        there = np.median(slopes[last:]) > bound("at rest") * np.median(slopes[:last])
        return last if there else None

    @property
    def hardly_begun(self) -> bool:
        """Whether the time was over before anything could be seen."""
        few = len(self.steps.loss) < bound("few steps")
        return self.finite and not self.measurements.run.complete and few

    @property
    def still_falls(self) -> bool:
        """Whether the loss still fell when the time was over: such a run says nothing yet."""
        loss = self.steps.loss
        if len(loss) < 3:
            return False
        tenth = max(len(loss) // 10, 1)
        middle, last = np.mean(loss[-3 * tenth : -2 * tenth]), np.mean(loss[-tenth:])
        return bool(last < middle - bound("falls") * abs(loss[0] - middle))

    @property
    def stands(self) -> bool:
        """Whether there is a gradient, and neither weights nor loss go anywhere."""
        slow = self.update_ratio < bound("slow step") and self.distance < bound("distance")
        first, last = self.steps.loss[0], self.steps.loss[-1]
        arrived = first - last > bound("arrived") * abs(first)
        return bool(np.median(self.steps.gradient) > 0 and slow and not arrived)

    @cached_property
    def summed(self) -> bool:
        """Whether the loss of a batch repeated is twice that of the batch."""
        skill = self.measurements.skill
        if skill.outputs is None:
            return False
        outputs, y = np.float32(skill.outputs[:8]), np.asarray(skill.wanted[:8])
        loss = jax.jit(self.measurements.recipe.loss)
        one = float(loss(outputs, y))
        two = float(loss(np.concatenate([outputs] * 2), np.concatenate([y] * 2)))
        return bool(
            np.isfinite([one, two]).all()
            and abs(two - 2 * one) + abs(two) > 0
            and abs(two - 2 * one) < bound("doubled") * abs(two)
        )

    @property
    def sum_matters(self) -> bool:
        """Whether the loss is a sum, over enough rows that it differs from a mean."""
        return self.summed and self.measurements.trainer.batch >= bound("summed rows")

    @property
    def overshoots(self) -> bool:
        """Whether the history shows steps that are too large: a loss that climbs, or huge steps."""
        loss = self.steps.loss[np.isfinite(self.steps.loss)]
        climbs = len(loss) > 1 and loss[1:].max() > loss[0] + bound("climb") * abs(loss[0])
        return bool(climbs or self.update_ratio > bound("large step") or self.jumps)

    def death_of(self, i: int) -> tuple[int, int]:
        """The steps between which the last unit of a layer died."""
        last = len(self.steps.loss)
        for step, params, state in reversed(self.measurements.run.snapshots):
            if self.measurements.look(params, state).levels[i].dead < bound("dead"):
                return step, last
            last = step
        return 0, last
