"""From one integer to a healthy set-up, and to the same set-up with one fault."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.mutants import losses
from benchmarks.mutants.data import SOURCES, Data
from benchmarks.mutants.faults import FAULTS, Fault
from benchmarks.mutants.networks import FAMILIES, styles_of
from benchmarks.mutants.program import Program, program_of
from benchmarks.mutants.setup import Setup, Steps, Wiring

TRIES = 200  # set-ups that are drawn for one to which a fault applies


@dataclass(frozen=True)
class Mutant:
    """A set-up with one fault beside its healthy twin."""

    seed: int
    fault: Fault
    healthy: Setup
    faulty: Setup

    def program(self, twin: bool = False) -> Program:
        return program_of(self.healthy if twin else self.faulty)


def one_of(draw: np.random.Generator, values):
    values = list(values)
    return values[int(draw.integers(len(values)))]


RATES = {
    "sgd": 0.1,
    "momentum": 0.03,
    "nesterov": 0.03,
    "adam": 4e-3,
    "adamw": 4e-3,
    "rmsprop": 2e-3,
}
SLOW = {"recurrent", "attention", "factors", "bag"}  # gradients differ too much for one plain rate


def cosine(rate: float, total: int):
    return optax.cosine_decay_schedule(rate, total, alpha=0.05)


def warmed(rate: float, total: int):
    return optax.warmup_cosine_decay_schedule(0.0, rate, max(1, total // 10), total, rate / 20)


def stairs(rate: float, total: int):
    return optax.piecewise_constant_schedule(rate, {total * 2 // 3: 0.3})


def draw_steps(draw: np.random.Generator, family: str) -> Steps:
    names = ("adam", "adamw", "rmsprop") if family in SLOW or family == "vae" else tuple(RATES)
    name = one_of(draw, names)
    return Steps(
        name=name,
        rate=float(RATES[name] * draw.uniform(0.7, 1.5) * (2 if family == "factors" else 1)),
        schedule=one_of(draw, (None, None, cosine, warmed, stairs)),
        clip=1.0 if draw.random() < (0.6 if family == "recurrent" else 0.15) else None,
    )


def with_one_hot(data: Data) -> Data:
    def rows(part):
        return part[0], np.eye(data.outputs, dtype=np.float32)[part[1]]

    return replace(data, train=rows(data.train), valid=rows(data.valid), fresh=rows(data.fresh))


def draw_loss(draw: np.random.Generator, data: Data, family: str):
    """The data in the form that the loss wants, the loss's name and functions."""
    if family == "vae":
        table, metric = losses.CODES, losses.r_squared_of_made
    elif data.kind == "regression":
        table, metric = losses.REAL, losses.r_squared
    elif data.kind in ("binary", "multilabel"):
        table, metric = losses.YES_OR_NO, losses.sign_accuracy
    elif data.kind == "multiclass" and draw.random() < 0.4:
        data, table, metric = with_one_hot(data), losses.ONE_HOT, losses.one_hot_accuracy
    else:
        table, metric = losses.INTEGERS, losses.class_accuracy
    name = one_of(draw, table)
    loss, final = table[name]
    if name == "clipped_likelihood":
        metric = losses.half_accuracy
    return data, name, loss, final, metric


def draw_wiring(draw: np.random.Generator, data: Data, family: str, final) -> Wiring:
    width = int(draw.integers(6, 13)) * 4
    bounded = family in ("recurrent", "attention", "bag", "factors")
    return Wiring(
        outputs=data.outputs,
        width=width,
        depth=int(draw.integers(1, 5)) if family in ("mlp", "residual") else 2,
        activation=one_of(draw, (jax.nn.relu, jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu)),
        final=final,
        dropout=0.0 if bounded or draw.random() < 0.75 else float(draw.uniform(0.05, 0.2)),
        norm=one_of(draw, ("", "", "batch", "layer"))
        if family in ("mlp", "residual", "conv")
        else "",
        cell=one_of(draw, ("gru", "lstm") if data.form != "tokens" else ("simple", "gru", "lstm")),
        pool="mean" if data.form == "tokens" or family == "attention" else "last",
        vocabulary=data.vocabulary,
        code=6,
        each_step=data.kind == "next",
        causal=data.kind == "next",
    )


EPOCHS = {"recurrent": (30, 45), "attention": (30, 45), "conv": (12, 18), "factors": (60, 90)}


def draw_setup(draw: np.random.Generator) -> Setup:
    """A set-up that should learn; whether it does is for the screening to see."""
    source = one_of(draw, SOURCES)
    data = SOURCES[source](draw)
    family = one_of(draw, FAMILIES[data.form])
    style = one_of(draw, styles_of(family))
    data, name, loss, final, metric = draw_loss(draw, data, family)
    low, high = EPOCHS.get(family, (30, 60))
    return Setup(
        source=source,
        style=style,
        family=family,
        data=data,
        wiring=draw_wiring(draw, data, family, final),
        loss=loss,
        loss_name=name,
        metric=metric,
        steps=draw_steps(draw, family),
        batch_size=int(one_of(draw, (20, 25, 32, 50))),
        epochs=int(draw.integers(low, high + 1)),
    )


def generator(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(list(numbers))


def fault_of(seed: int) -> Fault:
    """Causes in turn, each in another order than the last time; an odd seed has its even one's."""
    causes = sorted({fault.cause for fault in FAULTS})
    turn, place = divmod(seed // 2, len(causes))
    cause = causes[int(generator(turn, 1).permutation(len(causes))[place])]
    return one_of(generator(seed, 2), [fault for fault in FAULTS if fault.cause == cause])


def draw_mutant(seed: int, attempt: int = 0, fault: Fault | None = None) -> Mutant:
    """The set-up of a seed; `attempt` counts those that the screening has refused.

    Raises:
        LookupError: where a fault applies to none of the set-ups that are drawn.
    """
    fault = fault_of(seed) if fault is None else fault
    for number in range(TRIES):
        draw = generator(seed, attempt, number, 3)
        healthy = draw_setup(draw)
        changed = fault.plant(healthy, draw)
        if changed is None:
            continue
        healthy, faulty = changed if isinstance(changed, tuple) else (healthy, changed)
        return Mutant(seed, fault, healthy, faulty)
    raise LookupError(f"{fault.cause}, {fault.way}: applies to none of {TRIES} set-ups")
