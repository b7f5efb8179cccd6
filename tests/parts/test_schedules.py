"""Schedules: closed forms, PyTorch's rates, knots, continuity, and the memory of a plateau."""

import inspect
import json
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnref.errors import UserError
from nnref.experiment.experiment import parse
from nnref.parts.chain import chain
from nnref.parts.optimizers import OPTIMIZERS
from nnref.parts.schedules import (
    SCHEDULES,
    PlateauState,
    Progress,
    constant,
    cosine,
    observe,
    plateau,
    times,
    warmup,
)
from nnref.training.setup import bind

ORACLE = json.loads((Path(__file__).parent / "oracles" / "schedules_torch.json").read_text())

# What has to be given, in each of the units that it can be given in.
SPANS = {
    "step": ("every", 0.25),
    "exponential": ("every", 0.25),
    "multi_step": ("at", (0.25, 0.75)),
    "cosine_restarts": ("first", 0.25),
    "warmup": ("warmup", 0.25),
}


def required(name, unit="share", whole=1.0):
    """The arguments that a schedule needs, its span in this unit; `whole` is the run in it."""
    if name not in SPANS:
        return {}
    key, share = SPANS[name]
    kind = int if unit == "steps" else float
    shares = share if isinstance(share, tuple) else (share,)
    spans = tuple(kind(s * whole) for s in shares)
    return {f"{key}_{unit}": spans if isinstance(share, tuple) else spans[0]}


def factors(schedule, steps=120, steps_per_epoch=10, at=None):
    """The factors of all updates of a run, and the one after the last, in float64."""
    at = np.arange(steps + 1) if at is None else np.asarray(at)
    filled = np.resize(at, max(121, len(at)))  # one shape for all tests, so compiled once
    with jax.enable_x64(True):
        got = schedule(Progress(jnp.asarray(filled), steps, steps_per_epoch))
        return np.asarray(got)[: len(at)]


def bound(name, **arguments):
    return partial(SCHEDULES[name], **{**required(name), **arguments})


every_schedule = pytest.mark.parametrize("name", SCHEDULES)


# --- against PyTorch ------------------------------------------------------------------------------


def of_oracle(run):
    arguments = dict(run["arguments"])
    if "then" in arguments:
        arguments["then"] = SCHEDULES[arguments["then"]]
    if "at_epochs" in arguments:
        arguments["at_epochs"] = tuple(arguments["at_epochs"])
    return partial(SCHEDULES[run["schedule"]], **arguments)


def told(run):
    arguments = ",".join(f"{k}={v}" for k, v in run["arguments"].items())
    return f"{run['schedule']}({arguments})"


def oracle_runs(heard):
    return [pytest.param(r, id=told(r)) for r in ORACLE["runs"] if ("losses" in r) == heard]


@pytest.mark.parametrize("run", oracle_runs(heard=False))
def test_gives_pytorchs_rates(run):
    got = factors(of_oracle(run), ORACLE["steps"], ORACLE["steps_per_epoch"])
    # PyTorch multiplies its rate on, step by step, and gathers rounding.
    np.testing.assert_allclose(got[:-1], run["factors"], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("run", oracle_runs(heard=True))
def test_reduces_where_pytorch_reduces(run):
    """Through the whole chain: steps, and the loss at the end of each epoch."""
    steps_per_epoch = ORACLE["steps_per_epoch"]
    sgd = OPTIMIZERS["sgd"](learning_rate=1.0)
    step = chain(sgd, of_oracle(run), ORACLE["steps"], steps_per_epoch)

    @jax.jit
    def epoch(state, loss):
        def one(state, _):
            updates, state = step.update(jnp.ones(1), state, jnp.zeros(1))
            return state, -updates[0]

        state, rates = jax.lax.scan(one, state, None, length=steps_per_epoch)
        return observe(state, loss), rates

    state, rates = step.init(jnp.zeros(1)), []
    for loss in run["losses"]:
        state, of_epoch = epoch(state, loss)
        rates.extend(of_epoch)
    np.testing.assert_allclose(rates, run["factors"], rtol=1e-6)


# --- closed forms ---------------------------------------------------------------------------------

t = np.arange(121) / 120
FORMS = [
    ("constant", {}, np.ones(121)),
    ("linear", {"final": 0.2}, 1 - 0.8 * t),
    ("polynomial", {"power": 1.5, "final": 0.2}, 0.2 + 0.8 * (1 - t) ** 1.5),
    ("step", {"factor": 0.3}, 0.3 ** np.floor(4 * t)),
    ("multi_step", {"factor": 0.3}, np.where(t < 0.25, 1, np.where(t < 0.75, 0.3, 0.09))),
    ("exponential", {"factor": 0.3}, 0.3 ** (4 * t)),
    ("cosine", {"final": 0.2}, 0.2 + 0.4 * (1 + np.cos(np.pi * t))),
    ("cosine_restarts", {"final": 0.2}, 0.2 + 0.4 * (1 + np.cos(np.pi * (4 * t % 1)))),
    ("inverse_square_root", {}, 1 / np.sqrt(1 + np.arange(121))),
    ("reduce_on_plateau", {}, np.ones(121)),
    (
        "one_cycle",
        {"rise_share": 0.5, "initial": 0.2, "final": 0.4, "shape": "linear"},
        np.where(t < 0.5, 0.2 + 1.6 * t, 1.6 - 1.2 * t),
    ),
    ("warmup", {"initial": 0.4}, np.minimum(0.4 + 0.6 * (1 + np.arange(121)) / 30, 1)),
]


@pytest.mark.parametrize(("name", "arguments", "want"), FORMS, ids=[f[0] for f in FORMS])
def test_equals_its_closed_form(name, arguments, want):
    np.testing.assert_allclose(factors(bound(name, **arguments)), want, rtol=1e-13, atol=1e-15)


def test_every_schedule_has_a_closed_form():
    assert {f[0] for f in FORMS} == set(SCHEDULES)


def test_warm_up_before_an_inverse_square_root_is_vaswanis():
    """Equation 3 of Vaswani et al. 2017, min(t^-0.5, t w^-1.5), with its peak as 1."""
    schedule = bound(
        "warmup",
        warmup_share=None,
        warmup_steps=20,
        then=bound("inverse_square_root", timescale_steps=20),
    )
    t = np.arange(1, 122)
    want = np.minimum(t**-0.5, t * 20**-1.5) * np.sqrt(20)
    np.testing.assert_allclose(factors(schedule), want, rtol=1e-13)


# --- properties -----------------------------------------------------------------------------------


@every_schedule
@settings(max_examples=15, deadline=None)
@given(
    steps=st.integers(4, 3000),
    unit=st.sampled_from(["steps", "epochs", "share"]),
    beyond=st.integers(0, 50),
)
def test_lies_in_zero_to_one(name, steps, unit, beyond):
    whole = {"steps": steps, "epochs": steps / 10, "share": 1.0}[unit]
    schedule = partial(SCHEDULES[name], **required(name, unit, whole))
    at = np.linspace(0, steps + beyond, 121).astype(int)
    got = factors(schedule, steps, at=at)
    assert got.shape == at.shape
    assert np.all((got >= 0) & (got <= 1))


@every_schedule
def test_says_the_same_in_all_units(name):
    runs = []
    for unit, whole in (("steps", 120), ("epochs", 12.0), ("share", 1.0)):
        runs.append(factors(partial(SCHEDULES[name], **required(name, unit, whole))))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


JUMPS = {"step": (30, 60, 90), "multi_step": (30, 90), "cosine_restarts": (30, 60, 90)}


@every_schedule
def test_jumps_where_it_should_and_nowhere_else(name):
    cuts = np.arange(1, 120)
    schedule = bound(name, **({"shape": "linear"} if name == "one_cycle" else {}))
    before, after = (factors(schedule, at=cuts + side) for side in (-1e-6, 1e-6))
    jumps = cuts[np.abs(after - before) > 1e-5]
    np.testing.assert_array_equal(jumps, JUMPS.get(name, ()))


def test_is_exact_at_its_knots():
    for name in ("linear", "polynomial", "cosine"):
        got = factors(bound(name, final=0.25))
        assert got[0] == 1
        assert got[-1] == 0.25
    cycle = factors(bound("one_cycle", rise_share=0.25, initial=0.5, final=0.125))
    assert (cycle[0], cycle[30], cycle[-1]) == (0.5, 1, 0.125)
    restarts = factors(bound("cosine_restarts", final=0.25))
    assert np.all(restarts[::30] == 1)
    assert restarts[29] < 0.26
    steps = factors(bound("step", factor=0.5))
    assert np.all(steps == 0.5 ** (np.arange(121) // 30))
    places = factors(bound("multi_step", factor=0.5))
    assert (places[29], places[30], places[89], places[90]) == (1, 0.5, 0.5, 0.25)
    warm = factors(bound("warmup", then=bound("cosine", final=0.25)))
    assert warm[0] == 1 / 30
    assert warm[29] == 1
    assert np.all(np.diff(warm[:30]) > 0)
    assert np.all(np.diff(warm[29:]) < 0)
    assert warm[-1] == 0.25


def test_whole_spans_are_counted_exactly_in_float32():
    """Also where a quotient, or a product with the inverse, is a whole number less its last bit."""
    every, count = np.arange(1, 1001), np.arange(1, 51)[:, None]
    for side, want in ((-1, count - 1), (0, count)):
        t = (every * count + side).astype(np.float32)
        got = jax.jit(times)(t, every.astype(np.float32))
        np.testing.assert_array_equal(got, np.broadcast_to(want, t.shape))


@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine", "one_cycle"])
def test_stays_at_its_end(name):
    for shape in ({"shape": "linear"}, {"shape": "cosine"}) if name == "one_cycle" else ({},):
        end = factors(bound(name, final=0.25, **shape), at=[120, 121, 150, 1000])
        np.testing.assert_array_equal(end, 0.25)


def test_restarts_begin_exactly_where_cycles_end():
    for growth in (2, 3):
        schedule = partial(SCHEDULES["cosine_restarts"], first_steps=7, growth=growth)
        starts = [7 * (growth**i - 1) // (growth - 1) for i in range(9)]
        starts = [s for s in starts if s < 100_000]
        progress = Progress(jnp.asarray(starts), 100_000, 10)
        np.testing.assert_array_equal(jax.jit(lambda p: schedule(p))(progress), 1.0)  # noqa: B023
        last = jnp.asarray(starts[1:]) - 1
        assert np.all(np.asarray(schedule(progress._replace(step=last))) < 0.06)


@every_schedule
def test_vmap_over_every_number_equals_one_at_a_time(name):
    """Numbers may be traced, spans in epochs and shares too."""
    parameters = inspect.signature(SCHEDULES[name]).parameters
    fixed = {"then": cosine} if name == "warmup" else {}
    given_ = {} if name in ("multi_step",) else required(name, "epochs", 12.0)
    fixed |= required(name, "epochs", 12.0) if name == "multi_step" else {}
    numbers = {
        n: given_.get(n, p.default)
        for n, p in parameters.items()
        if speaks_of_float(p.annotation) and isinstance(given_.get(n, p.default), float)
    }

    def run(numbers):
        progress = Progress(jnp.arange(121), 120, 10, jnp.int32(2))
        return SCHEDULES[name](progress, **fixed, **numbers)

    for argument, number in numbers.items():
        rows = np.array([number, number * 0.8 + 0.1])
        with jax.enable_x64(True):
            together = jax.vmap(lambda row: run(numbers | {argument: row}))(rows)  # noqa: B023
            alone = [run(numbers | {argument: float(row)}) for row in rows]
        np.testing.assert_allclose(together, alone, rtol=1e-13)
        # Its threshold belongs to the memory of the plateau, and is seen there.
        assert argument == "threshold" or np.any(alone[0] != alone[1]), argument


def speaks_of_float(annotation):
    return annotation is float or any(map(speaks_of_float, get_args(annotation)))


def test_spans_in_shares_may_be_traced():
    progress = Progress(jnp.arange(100), 100, 10)
    got = jax.vmap(lambda share: warmup(progress, warmup_share=share))(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(np.asarray(got)[0, [0, 4, 9, 50]], [0.1, 0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(got)[1, [0, 24, 49, 50]], [0.02, 0.5, 1, 1], rtol=1e-6)


def test_is_in_the_precision_of_the_run():
    for on, dtype in ((True, np.float64), (False, np.float32)):
        with jax.enable_x64(on):
            for name in SCHEDULES:
                progress = Progress(jnp.int32(3), 120, 10)
                got = jax.eval_shape(bound(name), progress)
                assert (got.shape, got.dtype, got.weak_type) == ((), dtype, False), name


def test_warm_up_joins_any_schedule():
    for name in set(SCHEDULES) - {"warmup"}:
        then = bound(name)
        joined = factors(bound("warmup", then=then))
        alone = factors(then, steps=91)
        np.testing.assert_allclose(joined[29:], alone[: len(joined) - 29], rtol=1e-12)


# --- the memory of a plateau ----------------------------------------------------------------------


def test_only_a_plateau_needs_the_validation_loss():
    for name in set(SCHEDULES) - {"reduce_on_plateau"}:
        assert plateau(bound(name)) is None
        assert plateau(SCHEDULES[name]) is None
    watching = bound("reduce_on_plateau", patience_evaluations=3)
    assert plateau(watching).patience == 3
    assert plateau(SCHEDULES["reduce_on_plateau"]).patience == 10
    assert plateau(bound("warmup", then=watching)).patience == 3
    assert plateau(lambda progress: 1.0) is None


def hear(losses, **rule):
    memory = plateau(bound("reduce_on_plateau", **rule))
    reductions = []
    for loss in losses:
        memory = observe({"somewhere": (memory, 1)}, jnp.float32(loss))["somewhere"][0]
        reductions.append(int(memory.reductions))
    return reductions


def test_patience_is_counted_anew_after_each_reduction():
    assert hear([1, 1, 1, 1, 1, 1, 1], patience_evaluations=2) == [0, 0, 1, 1, 2, 2, 3]
    assert hear([1, 1, 0.5, 1, 1], patience_evaluations=2) == [0, 0, 0, 0, 1]


def test_an_epoch_without_evaluation_counts_as_nothing():
    assert hear([1, 1, np.nan, np.nan, 1], patience_evaluations=2) == [0, 0, 0, 0, 1]


def test_threshold_is_relative_to_the_best_also_below_zero():
    assert hear([2.0, 1.9, 1.9], patience_evaluations=1, threshold=0.1) == [0, 1, 2]
    assert hear([-2.0, -2.1, -2.1], patience_evaluations=1, threshold=0.1) == [0, 1, 2]
    assert hear([-2.0, -2.3, -2.6], patience_evaluations=1, threshold=0.1) == [0, 0, 0]


def test_factor_never_falls_below_final():
    progress = Progress(jnp.int32(0), 10, 1, jnp.arange(4))
    got = SCHEDULES["reduce_on_plateau"](progress, factor=0.1, final=0.05)
    np.testing.assert_allclose(got, [1, 0.1, 0.05, 0.05], rtol=1e-6)


def test_runs_side_by_side_hear_their_own_loss():
    memory = plateau(bound("reduce_on_plateau", patience_evaluations=1))
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), memory)
    for losses in ([1.0, 1.0], [0.5, 1.0]):
        both = jax.vmap(observe)(both, jnp.array(losses))
    assert isinstance(both, PlateauState)
    np.testing.assert_array_equal(both.reductions, [0, 1])


def test_a_state_without_memory_comes_back_as_it_is():
    state = chain(OPTIMIZERS["adam"](), constant, 5, 5).init({"w": jnp.ones(2)})
    same = observe(state, jnp.float32(1.0))
    assert jax.tree.structure(same) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(state), strict=True))


# --- errors in words ------------------------------------------------------------------------------


def experiment(schedule):
    return parse(
        json.dumps(
            {
                "data": "xor",
                "model": {"name": "mlp", "hidden": [4]},
                "loss": "sigmoid_cross_entropy",
                "optimizer": "sgd",
                "schedule": schedule,
                "batch_size": 4,
                "epochs": 10,
            }
        )
    )


@every_schedule
def test_is_read_from_a_file(name):
    read = experiment({"name": name} | required(name, "epochs", 12.0))
    schedule = bind(read, "schedule", read.hyperparameters)
    want = bound(name, **dict.fromkeys(required(name)), **required(name, "epochs", 12.0))
    np.testing.assert_array_equal(factors(schedule), factors(want))


def test_warm_up_is_read_with_what_follows():
    given_ = {"name": "warmup", "warmup_epochs": 3, "then": {"name": "cosine", "final": 0.1}}
    read = experiment(given_)
    assert read.hyperparameters["schedule.then.final"] == 0.1
    schedule = bind(
        read, "schedule", read.hyperparameters | {"schedule.then.final": jnp.float32(0.5)}
    )
    assert factors(schedule)[-1] == 0.5
    assert experiment(json.loads(read.to_json())["schedule"]) == read


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ("cosin", 'schedule (line 1): "cosin" given; allowed: constant, linear, '),
        ("cosin", '; did you mean "cosine"?'),
        (
            {"name": "step", "every_epoch": 3},
            "schedule.every_epoch (line 1): unknown key; allowed: factor, every_steps, "
            'every_epochs, every_share; did you mean "every_epochs"?',
        ),
        (
            {"name": "step", "every_steps": 2.5},
            "schedule.every_steps (line 1): 2.5 given; allowed is a whole number",
        ),
        (
            {"name": "cosine", "final": 1.5},
            "schedule.final (line 1): 1.5 given; allowed is a number up to 1",
        ),
        (
            {"name": "warmup", "warmup_epochs": 2, "then": {"name": "cosine", "final": -1}},
            "schedule.then.final (line 1): -1 given; allowed is a number from 0 up",
        ),
        (
            {"name": "warmup", "warmup_epochs": 2, "then": "warmup"},
            'schedule.then (line 1): "warmup" given; allowed: constant, linear, ',
        ),
        (
            {"name": "one_cycle", "shape": "cosin"},
            "schedule.shape (line 1): \"cosin\" given; allowed: 'cosine' or 'linear'; "
            'did you mean "cosine"?',
        ),
        (
            {"name": "reduce_on_plateau", "patience": 3},
            "schedule.patience (line 1): unknown key; allowed: factor, patience_evaluations, ",
        ),
    ],
)
def test_a_wrong_argument_is_told(schedule, text):
    with pytest.raises(UserError) as error:
        experiment(schedule)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {},
            "schedule: no span given; "
            "give exactly one of warmup_steps, warmup_epochs, warmup_share",
        ),
        (
            {"warmup_steps": 3, "warmup_share": 0.1},
            "schedule: warmup_steps and warmup_share given; "
            "give exactly one of warmup_steps, warmup_epochs, warmup_share",
        ),
    ],
)
def test_a_span_is_given_in_exactly_one_unit(arguments, text):
    with pytest.raises(UserError) as error:
        warmup(Progress(jnp.int32(0), 10, 1), **arguments)
    assert str(error.value) == text
