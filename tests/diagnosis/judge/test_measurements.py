"""What is measured of a recipe: clipped steps, and how long a step takes."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from networks import affine, recipe, recipe_of, task

import nnref
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements


@pytest.mark.parametrize(
    ("optimizer", "clips"),
    [
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), True),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)), True),
        (optax.adam(0.1), False),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1)), False),
        (optax.apply_if_finite(optax.adam(0.1), 3), False),
    ],
)
def test_clipped_steps_are_counted_where_the_global_norm_is_clipped(optimizer, clips):
    measured = Measurements(replace(recipe_of(task()), optimizer=optimizer, epochs=40))
    lengths = np.sqrt((measured.run.steps.gradient.astype(float) ** 2).sum(1))
    share = float((lengths > 1).mean())
    assert 0 < share < 1
    assert measured.clipped == (share if clips else None)


def test_steps_of_an_experiment_are_counted_too(tmp_path):
    experiment = json.loads(Path("experiments/xor_small.json").read_text())
    experiment["clipping"] = {"name": "global_norm", "threshold": 1e-3}
    (tmp_path / "clipped.json").write_text(json.dumps(experiment | {"epochs": 50}))
    measures = nnref.diagnose(tmp_path / "clipped.json").measures
    assert measures["share of clipped steps"] > 0.9


def test_a_slow_network_is_trained_step_by_step_and_only_as_far_as_its_effort():
    measured = Measurements(recipe_of(task()), effort=1e-9)
    assert measured.trainer.stepwise
    assert len(measured.run.steps.loss) == 1 < measured.run.planned
    assert not Interventions(measured).trials
    measured = Measurements(recipe_of(task()))
    assert not measured.trainer.stepwise
    assert measured.run.complete


@pytest.mark.parametrize(("noise", "modes", "shown"), [(0.7, 0, 0), (0.7, 1, 1), (0.01, 0, 1)])
def test_simple_models_show_nothing_of_a_task_whose_noise_they_do_not_meet(noise, modes, shown):
    def always(params, x, key):
        return (x + noise * jax.random.normal(key, x.shape)) @ params["w"]

    def in_training(params, x, key, train):
        return always(params, x + 0 * train, key)

    made = recipe_of(task(apply=in_training if modes else always))
    made = replace(made, random=True, modes=bool(modes))
    assert bool(Measurements(made).reference.skills) == bool(shown)


@pytest.mark.parametrize("copies", [True, False])
def test_a_code_is_held_against_a_linear_one_of_four_times_its_width(copies):
    """Of rows that are their own targets a linear model knows all, and a narrow code does not."""

    def narrow(params, x):
        return affine(params["dense1"], affine(params["dense0"], x))

    made = recipe(narrow, (20, 1, 20), rows=100)
    rows = made.train[0]
    best = Measurements(replace(made, train=(rows, rows if copies else 2 * rows))).reference.best
    assert best[0] == ("linear, by 4 numbers" if copies else "linear")
    assert (best[1] < 0.6) == copies


@pytest.mark.parametrize(
    ("state", "moded"),
    [
        ({"mean": np.zeros(3, np.float32)}, True),
        ({"key": jax.random.key(0), "count": np.uint32(0)}, False),  # of NNX's dropout
        ({}, False),
    ],
)
def test_keys_and_counters_are_no_mode(state, moded):
    asked = recipe(lambda params, x: affine(params["dense0"], x))
    asked = replace(asked, init=lambda key: ({"dense0": {}}, state), optimizer=optax.sgd(0.1))
    measured = Measurements(asked)
    measured.initial = ({}, state)
    assert measured.moded == moded
