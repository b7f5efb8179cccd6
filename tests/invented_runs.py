"""Signals of runs that were never trained: three layers, and their measurements."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from nnref.diagnosis.data.references import SimpleModels
from nnref.diagnosis.data.targets import Target
from nnref.diagnosis.judge.judge import decide
from nnref.diagnosis.judge.signals import Signals
from nnref.diagnosis.judge.skill import Outcome
from nnref.diagnosis.program.layers import Layer
from nnref.diagnosis.run.changes import Change, Trial
from nnref.diagnosis.run.snapshot import Level, Snapshot
from nnref.diagnosis.run.trials import RecordedRun, StepMeasures

STEPS = 400
HEAD = ("outputs", "outputs and loss", "loss")  # what is tried in the place of a head
ROWS = 200
LEVEL = Level(8, 1.0, 0.0, 0.0)


def layer(name, activation):
    return Layer(
        (f"{name}.kernel",), "dot_general", "net.py:7", activation, (2, 8), 8, False, False, 0, 1, 2
    )


def kernel(seed, deviation=0.5):
    return np.random.default_rng(seed).normal(0, deviation, (8, 8))


def params(scale=0.5, constant=False):
    kernels = [np.full((8, 8), 0.1) if constant else kernel(i, scale) for i in range(3)]
    return {name: {"kernel": k} for name, k in zip("abc", kernels, strict=True)}


def history(loss, *, update=1e-3, cosine=-0.9, largest=1.0, finite=None, gradient=1.0, penalty=0.0):
    loss = np.asarray(loss, float)
    n = len(loss)
    return StepMeasures(
        loss=loss,
        penalty=np.full(n, penalty),
        largest_output=np.broadcast_to(largest, n).astype(float),
        gradient=np.broadcast_to(gradient, (n, 3)).astype(float),
        update=np.broadcast_to(update, (n, 3)).astype(float),
        weight=np.ones((n, 3)),
        cosine=np.broadcast_to(cosine, (n, 3)).astype(float),
        finite=np.ones((n, 4), bool) if finite is None else finite,
    )


def look(levels=(LEVEL,) * 3, gradients=(1.0, 1.0, 1.0), kernels=(0.5, 0.5, 0.5)):
    return Snapshot(levels, gradients, kernels, 1.0, np.ones((8, 1)))


def trials(**skills):
    return {
        name: Trial(name, Change(rate=factor(name)), skill, skill)
        for name, skill in ((word.replace("_", " ", 1), s) for word, s in skills.items())
    }


def factor(name):
    return float(name.partition(" x")[2] or 1)


def mean_loss(outputs, y):
    return jnp.mean((outputs - y) ** 2)


def summed_loss(outputs, y):
    return jnp.sum((outputs - y) ** 2)


class Strict(list):
    """Mistakes of a check that is tested are failures."""

    def append(self, line):
        raise AssertionError(line)


def case(
    *,
    reached=0.0,
    mode=None,
    valid=None,
    reference=0.9,
    steps=None,
    start=None,
    end=None,
    x=None,
    y=None,
    loss=mean_loss,
    batch=32,
    first=None,
    last=None,
    activation=("max",),
    quiet=None,
    kept=1.0,
    costs=False,
    fits=True,
    clipped=None,
    misjudged=None,
    constant_loss=1.0,
    birth=None,
    wider=None,
    exchanged=None,
    again=None,
    takes=(0.1, 0.1, 0.1),
    growth=0.0,
    states=({}, {}),
    **tried,
):
    """A run that reached so much, of a network of three layers, and what was tried beside it."""
    random = np.random.default_rng(0)
    y = random.normal(size=(ROWS, 1)) if y is None else y
    first = params() if first is None else first
    last = jax.tree.map(lambda leaf: 1.01 * leaf, first) if last is None else last
    measurements = SimpleNamespace(
        recipe=SimpleNamespace(
            train=(
                random.normal(size=(ROWS, 4)) if x is None else x,
                y,
            ),
            loss=loss,
            valid=None,
            test=None,
            inputs=None,
            column=str,
            restart=None,
            metric=None,
            shuffle=True,
            batch_size=batch,
            seed=0,
            rows=None,
            replayed=False,
            apply=lambda params, state, x, key, train: (x @ params["a"]["kernel"][:4, :1], state),
        ),
        skill=SimpleNamespace(
            takes_sides=False,
            without_targets=False,
            goes_round=False,
            row_by_row=True,
            kind="regression",
            costs=costs,
            fits=fits,
            outputs=np.ones((8, 1)),
            wanted=y,
            target=Target("regression", np.zeros((ROWS, 1)), 0),
            constant_loss=constant_loss,
            metric=SimpleNamespace(refused=""),
        ),
        noise=0.9,
        clipped=clipped,
        recomputed=misjudged,
        shuffled=0.02,
        decay=takes,
        growth=growth,
        added=None,
        look=lambda params, state: look() if params is first else end or look(),
        layers=[layer("a", activation), layer("b", activation), layer("c", ())],
        initial=(first, states[0]),
        start=start or look(),
        end=end or look(),
        run=RecordedRun(
            history(np.linspace(1, 0.9, STEPS)) if steps is None else steps,
            [(0, first, states[0]), (STEPS, last, states[1])],
            None,
            STEPS if steps is None else len(steps.loss),
        ),
        trainer=SimpleNamespace(batch=batch, planned=STEPS),
        birth=birth,
        reference=SimpleModels({"linear": reference}, {}, ROWS),
        trained=Outcome(1.0, reached),
        trained_in_mode=Outcome(1.0, reached if mode is None else mode),
        validated=None if valid is None else Outcome(1.0, valid),
        splits=None,
    )
    all_trials = trials(**({"rate_x0.1": 0.0} | dict(tried) | (exchanged or {})))
    interventions = SimpleNamespace(
        trials=all_trials,
        quiet=None if quiet is None else Trial("quiet", Change(), quiet, None),
        held_out=lambda trial: kept,
        repeated=lambda trial: [] if again is None else again,
        overfit_one_batch={2: 1.0, 16: 0.9},
        he_start=(jax.tree.map(lambda leaf: 0.5 * leaf / np.sqrt(np.mean(leaf**2)), first), {}),
    )
    signals = Signals(measurements, interventions)
    start = SimpleNamespace(range=None, form="values", last="c, net.py:7", loss_line="net.py:9")
    width = {} if wider is None else trials(same_width=reached, wider=wider)
    head = {name: all_trials[name] for name in HEAD if name in all_trials}
    names = ("opposite", "padding", "activation", "batch", "optimizer", "everything")
    made = {n: {t: all_trials[t] for t in (n, f"{n} x10") if t in all_trials} for n in names}
    made |= {"head": head, "width": width, "outweighed": None}
    signals.exchanges = SimpleNamespace(at_start=start, **made)
    signals.moving_target = False
    signals.mistakes = Strict()
    return signals


def blown(at, born, loss):
    finite = np.ones((len(loss), 4), bool)
    finite[at:, ("outputs", "loss", "gradient", "update").index(born) :] = False
    return finite


def faults(measured):
    # Three hidden saturating layers are what "in depth" starts with.
    measured = dict(measured)
    made = case(**measured)
    if measured.get("activation") or "start" in measured:
        made.measurements.layers.insert(0, made.measurements.layers[0])
        made.measurements.start = replace(
            made.measurements.start,
            levels=(made.measurements.start.levels[0], *made.measurements.start.levels),
            gradients=(made.measurements.start.gradients[0], *made.measurements.start.gradients),
            kernels=(made.measurements.start.kernels[0], *made.measurements.start.kernels),
        )
        made.measurements.end = replace(
            made.measurements.end,
            levels=(made.measurements.end.levels[0], *made.measurements.end.levels),
        )
    found = decide(made, [])
    return [f.cause for f in found if f.severity == "fault"]


CLIMBS = np.concatenate([np.geomspace(1, 1e6, 50), np.full(350, np.nan)])
FALLS = np.concatenate([np.linspace(1, 0.2, 50), np.full(350, np.nan)])
RESTS = np.concatenate([np.linspace(1, 0.5, 100), np.full(300, 0.5)])
JUMPS = np.concatenate([[1.0, 40.0], np.full(398, 2.0)])
WEAK = (replace(LEVEL, size=1e-2), replace(LEVEL, size=1e-4), replace(LEVEL, size=1e-6))
GROWN = (LEVEL, replace(LEVEL, size=1e9), replace(LEVEL, size=np.inf))
BORN = (replace(LEVEL, size=np.nan),) * 3
STILL = replace(LEVEL, saturated=0.9)
FADING = (1e-4, 1e-2, 1.0)
TANH = {"activation": ("tanh",)}
DEAD = (LEVEL, replace(LEVEL, dead=1.0), LEVEL)
HUGE = np.random.default_rng(1).normal(500, 300, (ROWS, 4))
TINY = np.random.default_rng(1).normal(0, 0.001, (ROWS, 4))

FROM_ZERO = history(np.linspace(1, 0.99, 200), update=1e-3)
FROM_ZERO = FROM_ZERO._replace(weight=np.linspace(0, 0.2, 200)[:, None] * np.ones(3))

SPIKE = history(np.linspace(1, 0.9, STEPS))
SPIKE = SPIKE._replace(update=np.where(np.arange(STEPS)[:, None] == 200, 0.5, SPIKE.update))

FROZEN = history(np.linspace(1, 0.9, STEPS))
FROZEN = FROZEN._replace(update=FROZEN.update * [0, 0, 1])

ENDS = history(np.linspace(1, 0.9, STEPS))
ENDS = ENDS._replace(update=np.where(np.arange(STEPS)[:, None] < 150, ENDS.update, 0.0))
