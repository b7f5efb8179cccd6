"""The doors of `nnref.diagnose`: whatever somebody has, and mistakes of all kinds."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import nnref
from nnref import UserError
from nnref.cli import main
from nnref.diagnosis.causes import THRESHOLDS
from nnref.diagnosis.findings import Finding, Findings
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.recipe import Recipe, for_any_rows
from nnref.diagnosis.run import snapshot
from nnref.training.adapters import plain

X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = X[:, :1] - 2 * X[:, 1:2]
KEY = jax.random.key(3)


def init(key):
    return {"w": 0.3 * jax.random.normal(key, (3, 1))}


def apply(params, x):
    return x @ params["w"]


def linear():
    """The same, as what the checks look at."""
    return replace(recipe_of(task()), optimizer=optax.sgd(0.05), epochs=5)


def squared(outputs, y):
    return (outputs - y) ** 2


def task(**changes):
    return nnref.Task(**{"init": init, "apply": apply, "loss": squared, "train": (X, Y)} | changes)


def test_a_task_of_plain_functions_that_learns_has_no_fault():
    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.exit_code == 0
    assert "Nothing found" in str(found)


def noisy(params, x, key, training):
    return apply(params, x) + training * jax.random.normal(key, (len(x), 1))


def deterministic(params, x, *, deterministic, rng=None):
    return apply(params, x) + (not deterministic)


def stateful(params, batch_stats, x, train=False):
    return apply(params, x), {"mean": batch_stats["mean"] + train}


@pytest.mark.parametrize(
    ("function", "random", "modes"),
    [(apply, False, False), (noisy, True, True), (deterministic, True, True)],
)
def test_common_signatures_are_called_as_they_want(function, random, modes):
    network = plain(init, function, X)
    params, state = network.init(KEY)
    evaluated, _ = network.apply(params, state, X, None, False)
    np.testing.assert_array_equal(evaluated, apply(params, X))
    trained, _ = network.apply(params, state, X, KEY, True)
    assert (network.random, network.modes) == (random, modes)
    assert np.abs(trained - evaluated).max() > 0.5 if modes else (trained == evaluated).all()


def test_state_goes_in_and_comes_out():
    network = plain(lambda key, x: (init(key), {"mean": x[0, 0]}), stateful, X)
    params, state = network.init(KEY)
    assert state["mean"] == X[0, 0]
    assert network.apply(params, state, X, KEY, True)[1]["mean"] == X[0, 0] + 1


def test_targets_may_come_first_and_rows_are_averaged():
    told = []

    def loss(y_true, y_pred):
        told.append((y_true, y_pred))
        return jnp.abs(y_pred)[:, 0]

    value = task(loss=loss).functions.loss(2 * jnp.ones((4, 1)), jnp.zeros((4, 1)))
    assert value == 2
    assert told[0][1][0, 0] == 2


class Norm(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


class LinenNorm(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


@pytest.mark.parametrize(
    "model", [Norm(nnx.Rngs(0)), lambda rngs: Norm(rngs), LinenNorm()], ids=["nnx", "rngs", "linen"]
)
def test_a_flax_module_trains_evaluates_and_keeps_its_statistics(model):
    functions = nnref.Task(model=model, loss=squared, train=(X, Y)).functions
    params, state = functions.init(KEY)
    before = [np.array(leaf) for leaf in arrays((params, state))]
    outputs, after = functions.apply(params, state, X, KEY, True)
    dropped = float((outputs == 0).mean())
    assert 0.2 < dropped < 0.8
    moved = [not np.array_equal(*pair) for pair in zip(arrays(state), arrays(after), strict=True)]
    assert any(moved)
    evaluated, kept = functions.apply(params, state, X, None, False)
    assert (evaluated != 0).all()
    again, _ = functions.apply(params, kept, X, None, False)
    np.testing.assert_array_equal(evaluated, again)
    # Nothing of the user's is written to.
    for old, new in zip(before, arrays((params, state)), strict=True):
        np.testing.assert_array_equal(old, new)


def arrays(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": None}, "loss is missing"),
        ({"init": None}, "init, called as init(key), is missing"),
        ({"apply": None}, "apply, called as apply(params, x), is missing"),
        ({"train": None}, "train is missing"),
        ({"train": (X, Y[:5])}, "rows come first"),
        ({"train": X}, "must be a pair"),
        ({"apply": lambda params, x, wings: x}, "'wings' has no default and no known name"),
        ({"apply": lambda params: 0}, "x is missing"),
        ({"init": lambda key, x, y: 0}, "functools.partial"),
        ({"loss": lambda params, batch, key: 0}, "nnref.diagnose(loss=..., params=..., batch=...)"),
        ({"model": 3}, "not both"),
        ({"model": 3, "init": None, "apply": None}, "is no Flax module"),
    ],
)
def test_what_is_missing_is_said(change, words):
    with pytest.raises(UserError) as told:
        task(**change)
    assert words in str(told.value)


def test_a_users_exception_is_a_finding_with_its_own_line():
    def broken(params, x):
        return x @ params["w"].T  # the line that is named

    found = nnref.diagnose(task(apply=broken))
    assert [finding.cause for finding in found.faults] == ["broken_program"]
    line = broken.__code__.co_firstlineno + 1
    assert found[0].where == f"{__file__}:{line}"
    assert "params" in found[0].measured


def test_what_raises_inside_a_library_is_the_users_where_the_user_called_or_gave_it():
    def apply(params, x):
        return optax.incremental_update(params, x, 0.1)  # trees of two structures

    line = apply.__code__.co_firstlineno + 1
    found = nnref.diagnose(task(apply=apply))
    assert found[0].cause == "broken_program"
    assert found[0].where == f"{__file__}:{line}"
    given = optax.softmax_cross_entropy_with_integer_labels  # of targets that are no integers
    assert nnref.diagnose(task(loss=given))[0].cause == "broken_program"
    frozen = optax.masked(optax.sgd(0.1), {"no such layer": True})
    assert nnref.diagnose(task(), optimizer=frozen)[0].cause == "broken_program"


def test_what_raises_inside_nnref_is_no_fault_of_the_users_program(monkeypatch):
    monkeypatch.setattr(snapshot, "activations", None)
    with pytest.raises(TypeError, match="not callable") as raised:
        nnref.diagnose(task())
    sentence = raised.value.__notes__[-1]  # JAX adds one of its own
    assert "a mistake in nnref, not in your program" in sentence
    assert f"JAX {jax.__version__}" in sentence


def test_the_command_ends_with_a_traceback_where_nnref_itself_raises(tmp_path):
    """Exit code 1, the lines to be reported, and no finding."""
    program = (
        "from nnref.cli import main; from nnref.diagnosis.run import snapshot; "
        "snapshot.activations = None; main(['diagnose', 'experiments/xor_small.json'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "Please report it" in ended.stderr
    assert "broken_program" not in ended.stdout


def test_a_penalty_of_many_numbers_is_refused():
    with pytest.raises(UserError, match="it is one number"):
        nnref.diagnose(task(), penalty=lambda params: params["w"] ** 2)


def two_layers(key):
    a, b, c = jax.random.split(key, 3)
    shapes = {"a": (a, (3, 8)), "b": (b, (8, 8)), "c": (c, (8, 1))}
    return {name: 0.5 * jax.random.normal(*drawn) for name, drawn in shapes.items()}


def overwritten(params, x):
    hidden = jnp.tanh(x @ params["a"])
    again = jnp.tanh(hidden @ params["b"])
    again = hidden
    return again @ params["c"]


def test_a_layer_whose_result_is_overwritten_is_a_fault_with_its_line():
    given = nnref.Task(init=two_layers, apply=overwritten, loss=squared, train=(X, Y))
    found = nnref.diagnose(given, optimizer=optax.adam(0.02), epochs=60)
    assert found.faults[0].cause == "parameters_not_updated"
    line = overwritten.__code__.co_firstlineno + 2
    assert f"{Path(__file__).name}:{line}" in found.faults[0].where


def test_an_optimizer_that_raises_is_a_finding_too():
    def update(updates, state, params=None):
        raise RuntimeError("no updates today")

    optimizer = optax.GradientTransformation(lambda params: (), update)
    found = nnref.diagnose(task(), optimizer=optimizer)
    assert found[0].evidence == "RuntimeError: no updates today"
    assert found[0].where == f"{__file__}:{update.__code__.co_firstlineno + 1}"


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({"train": (X, np.full(64, "cat"))}, {}, "np.unique(y, return_inverse=True)[1]"),
        ({"train": (X[:1], Y[:1])}, {}, "1 training row"),
        ({}, {"batch_size": 0}, "batch_size is 0; it is a whole number"),
        ({}, {"epochs": 2.5}, "epochs is 2.5; it is a whole number"),
        ({}, {"kind": "regresion"}, "one of binary, multiclass, multilabel, regression"),
        ({}, {"optimizer": "adam"}, "'adam', no optax transformation"),
    ],
)
def test_what_no_training_can_be_made_of_is_refused(change, arguments, words):
    with pytest.raises(UserError) as told:
        nnref.diagnose(task(**change), **arguments)
    assert words in str(told.value)


def test_a_module_in_the_place_of_functions_is_refused():
    with pytest.raises(UserError, match="model="):
        nnref.diagnose(nnref.Task(LinenNorm(), loss=squared, train=(X, Y)))


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        ({}, {"penalty": lambda params: params["no such layer"]}),
        ({"valid": (X[:, :2], Y)}, {}),
    ],
)
def test_a_penalty_that_raises_and_validation_rows_that_do_not_fit_are_findings(change, arguments):
    found = nnref.diagnose(task(**change), **arguments)
    assert [finding.cause for finding in found.faults] == ["broken_program"]
    assert found[0].where.startswith(__file__)


def test_a_metric_that_raises_is_told_and_done_without():
    def metric(outputs, y):
        raise TypeError("no outputs like these")

    found = nnref.diagnose(task(), optimizer=optax.adam(0.1), epochs=40, metric=metric)
    assert not found.faults
    assert "your metric: TypeError: no outputs like these" in found.impossible


def test_data_that_are_not_finite_need_no_run():
    found = nnref.diagnose(task(train=(np.where(X > 2, np.nan, X), Y)))
    assert found.faults[0].cause == "nonfinite_data"
    assert "a run as told" not in found.checked


def test_targets_may_be_true_and_false():
    def logistic(outputs, y):
        return optax.sigmoid_binary_cross_entropy(outputs, y)

    found = nnref.diagnose(
        task(loss=logistic, train=(X, Y > 0)), optimizer=optax.adam(0.1), epochs=40
    )
    assert not found.faults
    assert not [line for line in found.impossible if "targets" in line]


def test_two_classes_in_two_columns_are_classes():
    y = np.concatenate([Y > 0, Y <= 0], 1).astype(np.float32)
    recipe = Recipe(
        lambda key: ({"w": jnp.zeros((3, 2))}, {}),
        lambda params, state, x, key, train: (x @ params["w"], state),
        lambda outputs, y: optax.softmax_cross_entropy(outputs, y).mean(),
        train=(X, y),
        valid=(X, y),
        optimizer=optax.adam(0.1),
        kind="binary",
    )
    found = nnref.diagnose(recipe)
    assert not found.faults
    assert found.measures["skill on validation rows"] > 0.9


# Networks of other forms


def test_an_apply_for_whole_batches_alone_takes_any_number_of_rows():
    """Of a running sum that goes from batch to batch, its form written for 8 rows."""

    def apply(params, state, x, key, train):
        sums = state["sums"] + x @ params["w"]
        return {"sums": sums, "count": jnp.float32(1)}, {"sums": sums}

    def init(key):
        return {"w": jnp.ones((3, 1))}, {"sums": jnp.zeros((8, 1))}

    recipe = Recipe(init, apply, squared, train=(X, Y), optimizer=optax.sgd(0.1), batch_size=8)
    made = for_any_rows(recipe)
    assert made.rows == 8
    sums = X.sum(1, keepdims=True)
    for rows in (1, 8, 20):
        outputs, state = made.apply(*init(KEY), X[:rows], KEY, False)
        filled = np.concatenate([sums[:rows], np.repeat(sums[:1], -rows % 8, 0)])
        running = filled.reshape(-1, 8, 1).cumsum(0)
        np.testing.assert_allclose(
            outputs["sums"], running.reshape(-1, 1)[:rows], rtol=1e-5, atol=1e-6
        )  # sums of three numbers in another order
        np.testing.assert_allclose(state["sums"], running[-1], rtol=1e-5, atol=1e-6)
        assert outputs["count"] == 1
    assert for_any_rows(replace(recipe, apply=recipe_of(task()).apply)).rows is None


def test_a_network_written_for_its_batch_alone_is_diagnosed():
    def apply(params, x):
        return jnp.zeros((16, 1)) + x @ params["w"]

    found = nnref.diagnose(task(apply=apply), optimizer=optax.adam(0.1), batch_size=16, epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9


def test_a_language_model_whose_state_goes_on_is_diagnosed(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the rat ran. " * 200)
    experiment = {
        "about": "",
        "data": {"name": "text", "path": str(tmp_path / "text.txt"), "window": 16, "streams": 8},
        "model": {
            "name": "recurrent",
            "cell": "lstm",
            "units": 32,
            "embedding": 8,
            "answer": "each",
            "streams": 8,
        },
        "loss": "softmax_cross_entropy",
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "shuffle": False,
        "batch_size": 8,
        "epochs": 20,
    }
    (tmp_path / "cat.json").write_text(json.dumps(experiment))
    found = nnref.diagnose(tmp_path / "cat.json")
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9
    assert 0.1 < max(found.measures["skill of simple models"].values()) < 0.9


def two_heads(params, x):
    return {"mean": x @ params["w"], "scale": x @ params["s"], "penalty": jnp.sum(params["w"])}


def likelihood(outputs, y):
    """Of a normal distribution."""
    scale = outputs["scale"]
    return jnp.mean(scale + 0.5 * (outputs["mean"] - y) ** 2 / jnp.exp(2 * scale))


def test_several_outputs_are_judged_by_what_their_loss_falls():
    def start(key):
        return {"w": jnp.zeros((3, 1)), "s": jnp.zeros((3, 1))}

    made = task(init=start, apply=two_heads, loss=likelihood)
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.67
    assert sum("not one array" in told for told in found.impossible) == 1
    measured = Measurements(recipe_of(made), seconds=30.0)
    # The best constant answer is the mean and deviation of the targets.
    wanted = measured.skill.wanted
    assert measured.skill.constant_loss == pytest.approx(0.5 + np.log(wanted.std()), rel=1e-3)
    slow = nnref.diagnose(made, optimizer=optax.adam(1e-4), epochs=40)
    assert [fault.cause for fault in slow.faults] == ["learning_rate_too_low"]


def test_a_mean_and_its_deviation_are_no_answer_too_many():
    def halves(outputs, y):
        return likelihood({"mean": outputs[:, :1], "scale": outputs[:, 1:]}, y)

    made = task(
        init=lambda key: {"w": jnp.zeros((3, 2))}, apply=lambda p, x: x @ p["w"], loss=halves
    )
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.67


def test_an_embedding_is_not_asked_for_as_many_units_as_there_are_classes():
    """Rows of a class together, others apart (Hadsell, Chopra, LeCun 2006)."""
    labels = (np.arange(64) % 4).astype(np.int32)
    x = np.eye(4, dtype=np.float32)[labels] + 0.1 * np.random.default_rng(1).normal(size=(64, 4))

    def contrastive(z, y):
        squares = jnp.sum((z[:, None] - z[None]) ** 2, -1)
        same = y[:, None] == y[None]
        apart = jnp.maximum(0, 1 - jnp.sqrt(squares + 1e-6)) ** 2
        return jnp.mean(jnp.where(same, squares, apart))

    made = task(
        init=lambda key: {"w": jax.random.normal(key, (4, 2))},
        apply=lambda p, x: x @ p["w"],
        loss=contrastive,
        train=(x.astype(np.float32), labels),
    )
    assert not nnref.diagnose(made, optimizer=optax.adam(0.03), epochs=40).faults
    alone = task(
        init=lambda key: {"w": jax.random.normal(key, (4, 2))},
        apply=lambda p, x: x @ p["w"],
        loss=optax.softmax_cross_entropy_with_integer_labels,
        train=(x.astype(np.float32), labels),
    )
    assert [f.cause for f in nnref.diagnose(alone).faults] == ["output_width_mismatch"]


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=5)),
        optax.contrib.schedule_free_adamw(0.1),
        optax.MultiSteps(optax.adam(0.1), 2),
        optax.lion(0.03),
    ],
)
def test_optimizers_that_look_at_the_loss_or_wait_are_taken_as_they_are(optimizer):
    found = nnref.diagnose(task(), optimizer=optimizer, epochs=40)
    assert not found.faults
    assert found.measures["skill on training rows"] > 0.9


# What is measured of a recipe, and what is tried


def tried(recipe):
    return Interventions(Measurements(recipe, seconds=30.0))


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
    measured = Measurements(
        replace(recipe_of(task()), optimizer=optimizer, epochs=40), seconds=30.0
    )
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


def test_batches_are_learned_by_heart_by_what_can_and_not_by_what_cannot():
    """Noise that no line through three columns explains, and that of two rows one does."""
    noise = np.random.default_rng(1).normal(size=(64, 1)).astype(np.float32)
    told = tried(recipe_of(task(train=(X, noise)))).overfit_one_batch
    assert list(told) == [2, 16, 64]
    assert told[2] > 0.99
    assert told[64] < 0.3

    def silent(params, x):
        return x @ params["w"] * 0

    told = tried(recipe_of(task(train=(X, noise), apply=silent))).overfit_one_batch
    assert max(told.values()) <= 0.01


def test_by_heart_needs_no_dropout_and_has_none():
    def apply(params, x, key, training):
        return x @ params["w"] + 9.0 * training * jax.random.normal(key, (len(x), 1))

    assert tried(recipe_of(task(apply=apply))).overfit_one_batch[64] > 0.99


def test_tokens_are_not_standardized():
    """Places in a table of forty, of a network that does not learn: what else is tried."""
    tokens = np.random.default_rng(1).integers(0, 40, (200, 3))
    wanted = (tokens.sum(1, keepdims=True) % 7).astype(np.float32)
    recipe = Recipe(
        lambda key: ({"table": 0.1 * jax.random.normal(key, (40, 4)), "w": jnp.ones((4, 1))}, {}),
        lambda params, state, x, key, train: (
            jnp.tanh(params["table"][x].sum(1)) @ params["w"],
            state,
        ),
        lambda outputs, y: jnp.mean((outputs - y) ** 2),
        train=(tokens, wanted),
        optimizer=optax.sgd(1e-6),
    )
    trials = tried(recipe).trials
    assert "inputs" not in trials
    assert "rate x100" in trials
    dense = replace(
        recipe,
        init=lambda key: ({"w": jnp.ones((3, 1))}, {}),
        apply=lambda params, state, x, key, train: (x @ params["w"], state),
    )
    assert "inputs" in tried(dense).trials


def test_a_penalty_of_either_sign_is_tried_without():
    for factor, expected in ((-0.1, True), (0.1, True), (0.0, False)):
        penalty = lambda params, factor=factor: factor * jnp.sum(params["w"] ** 2)  # noqa: E731
        assert ("penalty" in tried(replace(linear(), penalty=penalty)).trials) == expected


def test_decay_of_the_weights_in_the_optimizer_is_tried_without():
    strong, mild = optax.add_decayed_weights(5.0), optax.add_decayed_weights(1e-4)
    measured = Measurements(
        replace(linear(), optimizer=optax.chain(strong, optax.sgd(0.02)), epochs=40), 30.0
    )
    assert measured.decay == pytest.approx([0.1])
    assert measured.trained.skill < 0.6
    assert Interventions(measured).trials["decay"].skill > 0.99
    for optimizer in (optax.chain(mild, optax.sgd(0.02)), optax.adam(0.1)):
        measured = Measurements(replace(linear(), optimizer=optimizer), 30.0)
        assert measured.decay == ()


def test_a_metric_that_any_constant_satisfies_says_nothing_where_rows_meet_in_the_loss():
    def matched(outputs, y):
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(outputs @ y.T)))

    def near(outputs, y):
        return jnp.mean(outputs[:, 0] <= outputs[:, 0].max())  # all are, always

    for loss, fits in ((matched, False), (lambda o, y: jnp.mean((o - y) ** 2), True)):
        measured = Measurements(replace(linear(), loss=loss, metric=near), 30.0)
        assert measured.skill.fits == fits
        assert bool(measured.skill.metric_refused) == (not fits)


@pytest.mark.parametrize(("size", "forgets"), [(0.01, True), (1.0, False)])
def test_what_the_loss_feels_of_early_tokens(size, forgets):
    """A recurrence over ten tokens, by an orthogonal matrix or a hundredth of one."""
    tokens = np.random.default_rng(1).integers(0, 6, (40, 10))

    def start(key):
        turned = jax.nn.initializers.orthogonal(size)(key, (4, 4))
        return {"table": jax.random.normal(key, (6, 4)), "turn": turned}, {}

    def network(params, state, x, key, train):
        turn = lambda h, e: (jnp.tanh(e + h @ params["turn"]), None)  # noqa: E731
        embedded = params["table"][x].swapaxes(0, 1)
        return jax.lax.scan(turn, jnp.zeros((len(x), 4)), embedded)[0][:, :1], state

    recipe = replace(linear(), init=start, apply=network, train=(tokens, Y[:40]))
    times = Measurements(recipe, 30.0).start.times
    assert len(times) == 10
    assert (times[0] < 1e-6 * times[-1]) == forgets


def test_a_metric_of_the_users_is_held_against_what_it_gives_to_constants():
    """Balanced accuracy of one row in eight: a constant has a half, not seven eighths."""
    y = (np.arange(64) % 8 == 0).astype(np.float32)[:, None]
    x = np.concatenate([y, X], 1)

    def balanced(outputs, y):
        right = (outputs > 0) == (y > 0.5)
        return (right[y > 0.5].mean() + right[y < 0.5].mean()) / 2

    recipe = Recipe(
        lambda key: ({"w": jnp.zeros((4, 1)), "b": jnp.zeros(1)}, {}),
        lambda params, state, x, key, train: (x @ params["w"] + params["b"], state),
        lambda outputs, y: optax.sigmoid_binary_cross_entropy(outputs, y).mean(),
        train=(x, y),
        optimizer=optax.adam(0.1),
        kind="binary",
        metric=balanced,
    )
    measured = Measurements(recipe, seconds=30.0)
    half = {"w": jnp.zeros((4, 1)).at[0].set(2.0), "b": -jnp.ones(1)}
    assert measured.skill.outcome(half, {}).skill == 1
    assert measured.skill.outcome({**half, "w": jnp.zeros((4, 1))}, {}).skill == 0
    assert measured.skill.metric_of_constants(np.zeros((64, 1)), y) == 0.5
    assert measured.never_predicted == set()
    still = Measurements(replace(recipe, optimizer=optax.sgd(0.0)), seconds=30.0)
    assert still.never_predicted == {1}


def test_rows_are_looked_at_evenly_where_there_are_many():
    x = np.linspace(0, 1, 5000, dtype=np.float32)[:, None]
    made = recipe_of(task())
    recipe = replace(made, train=(x, x), init=lambda key: ({"w": jnp.ones((1, 1))}, {}))
    outputs, y = Measurements(recipe, seconds=30.0).skill.outputs_at({"w": jnp.ones((1, 1))}, {})
    np.testing.assert_array_equal(outputs, y)
    assert len(y) == 1024
    assert (y[0], y[-1]) == (0, 1)
    goes_on = replace(recipe, restart=lambda params, state: state)
    _, y = Measurements(goes_on, seconds=30.0).skill.outputs_at({"w": jnp.ones((1, 1))}, {})
    np.testing.assert_array_equal(y, x[:1024])


# Slow networks, and costs


def test_a_slow_network_is_trained_step_by_step_within_its_time():
    measured = Measurements(recipe_of(task()), seconds=30.0)
    measured.seconds_of_a_step = 10.0  # measured once, and kept
    assert measured.trainer.stepwise
    measured = Measurements(recipe_of(task()), seconds=30.0)
    measured.seconds_of_a_step = 1e-5
    assert not measured.trainer.stepwise


def product(outputs, y):
    return jnp.mean(outputs * y)


def test_costs_of_one_answer_to_all_rows_are_no_targets():
    """As in Reddi et al. 2018: a linear cost whose sign changes, and inputs that are all one."""
    same = np.ones_like(X)
    assert Measurements(recipe_of(task(loss=product, train=(same, Y))), seconds=30.0).skill.costs
    for other in (
        task(loss=product),
        task(train=(same, Y)),
        task(loss=lambda outputs, y: jnp.mean(y), train=(same, Y)),
    ):
        assert not Measurements(recipe_of(other), seconds=30.0).skill.costs


def recipe_of(task):
    init, apply, loss, *_ = task.functions
    return Recipe(init, apply, loss, train=task.train, optimizer=optax.adam(0.1))


@pytest.mark.parametrize(
    "arguments",
    [{}, {"loss": squared}, {"task": 3}, {"loss": lambda a, b, c, d: 0, "params": {}, "batch": X}],
)
def test_a_diagnosis_of_nothing_is_refused(arguments):
    with pytest.raises(UserError):
        nnref.diagnose(**arguments)


def make_task():
    return task(), {"optimizer": optax.sgd(50.0), "epochs": 20}


def make_nothing():
    return 3


def test_the_command_names_a_fault_and_its_exit_code_says_so(capsys, tmp_path):
    page = tmp_path / "why.html"
    code = main(["diagnose", f"{__name__}:make_task", "--json", "--html", str(page)])
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert told["found"][0]["cause"] == "learning_rate_too_high"
    assert "learning_rate_too_high" in page.read_text()
    assert "http" not in page.read_text()


@pytest.mark.parametrize("given", [f"{__name__}:make_nothing", f"{__name__}:absent", "no.module:x"])
def test_the_command_refuses_what_makes_no_task(given, capsys):
    assert main(["diagnose", given]) == 2
    assert given in capsys.readouterr().err


SYMPTOM = Finding("dying_relu", "fault", "hidden", "no row activates it")
CAUSE = Finding(
    "learning_rate_too_high",
    "fault",
    "optimizer",
    "with a tenth of the rate it learns <fine>, " + "and so on " * 12,
    measured="0.5",
    healthy="1e-3",
    remedy="divide the learning rate by 10",
    confidence=0.8,
    symptoms=(SYMPTOM,),
)
NOTE = Finding("class_imbalance", "note", "targets", "one class in 90 % of the rows")


def test_a_report_reads_at_80_columns_and_hangs_symptoms_under_their_cause():
    found = Findings((CAUSE, NOTE), ("data",), ("validation",), {"loss": float("nan")})
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for word in ("[learning_rate_too_high]", "80% sure", "divide the learning rate", "no row"):
        assert word in text
    assert text.index("steps overshoot") < text.index("no row activates") < text.index("one class")
    assert (found.faults, found.notes) == ((CAUSE,), (NOTE,))
    assert "&lt;fine&gt;" in found._repr_html_()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["measures"] == {"loss": "nan"}


def test_a_cause_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocabulary"):
        Finding("bad_luck", "fault", "", "")


# A history of one's own beside the run, and what is told of both


def test_a_history_beside_a_network_that_learns_points_at_the_loop():
    made = task()
    climbs = list(np.geomspace(1, 1e4, 40))
    found = nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40, history=climbs)
    (fault,) = found.faults
    assert fault.cause == "learning_rate_too_high"
    assert fault.where.startswith("your history")
    assert "look at your own loop" in fault.evidence
    assert found.measures["your history"]["last_loss"] == climbs[-1]
    falls = list(np.geomspace(1, 1e-4, 40))
    assert not nnref.diagnose(made, optimizer=optax.adam(0.1), epochs=40, history=falls).faults


def test_a_history_beside_a_fault_is_no_second_one():
    made = task(train=(X, np.full_like(Y, np.nan)))
    found = nnref.diagnose(made, history=list(np.geomspace(1, 1e4, 40)))
    assert [fault.cause for fault in found.faults] == ["nonfinite_data"]
    assert [note.cause for note in found.notes] == ["learning_rate_too_high"]
    with pytest.raises(UserError, match="empty"):
        nnref.diagnose(made, history=[])


MEASURES = {
    "skill on training rows": 0.5,
    "skill on validation rows": 0.25,
    "skill of simple models": {"linear": 0.2, "boosted trees": 0.9},
    "skill of simple models on shuffled targets": None,
    "skill on one batch by its rows": {2: 1.0, 16: 0.75},
    "share of clipped steps": 0.125,
    "steps": 7,
    "loss of the best constant answer": 0.693,
    "first loss": 0.8,
    "last loss": 0.4,
    "trials": {},
}


@pytest.mark.parametrize(
    ("changed", "word", "told"),
    [
        ({}, "to be learned", "boosted trees first, and this network does not"),
        ({"skill on training rows": 0.88}, "to be learned", "it is learned"),
        ({"skill of simple models": {"linear": 0.05}}, "to be learned", "find nothing"),
        ({}, "this network", "0.50 on its training rows, 0.25 on the validation rows"),
        ({}, "one batch alone", "2 rows 1.00, 16 rows 0.75"),
        ({}, "loss", "0.8 at first, 0.4 after 7 steps; 0.693 of the best constant answer"),
        ({}, "clipped", "12%"),
    ],
)
def test_what_was_reached_is_told(changed, word, told):
    assert told in dict(Findings(measures=MEASURES | changed).figures)[word]


def test_what_was_not_measured_is_left_out():
    left = {"skill of simple models": {}, "skill on one batch by its rows": {}}
    found = Findings(measures=MEASURES | left | {"share of clipped steps": None})
    assert [word for word, _ in found.figures] == ["this network", "loss"]
    assert Findings().figures == []


def test_notes_of_other_rows_stand_apart(tmp_path):
    notes = (
        Finding("overfitting", "note", "validation rows", "half of them are training rows"),
        Finding("no_signal", "note", "column 3", "one value"),
    )
    found = Findings(notes, measures=MEASURES)
    titles = [(title, [note.cause for note in part]) for title, part in found.sections]
    assert titles == [
        ("Worth knowing, no fault:", ["no_signal"]),
        ("On rows it was not trained on:", ["overfitting"]),
    ]
    page = found.to_html(tmp_path / "why.html").read_text()
    for text in (str(found), page):
        places = [text.index(word) for word in ("one value", "On rows", "half of", "0.693")]
        assert places == sorted(places)


def test_the_page_of_the_diagnosis_has_every_threshold():
    page = Path("docs/diagnose.md").read_text()
    table = page.partition("## Every threshold")[2]
    rows = [f"| {name} | {value:g} | {why} |" for name, (value, why) in THRESHOLDS.items()]
    assert table.strip().splitlines()[2:] == rows
