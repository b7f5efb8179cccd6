"""Optimizers against other libraries' trajectories, the papers' equations in NumPy, and properties.

All trajectories are those of oracles/noisy_quadratic.py in float64: 200 steps with gradients that
change sign and spike. What is about one optimizer stands in optimizers/."""

import inspect
import json
from functools import cache
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles.noisy_quadratic import (
    CENTRE,
    SHAPES,
    SIZE,
    START,
    STEPS,
    gradient,
)
from trajectories import ONES, PROBLEM, many, parted, program, trajectory

from nnref.errors import UserError
from nnref.experiment.experiment import parse
from nnref.parts.chain import chain
from nnref.parts.clipping import global_norm
from nnref.parts.optimizers import OPTIMIZERS, Optimizer
from nnref.parts.optimizers.rule import one_minus_power
from nnref.parts.schedules import constant
from nnref.training.setup import bind

ORACLES = Path(__file__).parent / "oracles"
WARM_UP = np.minimum(np.arange(1, STEPS + 1) / 40, 1)


# --- against PyTorch, Keras and optax -------------------------------------------------------------


# Agreement over 200 steps, in units of the parameters, which are of order 1 (13 under momentum).
AGREEMENT = {
    # PyTorch adds epsilon before the correction of v; the run with 1e-30 agrees like the others.
    ("torch", "radam", 0.01): 1e-8,
    # optax's corrections of bias cancel in exact arithmetic; the iteration magnifies rounding.
    ("optax", "muon", None): 1e-10,
}


@cache
def oracle(library):
    return json.loads((ORACLES / f"optimizers_{library}.json").read_text())


def oracle_runs():
    for library in ("torch", "optax", "keras"):
        for number, run in enumerate(oracle(library)["runs"]):
            name, arguments = run["optimizer"], run["arguments"]
            told = ",".join(f"{k}={v}" for k, v in arguments.items())
            yield pytest.param(library, number, id=f"{library}-{name}({told})")


@pytest.mark.parametrize(("library", "number"), list(oracle_runs()))
def test_follows_another_library(library, number):
    run = oracle(library)["runs"][number]
    arguments = dict(run["arguments"])
    factors = WARM_UP if arguments.pop("warmup_steps", None) else ONES
    params, evaluated = trajectory(run["optimizer"], factors, **arguments)
    key = library, run["optimizer"], arguments.get("learning_rate")
    tolerance = 1e-13 if "epsilon" in arguments else AGREEMENT.get(key, 1e-13)
    got = params[np.array(oracle(library)["recorded"]) - 1]
    np.testing.assert_allclose(got, run["trajectory"], rtol=0, atol=tolerance)
    if "average" in run:
        np.testing.assert_allclose(evaluated[-1], run["average"], rtol=0, atol=tolerance)


def test_oracles_name_their_versions():
    for library in ("torch", "optax", "keras"):
        content = oracle(library)
        assert library in content["versions"]
        assert (ORACLES.parents[2] / content["made_by"]).exists()


# --- against the papers' equations, in NumPy ------------------------------------------------------


KERNEL = np.concatenate([np.full(np.prod(s), len(s) > 1) for s in SHAPES.values()])


def sgd(g, theta, alpha, *, momentum, dampening, nesterov):
    m = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta) * (1 - (dampening or 0))
        m = momentum * m + d
        theta = theta - alpha * (d + momentum * m if nesterov else m)
        yield theta


def adagrad(g, theta, alpha, *, epsilon, epsilon_in_root, initial):
    s = initial
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        s = s + d**2
        theta = theta - alpha * d / (
            np.sqrt(s + epsilon) if epsilon_in_root else np.sqrt(s) + epsilon
        )
        yield theta


def rmsprop(g, theta, alpha, *, decay, epsilon, epsilon_in_root, centred, momentum):
    v = m = b = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        v = decay * v + (1 - decay) * d**2
        m = decay * m + (1 - decay) * d
        s = v - centred * m**2
        b = (momentum or 0) * b + d / (
            np.sqrt(s + epsilon) if epsilon_in_root else np.sqrt(s) + epsilon
        )
        theta = theta - alpha * b
        yield theta


def adadelta(g, theta, alpha, *, decay, epsilon):
    v = x = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        v = decay * v + (1 - decay) * d**2
        d = np.sqrt(x + epsilon) / np.sqrt(v + epsilon) * d
        x = decay * x + (1 - decay) * d**2
        theta = theta - alpha * d
        yield theta


def adam(g, theta, alpha, *, beta1, beta2, epsilon, weight_decay=0.0, bias_correction=True):
    m = v = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        m_hat, v_hat = (m / (1 - beta1**t), v / (1 - beta2**t)) if bias_correction else (m, v)
        theta = theta - alpha * (m_hat / (np.sqrt(v_hat) + epsilon) + weight_decay * KERNEL * theta)
        yield theta


def adamax(g, theta, alpha, *, beta1, beta2, epsilon):
    m = u = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        u = np.maximum(beta2 * u, np.abs(d) + epsilon)
        theta = theta - alpha / (1 - beta1**t) * m / u
        yield theta


def nadam(g, theta, alpha, *, beta1, beta2, epsilon, momentum_decay):
    warming = 0 if momentum_decay is None else 0.5
    mu = [beta1 * (1 - warming * 0.96 ** (t * (momentum_decay or 0))) for t in range(STEPS + 2)]
    m = v = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        bar = mu[t + 1] * m / (1 - np.prod(mu[1 : t + 2]))
        bar = bar + (1 - mu[t]) * d / (1 - np.prod(mu[1 : t + 1]))
        theta = theta - alpha * bar / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        yield theta


def radam(g, theta, alpha, *, beta1, beta2, epsilon, threshold):
    m = v = 0.0
    rho_inf = 2 / (1 - beta2) - 1
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        m_hat = m / (1 - beta1**t)
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho > threshold:
            r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
            m_hat = np.sqrt(r) * m_hat / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        theta = theta - alpha * m_hat
        yield theta


def amsgrad(g, theta, alpha, *, convention, beta1, beta2, epsilon):
    m = v = v_hat = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        v_hat = np.maximum(v_hat, v / (1 - beta2**t) if convention == "optax" else v)
        root = np.sqrt(v_hat / (1 - beta2**t) if convention == "torch" else v_hat)
        m_hat = m if convention == "paper" else m / (1 - beta1**t)
        theta = theta - alpha * m_hat / (root + epsilon)
        yield theta


def padam(g, theta, alpha, *, convention, beta1, beta2, p, epsilon):
    m = v = v_hat = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        v_hat = np.maximum(v_hat, v)
        if convention == "paper":  # where there never was a gradient, v_hat is 0 and so is m
            theta = theta - alpha * m / np.where(v_hat > 0, v_hat, 1) ** p
        else:
            rate = alpha * np.sqrt(1 - beta2**t) / (1 - beta1**t)
            theta = theta - rate * m / (np.sqrt(v_hat) + epsilon) ** (2 * p)
        yield theta


def lion(g, theta, alpha, *, beta1, beta2):
    m = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        theta = theta - alpha * np.sign(beta1 * m + (1 - beta1) * d)
        m = beta2 * m + (1 - beta2) * d
        yield theta


def muon(g, theta, alpha, *, momentum, nesterov, epsilon, **adam_numbers):
    biases = adam(
        lambda t, w: np.where(KERNEL, 0, d),  # d is the gradient of the step that the loop is at
        theta,
        adam_numbers.pop("adam_learning_rate"),
        **{name.removeprefix("adam_"): number for name, number in adam_numbers.items()},
    )
    m = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, theta)
        m = momentum * m + (1 - momentum) * d  # as an average: the scale is divided out
        u = (1 - momentum) * d + momentum * m if nesterov else m
        turned = [np.zeros(4)]
        for part, (rows, columns) in ((u[4:16], (3, 4)), (u[16:], (5, 2))):
            left, s, right = np.linalg.svd(part.reshape(rows, columns), full_matrices=False)
            s = s / max(np.sqrt(np.sum(s**2)), epsilon)
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            turned.append(np.ravel(left * s @ right) * max(1, columns / rows) ** 0.5)
        theta = np.where(KERNEL, theta - alpha * np.concatenate(turned), next(biases))
        yield theta


def schedule_free(g, theta, alpha, *, interpolation, beta2=None, epsilon=0, weight_decay=0):
    z = x = y = theta
    v = weights = 0.0
    for t in range(1, STEPS + 1):
        d = g(t, y)
        gamma = alpha * WARM_UP[t - 1]
        if beta2 is not None:
            v = beta2 * v + (1 - beta2) * d**2
            d = d / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        z = z - gamma * (d + weight_decay * KERNEL * y)
        weights += gamma**2
        x = (1 - gamma**2 / weights) * x + gamma**2 / weights * z
        y = (1 - interpolation) * z + interpolation * x
        yield y


PAPERS = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adadelta": adadelta,
    "adam": adam,
    "adamw": adam,
    "adamax": adamax,
    "nadam": nadam,
    "radam": radam,
    "amsgrad": amsgrad,
    "padam": padam,
    "lion": lion,
    "muon": muon,
    "schedule_free_sgd": schedule_free,
    "schedule_free_adamw": schedule_free,
}
# Every structure of every member once, with numbers that are not the defaults.
CASES = [
    ("sgd", {"learning_rate": 0.03, "momentum": 0.8}),
    ("sgd", {"learning_rate": 0.03, "momentum": 0.8, "nesterov": True}),
    ("sgd", {"learning_rate": 0.03, "momentum": 0.8, "dampening": 0.3}),
    ("adagrad", {"learning_rate": 0.2, "epsilon": 1e-3, "initial": 0.2}),
    ("adagrad", {"learning_rate": 0.2, "epsilon": 1e-3, "epsilon_in_root": True}),
    ("rmsprop", {"learning_rate": 0.02, "decay": 0.95, "epsilon": 1e-3}),
    ("rmsprop", {"decay": 0.95, "epsilon": 1e-3, "epsilon_in_root": True, "momentum": 0.7}),
    ("rmsprop", {"decay": 0.95, "epsilon": 1e-3, "centred": True}),
    ("rmsprop", {"decay": 0.95, "epsilon": 1e-3, "epsilon_in_root": True, "centred": True}),
    ("adadelta", {"learning_rate": 0.5, "decay": 0.9, "epsilon": 1e-4}),
    ("adam", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("adam", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "bias_correction": False}),
    ("adamw", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.2}),
    ("adamax", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("nadam", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("nadam", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "momentum_decay": 0.02}),
    ("radam", {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("amsgrad", {"convention": "paper", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("amsgrad", {"convention": "torch", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("amsgrad", {"convention": "optax", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-3}),
    ("padam", {"convention": "paper", "beta1": 0.8, "beta2": 0.99, "p": 0.2}),
    ("padam", {"convention": "authors", "beta1": 0.8, "beta2": 0.99, "p": 0.2, "epsilon": 1e-3}),
    ("lion", {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.95}),
    ("muon", {"learning_rate": 0.05, "momentum": 0.8, "adam_learning_rate": 0.01}),
    ("muon", {"learning_rate": 0.05, "momentum": 0.8, "nesterov": False}),
    ("schedule_free_sgd", {"learning_rate": 0.2, "interpolation": 0.8}),
    ("schedule_free_adamw", {"learning_rate": 0.02, "beta2": 0.99, "weight_decay": 0.2}),
]


def told(case):
    name, arguments = case
    return f"{name}({','.join(f'{k}={v}' for k, v in arguments.items())})"


every_case = pytest.mark.parametrize("case", CASES, ids=told)


def test_every_member_has_a_case():
    assert {name for name, _ in CASES} == set(OPTIMIZERS) == set(PAPERS)


@every_case
def test_follows_the_papers_equations(case):
    name, arguments = case
    structure, numbers = parted(name, arguments)
    known = dict(structure[1]) | numbers
    alpha = known.pop("learning_rate")
    g = lambda t, theta: np.array(gradient(t, theta.tolist()))  # noqa: E731
    want = np.array(list(PAPERS[name](g, np.array(START), alpha, **known)))
    factors = WARM_UP if name.startswith("schedule_free") else ONES
    got, _ = trajectory(name, factors, **arguments)
    # Muon by singular values here, by matrices there: five steps magnify rounding 500 times.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 if name == "muon" else 1e-13)


def test_corrections_of_bias_survive_float32():
    t = jnp.arange(1, 2000, 7)
    for beta in (0.0, 0.5, 0.9, 0.999, 0.9999):
        exact = 1 - np.float64(np.float32(beta)) ** np.asarray(t)
        np.testing.assert_allclose(one_minus_power(jnp.float32(beta), t), exact, rtol=1e-6)


# --- properties of all members at once ------------------------------------------------------------


@cache
def float_arguments(name):
    """The arguments that may be traced, by annotation."""
    parameters = inspect.signature(OPTIMIZERS[name]).parameters
    return [n for n, p in parameters.items() if speaks_of_float(p.annotation)]


def speaks_of_float(annotation):
    return annotation is float or any(map(speaks_of_float, get_args(annotation)))


def given_all(name):
    """The last case of a member that gives the most of its numbers."""
    return max((c for c in reversed(CASES) if c[0] == name), key=lambda c: len(parted(*c)[1]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_vmap_over_every_number_equals_one_at_a_time(name):
    """And every number matters."""
    structure, numbers = parted(*given_all(name))
    assert set(numbers) == set(float_arguments(name))
    rows = [numbers] + [numbers | {n: changed(n, v)} for n, v in numbers.items()]
    stacked = {n: np.array([row[n] for row in rows]) for n in numbers}
    with jax.enable_x64(True):
        together = np.asarray(many(structure, stacked, *PROBLEM, ONES))
        alone = [np.asarray(program(structure, row, *PROBLEM, ONES)[1]) for row in rows]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-10 if name == "muon" else 1e-12)
    for argument, run in zip(numbers, alone[1:], strict=True):
        guard = name == "muon" and argument == "epsilon"  # against a momentum of 0 only
        assert guard or np.max(np.abs(run - alone[0])) > 1e-9, f"{argument} changes nothing"


def changed(argument, number):
    return {"p": 0.3, "threshold": 4.5}.get(argument, number * 0.9 + 1e-6)


RATES = {
    "sgd": 0.5,
    "adagrad": 1.0,
    "adadelta": 30.0,
    "padam": 0.5,
    "schedule_free_sgd": 0.5,
    "muon": 0.1,
}


@every_case
def test_converges_on_a_quadratic(case):
    name, arguments = case
    arguments = arguments | {"learning_rate": RATES.get(name, 0.1)}
    arguments |= {"weight_decay": 0.0} if "weight_decay" in arguments else {}
    arguments |= {"adam_learning_rate": 0.1} if name == "muon" else {}
    free = name.startswith("schedule_free")
    factors = ONES if free else 1 - np.arange(STEPS) / STEPS
    curvature = np.linspace(0.5, 1.5, SIZE)
    _, evaluated = trajectory(name, factors, (curvature, np.zeros((STEPS, SIZE))), **arguments)
    distance = curvature * (evaluated - np.array(CENTRE)) ** 2
    before = np.sum(curvature * (np.array(START) - np.array(CENTRE)) ** 2)
    assert np.sum(distance[-1]) < 0.01 * before


@every_case
def test_no_gradient_moves_nothing(case):
    name, arguments = case
    arguments = arguments | ({"weight_decay": 0.0} if "weight_decay" in arguments else {})
    if name in ("amsgrad", "adagrad"):
        arguments["epsilon"] = 0.0
    nothing = np.zeros(SIZE), np.zeros((STEPS, SIZE))
    params, evaluated = trajectory(name, ONES, nothing, **arguments)
    # (1 - beta) z + beta x with z = x is exact up to rounding.
    np.testing.assert_allclose(params[-1], START, rtol=0, atol=1e-14)
    np.testing.assert_allclose(evaluated[-1], START, rtol=0, atol=1e-14)


@settings(max_examples=5, deadline=None)
@given(noise=arrays(float, (STEPS, SIZE), elements=st.floats(-1e4, 1e4), fill=st.just(0.0)))
def test_stays_finite_whatever_the_gradients(noise):
    for name, arguments in CASES:
        params, evaluated = trajectory(name, ONES, (np.zeros(SIZE), noise), **arguments)
        assert np.all(np.isfinite(params)), name
        assert np.all(np.isfinite(evaluated)), name


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@every_case
def test_keeps_shapes_and_dtypes_so_that_nothing_recompiles(case, dtype):
    """What comes out of a step goes into the next: same shapes, dtypes and weak types."""
    name, arguments = case
    structure, numbers = parted(name, arguments)
    params = {n: jnp.zeros(s, dtype) for n, s in SHAPES.items()} | {"scale": jnp.zeros((), dtype)}

    def steps(numbers, params):
        optimizer = OPTIMIZERS[name](**dict(structure[1]), **numbers)
        step = chain(optimizer, constant, STEPS, 10, global_norm(), decay_everything=True)
        before = step.init(params)
        updates, after = step.update(params, before, params)
        return before, after, params, updates

    # Strong float32 arrays, as a sweep hands them in.
    strong = {n: jnp.float32(v) for n, v in numbers.items()}
    before, after, given, updates = jax.eval_shape(steps, strong, params)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for one, two in ((before, after), (given, updates)):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


# --- errors in words ------------------------------------------------------------------------------


def experiment(optimizer):
    return parse(
        json.dumps(
            {
                "data": "xor",
                "model": {"name": "mlp", "hidden": [4]},
                "loss": "sigmoid_cross_entropy",
                "optimizer": optimizer,
                "batch_size": 4,
                "epochs": 10,
            }
        )
    )


@every_case
def test_is_read_from_a_file(case):
    name, arguments = case
    read = experiment({"name": name} | arguments)
    assert {f"optimizer.{n}" for n in parted(name, arguments)[1]} <= set(read.hyperparameters)
    optimizer = bind(read, "optimizer", read.hyperparameters)()
    assert isinstance(optimizer, Optimizer)
    assert optimizer.learning_rate == arguments.get("learning_rate", optimizer.learning_rate)


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        ("padm", 'optimizer (line 1): "padm" given; allowed: sgd, adagrad, rmsprop, '),
        ("padm", 'did you mean "padam"?'),
        ("lbfgs", 'optimizer (line 1): "lbfgs" given; allowed: sgd, '),
        ("padam", 'optimizer.convention (line 1): missing; give "paper" or "authors"'),
        ("amsgrad", 'optimizer.convention (line 1): missing; give "paper"'),
        (
            {"name": "amsgrad", "convention": "keras"},
            "optimizer.convention (line 1): \"keras\" given; allowed: 'paper', 'torch' or 'optax'",
        ),
        (
            {"name": "padam", "convention": "paper", "p": 0.7},
            "optimizer.p (line 1): 0.7 given; allowed is a number up to 0.5",
        ),
        (
            {"name": "radam", "threshold": 3.0},
            "optimizer.threshold (line 1): 3.0 given; allowed is a number from 4 up",
        ),
        (
            {"name": "sgd", "momentum": 1.0},
            "optimizer.momentum (line 1): 1.0 given; allowed is a number below 1",
        ),
        (
            {"name": "adam", "epsilon": 0.0},
            "optimizer.epsilon (line 1): 0.0 given; allowed is a number above 0",
        ),
        (
            {"name": "adam", "beta_1": 0.9},
            "optimizer.beta_1 (line 1): unknown key; allowed: learning_rate, beta1, beta2, "
            'epsilon, bias_correction; did you mean "beta1"?',
        ),
        (
            {"name": "rmsprop", "centered": True},
            'centred, momentum; did you mean "centred"?',
        ),
        (
            {"name": "sgd", "nesterov": "yes"},
            'optimizer.nesterov (line 1): "yes" given; allowed are true and false',
        ),
    ],
)
def test_a_wrong_argument_is_told(optimizer, text):
    with pytest.raises(UserError) as error:
        experiment(optimizer)
    assert text in str(error.value)
