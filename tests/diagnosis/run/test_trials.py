"""The user's training is that of `nnref run`; a trial is the same with one thing changed."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref.diagnosis.api import from_experiment
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run import trials
from nnref.diagnosis.run.changes import Change
from nnref.diagnosis.run.starts import first_network
from nnref.diagnosis.run.trials import Trainer

X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]
KEY = jax.random.key(3)


def init(key):
    return {"w": 0.3 * jax.random.normal(key, (3, 1))}


def squared(outputs, y):
    return (outputs - y) ** 2


def linear():
    return Recipe(
        lambda key: (init(key), {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        lambda outputs, y: jnp.mean(squared(outputs, y)),
        train=(X, Y),
        optimizer=optax.sgd(0.05),
        epochs=5,
    )


# --- the steps of nnref run ---------------------------------------------------------------------

# 13 steps an epoch, the last one of 57 rows.
EXPERIMENT = {
    "about": "",
    "data": "digits",
    "model": {"name": "mlp", "hidden": [16], "activation": "tanh"},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "batch_size": 100,
    "epochs": 3,
    "seeds": [3],
}
KINDS = {
    "schedule": {
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "schedule": "cosine",
        "regularization": {"weight_decay": 0.1},
    },
    "patience": {
        "epochs": 40,
        "optimizer": {"name": "adam", "learning_rate": 0.1},
        "stop": {"metric": "valid_loss", "patience": 2},
    },
    "plateau": {
        "epochs": 8,
        "optimizer": {"name": "adam", "learning_rate": 0.1},
        "schedule": {"name": "reduce_on_plateau", "patience_evaluations": 1},
    },
    "lsuv": {
        "model": {
            "name": "mlp",
            "hidden": [16, 16],
            "activation": "tanh",
            "kernel_initializer": "lsuv",
        }
    },
    "batch normalization": {"regularization": {"normalization": "batch"}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stepwise", [False, True])
def test_a_diagnosis_trains_as_nnref_run_does(tmp_path, kind, stepwise):
    """Bit for bit; a program of one step alone is fused, and so rounded, otherwise."""
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(EXPERIMENT | KINDS[kind]))
    run = nnref.run(path, logbook=None)
    losses = run.history["train_loss"][0, 1:]
    recipe = from_experiment(path)
    assert len(recipe.train[0]) == 12 * 100 + 57
    trained = Trainer(recipe, stepwise).run(first_network(recipe))
    assert trained.complete
    assert len(trained.steps.loss) == len(trained.losses) * 13
    if kind == "patience":
        assert len(trained.losses) < 40
    if stepwise:  # what rounding makes of the first epochs; later ones go their own way
        np.testing.assert_allclose(trained.losses[:2], losses[:2], rtol=1e-3)
        return
    np.testing.assert_array_equal(trained.losses, losses)
    theirs = jax.tree.map(lambda leaf: leaf[0], run.params)
    for one, other in zip(jax.tree.leaves(trained.params), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


# --- trials -------------------------------------------------------------------------------------


def test_a_state_is_restarted_in_each_epoch_and_before_an_evaluation():
    def apply(params, state, x, key, train):
        return x @ params["w"], {"batches": state["batches"] + 1}

    recipe = Recipe(
        lambda key: (init(key), {"batches": jnp.zeros(())}),
        apply,
        lambda outputs, y: jnp.mean(squared(outputs, y)),
        train=(X, Y),
        optimizer=optax.sgd(0.1),
        batch_size=16,
        epochs=3,
        restart=lambda params, state: {"batches": jnp.zeros(())},
    )
    begun = recipe.init(KEY)
    assert Trainer(recipe).run(begun).state["batches"] == 4
    assert Trainer(recipe, stepwise=True).run(begun).state["batches"] == 4
    onwards = replace(recipe, restart=None)
    assert Trainer(onwards).run(begun).state["batches"] == 12


def test_runs_one_after_the_other_end_where_they_end_together(monkeypatch):
    recipe = replace(linear(), epochs=10)
    trainer = Trainer(recipe)
    start = recipe.init(KEY)
    trainer.run(start)
    x, y = (np.stack([part, 2 * part]) for part in recipe.train)
    changes = [Change(), Change(rate=0.1), Change(inputs=1), Change(targets=1)]
    ended = []
    for worth in (1e9, 0.0):
        monkeypatch.setattr(trials, "WORTH", worth)
        ended.append(trainer.trials(x, y, changes, [start] * len(changes)))
    for alone, together in zip(*ended, strict=True):
        ends = alone.network[0]["w"], together.network[0]["w"]
        np.testing.assert_allclose(*ends, rtol=1e-5)
        np.testing.assert_allclose(alone.losses, together.losses, rtol=1e-5)
        assert len(alone.losses) == 10
    assert len({str(alone.network[0]["w"]) for alone in ended[0]}) == len(changes)


def test_a_trial_of_an_experiment_scales_its_rate_and_its_decay(tmp_path):
    """The same as an experiment with that rate, without that decay."""
    path = tmp_path / "experiment.json"
    given = EXPERIMENT | KINDS["schedule"]
    path.write_text(json.dumps(given))
    recipe = from_experiment(path)
    network, sets = first_network(recipe), [part[None] for part in recipe.train]
    change = Change(rate=0.1, penalty=0.0)
    (((params, _), _),) = Trainer(recipe).trials(*sets, [change], [network])
    other = {"optimizer": given["optimizer"] | {"learning_rate": 0.01}, "regularization": {}}
    path.write_text(json.dumps(given | other))
    theirs = nnref.run(path, logbook=None).params
    for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, two[0], rtol=1e-3, atol=1e-5)


def test_a_rule_to_stop_holds_for_the_data_that_its_validation_rows_belong_to(monkeypatch):
    """From the solution on, the loss does not fall: patience ends the run, not another data set."""
    stop = nnref.Experiment.model_validate(
        EXPERIMENT | {"stop": {"metric": "valid_loss", "patience": 2}}
    ).stop
    solved = {"w": jnp.array([[1.0], [-2.0], [0.0]])}, {}
    recipe = replace(linear(), valid=(X, Y), epochs=12, stop=stop)
    trainer = Trainer(recipe)
    run = trainer.run(solved)
    assert len(run.steps.loss) == run.planned == 2 * 2  # two epochs
    sets = np.stack([X, X]), np.stack([Y, 3 * Y])
    changes = [Change(), Change(targets=1)]
    for worth in (1e9, 0.0):
        monkeypatch.setattr(trials, "WORTH", worth)
        own, other = trainer.trials(*sets, changes, [solved] * 2)
        np.testing.assert_array_equal(own.network[0]["w"], solved[0]["w"])
        assert np.abs(other.network[0]["w"] - solved[0]["w"]).max() > 0.1
        assert (len(own.losses), len(other.losses)) == (2, 12)


def test_a_line_search_is_given_the_loss_with_its_penalty():
    """Ridge regression: L-BFGS finds w = (X'X / n + 1)^-1 X'y / n."""
    penalized = replace(linear(), penalty=lambda params: jnp.sum(params["w"] ** 2))
    recipe = replace(penalized, optimizer=optax.lbfgs(), batch_size=64, epochs=20)
    run = Trainer(recipe).run(recipe.init(KEY))
    ridge = np.linalg.solve(X.T @ X / 64 + np.eye(3), X.T @ Y / 64)
    np.testing.assert_allclose(run.params["w"], ridge, rtol=1e-3, atol=1e-4)
