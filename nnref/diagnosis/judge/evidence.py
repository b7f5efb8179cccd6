"""What the measurements of a case say: did it learn, what helped, how did it move?"""

from functools import cached_property

import jax
import numpy as np

from nnref.diagnosis.causes import bound
from nnref.diagnosis.data.references import Scales, scales
from nnref.diagnosis.judge.case import Case, Trial

# What a trial changed, as a report says it.
WORDS = {
    "inputs": "with standardized inputs",
    "targets": "with standardized targets",
    "inputs and targets": "with standardized inputs and targets",
    "inputs, rate x10": "with standardized inputs and ten times the learning rate",
    "inputs, rate x100": "with standardized inputs and a hundred times the learning rate",
    "initialization": "with kernels drawn as He et al. 2015 do",
    "penalty": "without the penalty",
    "decay": "without any penalty or decay of the weights",
    "quiet": "without any dropout",
    "longer": "with five times the epochs",
    "rate x0.1": "with a tenth of the learning rate",
    "rate x0.01": "with a hundredth of the learning rate",
    "rate x10": "with ten times the learning rate",
    "rate x100": "with a hundred times the learning rate",
}


class Evidence:
    """Questions that a case answers with a number, or with yes or no."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @cached_property
    def reference(self) -> float:
        """The best skill of simple models on held-out rows."""
        return self.case.reference.best[1]

    @cached_property
    def reached(self) -> float:
        """The skill of the network at the end of its run."""
        return self.case.trained.skill

    # Did it learn?

    @property
    def share(self) -> float:
        """How much of what simple models reach the network reached."""
        return self.reached / self.reference if self.reference > bound("signal") else 1.0

    @property
    def known(self) -> bool:
        """Whether a simple model shows what can be learned."""
        return self.reference > bound("signal")

    @property
    def finite(self) -> bool:
        """Whether every step was."""
        return bool(self.case.run.steps.finite.all())

    @property
    def collapsed(self) -> bool:
        """Good on the training rows and no better than a constant on the validation rows."""
        validated = self.case.validated
        return validated is not None and validated.skill < bound("collapse") * max(
            self.reference, 0
        )

    @property
    def learned(self) -> bool:
        """As well as simple models do, on finite steps; where those find nothing, beyond memory."""
        if self.case.costs:  # a skill is measured against targets
            return self.finite
        if not self.finite or self.collapsed:
            return False
        if self.known:
            return self.share >= bound("learned")
        validated = self.case.validated
        if validated is not None:
            return validated.skill > bound("failed")
        return self.reached > bound("failed") and self.beyond_memory

    @property
    def comparable(self) -> bool:
        """Whether rows kept back can tell memory from learning: enough of them, no sequences."""
        subject = self.case.subject
        enough = len(subject.train[0]) >= bound("rows for no signal")
        # What is said in the order of a sequence, no reference could have found.
        sequences = np.ndim(subject.train[0]) == 3 or subject.restart is not None
        return enough and self.case.fits and not sequences

    @cached_property
    def beyond_memory(self) -> bool:
        """Whether the network is good on rows kept back, where no validation rows were given."""
        return not self.comparable or self.case.kept_back(None) >= bound("signal")

    @property
    def failed(self) -> bool:
        """So much worse than simple models that optimization itself must be at fault."""
        if not self.finite or self.collapsed:
            return True
        if self.known:
            return self.share < bound("failed")
        validated = self.case.validated
        if validated is not None and validated.skill < bound("signal"):
            return True
        if self.reached > bound("signal") and validated is None and not self.beyond_memory:
            return True
        return self.reached < bound("failed") * self.best_trial

    # What helped?

    @property
    def best_trial(self) -> float:
        """The best skill of any run with one thing changed."""
        return max((trial.skill for trial in self.case.trials.values()), default=0.0)

    @property
    def attainable(self) -> float:
        """The best that anything reached."""
        return max(self.reference, self.best_trial)

    def cured(self, *names: str) -> Trial | None:
        """The best of these trials, if it went most of the way to the best that was reached."""
        trials = [self.case.trials[name] for name in names if name in self.case.trials]
        if not trials:
            return None
        best = max(trials, key=lambda trial: trial.skill)
        base = max(self.reached, 0.0)
        gap = self.attainable - base
        enough = base + bound("cure") * gap
        return best if gap > bound("gap") and best.skill >= enough else None

    @property
    def slower(self) -> Trial | None:
        """A smaller rate, if it went most of the way."""
        return self.cured("rate x0.1", "rate x0.01")

    @property
    def any_cure(self) -> bool:
        """Whether a run with one thing changed went most of the way."""
        return any(self.cured(name) for name in self.case.trials)

    def helped(self, name: str) -> Trial | None:
        """A trial that is better than the run by more than the noise of one seed."""
        trial = self.case.trials.get(name)
        better = trial is not None and trial.skill > max(self.reached, 0.0) + bound("gap")
        return trial if better else None

    def told(self, trial: Trial) -> str:
        """A trial in words."""
        return (
            f"{WORDS.get(trial.name, f'with {trial.name}')}, the same training goes from "
            f"{self.reached:.2f} to {trial.skill:.2f} (a constant answer is 0, a perfect one 1)"
        )

    @property
    def attainable_in_mode(self) -> float:
        return max(self.reference, 0.5)

    # How did it start, and move?

    @cached_property
    def scales(self) -> Scales:
        """Location and spread of the inputs, column by column."""
        return scales(np.asarray(self.case.subject.train[0]))

    @property
    def input_scale(self) -> tuple[float, float]:
        """The largest mean and deviation of a column of the inputs."""
        return float(np.abs(self.scales.mean).max()), float(self.scales.deviation.max())

    @property
    def saturated_first(self) -> bool:
        """Whether most units of the first layer have lost their slope before any step."""
        levels = self.case.start.levels
        return len(levels) > 1 and levels[0].saturated > 0.5

    @property
    def jumps(self) -> bool:
        """Whether the loss climbed far above its first value, or a step outran the weights."""
        loss = self.case.run.steps.loss
        loss = loss[np.isfinite(loss)]
        climbed = len(loss) > 1 and loss[1:].max() > bound("overshoot") * abs(loss[0])
        return bool(climbed or np.max(self.moves[:5], initial=0.0) > 1)

    @cached_property
    def moves(self) -> np.ndarray:
        """The length of each step over that of the weights, (steps, kernels)."""
        steps = self.case.run.steps
        kernels = [leaf.ndim > 1 for leaf in jax.tree.leaves(self.case.initial[0])]
        weight = steps.weight[:, kernels]
        # What starts at 0 moves infinitely far in its first step, and nothing is wrong with it: its
        # steps are held against the longest that it becomes.
        reached = np.nanmax(np.where(np.isfinite(weight), weight, 0), axis=0, keepdims=True)
        length = np.where(weight[:1] > 0, weight, reached)
        return steps.update[:, kernels] / np.maximum(length, 1e-12)

    @cached_property
    def pace(self) -> float:
        """The median of that over steps and kernels."""
        return float(np.median(self.moves)) if self.moves.size else 0.0

    @property
    def hardly_begun(self) -> bool:
        """Whether the time was over before anything could be seen."""
        run = self.case.run
        return self.finite and not run.complete and len(run.steps.loss) < bound("few steps")

    @property
    def falls(self) -> bool:
        """Whether the loss still fell when the time was over: such a run says nothing yet."""
        loss = self.case.run.steps.loss
        if len(loss) < 3:
            return False
        tenth = max(len(loss) // 10, 1)
        middle, last = np.mean(loss[-3 * tenth : -2 * tenth]), np.mean(loss[-tenth:])
        return bool(last < middle - bound("falls") * abs(loss[0] - middle))

    @property
    def travel(self) -> float:
        """How far the planned run goes at this pace, in lengths of the weights."""
        run = self.case.run
        return float(np.median(self.moves, 1).sum()) * run.planned / max(len(run.steps.loss), 1)

    @property
    def stands(self) -> bool:
        """Whether there is a gradient, and the run goes nowhere."""
        moving = np.median(self.case.run.steps.gradient) > 0
        return bool(moving and self.pace < bound("slow step") and self.travel < bound("travel"))

    @cached_property
    def summed(self) -> bool:
        """Whether the loss of a batch repeated is twice that of the batch."""
        if self.case.answers is None:
            return False
        outputs, y = np.float32(self.case.answers[:8]), np.asarray(self.case.wanted[:8])
        loss = jax.jit(self.case.subject.loss)
        one = float(loss(outputs, y))
        two = float(loss(np.concatenate([outputs] * 2), np.concatenate([y] * 2)))
        return bool(
            np.isfinite([one, two]).all()
            and abs(two - 2 * one) + abs(two) > 0
            and abs(two - 2 * one) < 1e-3 * abs(two)
        )

    @property
    def overshoots(self) -> bool:
        """Whether the history shows steps that are too large: a loss that climbs, or huge steps."""
        steps = self.case.run.steps
        loss = steps.loss[np.isfinite(steps.loss)]
        climbs = len(loss) > 1 and loss[1:].max() > loss[0] + 0.2 * abs(loss[0])
        return bool(climbs or self.pace > bound("large step") or self.jumps)

    @property
    def ran(self) -> bool:
        """Whether the training was run at all: data that are not finite need none."""
        return "run" in vars(self.case)

    @property
    def by_heart(self) -> str:
        """How much of single batches the network learns by heart, as a clause."""
        told = [f"{skill:.2f} of {rows} rows" for rows, skill in self.case.by_heart.items()]
        return f"; trained on one batch alone it learns {', '.join(told)}" if told else ""

    def death_of(self, i: int) -> tuple[int, int]:
        """The steps between which the last unit of a layer died."""
        last = len(self.case.run.steps.loss)
        for step, params, state in reversed(self.case.run.snapshots):
            if self.case.look(params, state).levels[i].dead < bound("dead"):
                return step, last
            last = step
        return 0, last
