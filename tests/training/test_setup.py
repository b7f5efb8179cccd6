"""A task from an experiment: the parts of a run, put together and switched off again."""

import json

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref.experiment.experiment import parse
from nnref.internals import bodies
from nnref.parts.metrics import Metric
from nnref.studies.run import run
from nnref.training.setup import Setup, from_experiment

CLASSES = {
    "data": {"name": "spirals", "points": 20, "valid": 0.3, "test": 0.2},
    "model": {"name": "mlp", "hidden": [5]},
    "loss": "softmax_cross_entropy",
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "batch_size": 7,
    "epochs": 4,
}


def experiment(**changes):
    return parse(json.dumps(CLASSES | changes))


def history(**changes):
    return run(experiment(**changes), logbook=None).history


@pytest.fixture(scope="module")
def plain():
    return history()


@pytest.mark.parametrize(
    "term",
    [
        {"l1": 1e-2},
        {"l2": 1e-2},
        {"weight_decay": 0.1},
        {"dropout": 0.3},
        {"normalization": "batch"},
        {"normalization": "layer"},
        {"input_noise": 0.3},
        {"label_smoothing": 0.2},
        {"max_norm": 0.5},
        {"average": 0.9},
    ],
    ids=lambda term: " ".join(map(str, *term.items())),
)
def test_each_term_of_regularization_acts_and_switches_off(plain, term):
    regularized = experiment(regularization=term)
    with_it = run(regularized, logbook=None).history
    assert np.isfinite(with_it["valid_loss"]).all()
    assert np.abs(with_it["valid_loss"][:, -1] - plain["valid_loss"][:, -1]).max() > 1e-4
    off = regularized.replaced({"regularization": "off"})
    assert off == experiment()
    for name, values in run(off, logbook=None).history.items():
        np.testing.assert_array_equal(values, plain[name])


def test_an_average_changes_what_is_evaluated_and_not_what_is_trained(plain):
    averaged = history(regularization={"average": 0.9})
    np.testing.assert_allclose(averaged["train_loss"], plain["train_loss"], rtol=1e-6)
    assert not np.allclose(averaged["valid_loss"][:, 1:], plain["valid_loss"][:, 1:], rtol=1e-3)


def test_smoothing_does_not_enter_the_losses_that_are_told():
    """With a rate near 0 both runs measure the same network."""
    still = {"name": "sgd", "learning_rate": 1e-12}
    smooth = history(regularization={"label_smoothing": 0.5}, optimizer=still)
    plain = history(optimizer=still)
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(smooth[name], plain[name], rtol=1e-5)


def test_validation_sees_neither_dropout_nor_noise():
    """With a rate near 0 both runs validate the same network."""
    still = {"name": "sgd", "learning_rate": 1e-12}
    noisy = history(regularization={"dropout": 0.5, "input_noise": 2.0}, optimizer=still)
    plain = history(optimizer=still)
    np.testing.assert_allclose(noisy["valid_loss"], plain["valid_loss"], rtol=1e-5)
    assert not np.allclose(noisy["train_loss"][:, 1:], plain["train_loss"][:, 1:], rtol=1e-2)


@pytest.mark.parametrize("terms", [{"input_noise": 5.0}, {"dropout": 0.5}], ids=str)
def test_what_is_random_follows_the_key_and_is_off_in_evaluation(terms):
    task, _, _ = from_experiment(experiment(regularization=terms))
    functions = task.functions
    params, state = functions.init(jax.random.key(0))
    x = jnp.asarray(task.train.x[:4])
    first, _ = functions.apply(params, state, x, None, False)
    again, _ = functions.apply(params, state, x, None, False)
    np.testing.assert_array_equal(first, again)
    keys = jax.random.split(jax.random.key(1))
    drawn = [functions.apply(params, state, x, key, True)[0] for key in keys]
    assert not np.allclose(drawn[0], drawn[1])
    same, _ = functions.apply(params, state, x, keys[0], True)
    np.testing.assert_array_equal(drawn[0], same)


def test_steps_of_an_epoch_draw_different_dropout():
    """Two batches with the same rows would otherwise drop the same units."""
    from nnref.training import train

    task, setup, _ = from_experiment(experiment(regularization={"dropout": 0.5}))
    functions, _ = setup(experiment().hyperparameters | {"regularization.dropout": 0.5})
    keys = []

    def apply(params, model_state, x, key, training):
        jax.debug.callback(lambda data: keys.append(tuple(data.tolist())), jax.random.key_data(key))
        return functions.apply(params, model_state, x, key, training)

    recorded = functions._replace(apply=apply)
    optimizer = optax.sgd(0.1)
    params, model_state = functions.init(jax.random.key(0))
    state = train.TrainState(
        params, model_state, optimizer.init(params), jax.random.key(1), None, None, None, None
    )
    data = jax.tree.map(jnp.asarray, tuple(task.train))
    for epoch in (1, 2):
        state, _ = train.train_epoch(recorded, optimizer, state, data, jnp.int32(epoch), 7)
    jax.effects_barrier()
    assert len(keys) == 2 * -(-len(task.train.x) // 7)
    assert len(set(keys)) == len(keys)


def test_batch_statistics_move_with_training_and_serve_evaluation():
    """Dropped, they would stay at mean 0 and variance 1, and evaluation at chance."""
    found = run(experiment(regularization={"normalization": "batch"}), logbook=None)
    means = [m for path, m in jax.tree.leaves_with_path(found.model_state) if "mean" in str(path)]
    assert means
    assert all(float(jnp.abs(mean).max()) > 1e-3 for mean in means)
    params, state = (
        jax.tree.map(lambda leaf: leaf[0], tree) for tree in (found.params, found.model_state)
    )
    outputs, _ = found.task.functions.apply(params, state, found.task.valid.x, None, False)
    loss = float(found.task.functions.loss(outputs, found.task.valid.y))
    assert loss == pytest.approx(found.records[0].final("valid_loss"), rel=1e-5)


def test_the_share_of_clipped_steps_is_recorded():
    loose = history(clipping={"name": "global_norm", "threshold": 1e6})
    tight = history(clipping={"name": "global_norm", "threshold": 1e-6})
    assert np.isnan(loose["clipped"][:, 0]).all(), "no step before the first"
    assert (loose["clipped"][:, 1:] == 0).all()
    assert (tight["clipped"][:, 1:] == 1).all()
    assert "clipped" not in history()


def test_reduce_on_plateau_needs_validation_data():
    data = {"name": "spirals", "points": 20, "valid": 0, "test": 0}
    with pytest.raises(nnref.UserError, match="reduce_on_plateau watches the validation loss"):
        from_experiment(experiment(data=data, schedule="reduce_on_plateau"))


def test_reduce_on_plateau_lowers_the_rate_when_validation_stalls():
    """Hearing no improvement it may count, it goes down to a rate that moves nothing."""
    rule = {"name": "reduce_on_plateau", "patience_evaluations": 1, "factor": 1e-6}
    stalled = history(schedule=rule | {"threshold": 1e9}, epochs=6)["valid_loss"][0]
    assert np.ptp(stalled[:3]) > 1e-4
    np.testing.assert_allclose(stalled[4:], stalled[4], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": {"name": "sgd", "dampening": 0.1, "nesterov": True}}, "no dampening"),
        ({"optimizer": "adamw", "regularization": {"weight_decay": 0.1}}, "keep one"),
        ({"schedule": "warmup"}, "warmup"),
    ],
)
def test_what_contradicts_itself_is_refused_before_training(changes, said):
    with pytest.raises(nnref.UserError, match=said):
        from_experiment(experiment(**changes))


def test_label_smoothing_needs_a_loss_of_classes():
    with pytest.raises(nnref.UserError, match="squared_error has no classes to smooth"):
        from_experiment(experiment(loss="squared_error", regularization={"label_smoothing": 0.1}))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("sigmoid_cross_entropy", "answers yes or no, the data have 3 classes"),
        ("hinge", "tells two classes apart, the data have 3"),
        ("poisson", "takes counts"),
    ],
)
def test_a_class_count_that_does_not_fit_the_loss(loss, said):
    with pytest.raises(nnref.UserError, match=said):
        from_experiment(experiment(loss=loss))


def test_patience_keeps_the_network_of_the_best_evaluation():
    """A rate that is too high spoils what was found early."""
    changes = {
        "optimizer": {"name": "adam", "learning_rate": 0.2},
        "epochs": 30,
        "seeds": [0, 1, 2],
    }
    found = run(experiment(stop={"patience": 4}, **changes), logbook=None)
    functions = found.task.functions
    assert any(record.ending.startswith("stopped") for record in found.records)
    for place, record in enumerate(found.records):
        params = jax.tree.map(lambda leaf, i=place: leaf[i], found.params)
        outputs, _ = functions.apply(params, {}, found.task.valid.x, None, False)
        kept = float(functions.loss(outputs, found.task.valid.y))
        assert kept == pytest.approx(record.best("valid_loss"), rel=1e-5)
        assert record.final("valid_loss") == pytest.approx(kept, rel=1e-5)


def brier_score():
    """The mean squared error of the probability of class 1 (Brier 1950): 0 is perfect."""

    def count(outputs, targets):
        return jnp.sum(jnp.square(jax.nn.sigmoid(outputs) - targets)), jnp.float32(outputs.size)

    return Metric(count, lambda sums: sums[0] / sums[1], larger_is_better=False)


@pytest.mark.parametrize("bound", [{}, {"at_least": 2.0}])
def test_patience_keeps_the_lowest_value_of_a_metric_that_says_so(monkeypatch, bound):
    """The name of a Brier score does not tell that less of it is better; the metric does."""
    monkeypatch.setattr(Setup, "metrics", lambda self: {"brier_score": brier_score()})
    xor = experiment(
        data="xor",
        model={"name": "mlp", "hidden": [4]},
        loss="sigmoid_cross_entropy",
        optimizer={"name": "sgd", "learning_rate": 0.5, "momentum": 0.9},
        batch_size=4,
        epochs=200,
        stop={"metric": "valid_brier_score", "patience": 60, **bound},
    )
    found = run(xor, logbook=None)
    record, task = found.records[0], found.task
    lowest = float(np.nanmin(record.history["valid_brier_score"]))
    assert record.history["valid_brier_score"][0] > 0.2
    assert lowest < 0.01
    assert record.best("valid_brier_score", task.functions.metrics) == pytest.approx(lowest)
    assert record.final("valid_brier_score") == pytest.approx(lowest)
    params = jax.tree.map(lambda leaf: leaf[0], found.params)
    outputs, _ = task.functions.apply(params, {}, task.valid.x, None, False)
    kept = jnp.mean(jnp.square(jax.nn.sigmoid(outputs) - task.valid.y))
    assert float(kept) == pytest.approx(lowest, rel=1e-4, abs=1e-7)


def test_metrics_can_be_chosen():
    names = ["accuracy", "balanced_accuracy", {"name": "top_k", "k": 2}, "perplexity"]
    chosen = history(metrics=names)
    told = ("loss", "accuracy", "balanced_accuracy", "top_k", "perplexity")
    assert {n for n in chosen if n.startswith("valid_")} == {f"valid_{name}" for name in told}
    np.testing.assert_allclose(chosen["valid_perplexity"], np.exp(chosen["valid_loss"]), rtol=1e-5)
    assert set(history(metrics=[])) == {"train_loss", "valid_loss"}


def test_lsuv_starts_with_unit_variance_on_the_training_data():
    model = {"name": "mlp", "hidden": [5], "kernel_initializer": "lsuv", "activation": "linear"}
    found = run(
        experiment(model=model, optimizer={"name": "sgd", "learning_rate": 1e-12}), logbook=None
    )
    params = jax.tree.map(lambda leaf: leaf[0], found.params)
    outputs, _ = found.task.functions.apply(params, {}, found.task.train.x, None, False)
    assert float(jnp.std(outputs)) == pytest.approx(1.0, rel=1e-4)


def test_an_order_that_is_not_shuffled_is_that_of_the_rows():
    plain, shuffled = history(shuffle=False), history()
    assert not np.allclose(plain["train_loss"][:, 1:], shuffled["train_loss"][:, 1:])
    whole = {"batch_size": 1000}
    for name, values in history(shuffle=False, **whole).items():
        np.testing.assert_array_equal(values, history(**whole)[name])


# --- half precision -------------------------------------------------------------------------------

IN_BF16 = {
    "mlp": {"regularization": {"normalization": "batch", "dropout": 0.1}},
    "layer": {"regularization": {"normalization": "layer"}},
    "convnet": {
        "data": {"name": "digits", "images": True},
        "model": {"name": "convnet", "channels": [3], "hidden": [5]},
    },
    "lstm": {
        "data": {"name": "adding", "examples": 30, "steps": 5},
        "model": {"name": "recurrent", "cell": "lstm", "units": 4},
        "loss": "squared_error",
    },
    "gru": {
        "data": {"name": "adding", "examples": 28, "steps": 5, "valid": 0.25},
        "model": {"name": "recurrent", "cell": "gru", "units": 4, "streams": 7},
        "loss": "squared_error",
        "shuffle": False,
    },
}


def gradient_of(made, precision):
    """The program of a gradient, its arguments, and the model's state after the batch."""
    task, _, _ = from_experiment(made.replaced({"precision": precision}))
    params, state = task.functions.init(jax.random.key(0))
    x, y = task.train.x[:7], task.train.y[:7]

    def loss(params):
        outputs, after = task.functions.apply(params, state, x, jax.random.key(1), True)
        assert outputs.dtype == jnp.float32
        return task.functions.loss(outputs, y), after

    return jax.value_and_grad(loss, has_aux=True), params, state


def products_in(jaxpr):
    """The types that all products of a program have, those of its inner programs too."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.add(equation.outvars[0].aval.dtype)
        for inner in bodies(equation):
            found |= products_in(inner.jaxpr)
    return found


@pytest.mark.parametrize("kind", IN_BF16)
def test_bf16_computes_every_product_in_it_and_keeps_what_is_summed_up_in_float32(kind):
    made = experiment(**IN_BF16[kind])
    program, params, state = gradient_of(made, "bf16")
    assert products_in(jax.make_jaxpr(program)(params).jaxpr) == {jnp.dtype(jnp.bfloat16)}
    (loss, after), gradient = program(params)
    for leaf in jax.tree.leaves((after, gradient)):
        assert leaf.dtype == jnp.float32 or not jnp.issubdtype(leaf.dtype, jnp.floating)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    whole, _, _ = gradient_of(made, "float32")
    (expected, _), gradient_expected = whole(params)
    assert loss != expected
    np.testing.assert_allclose(loss, expected, rtol=0.03)
    one, other = (jax.flatten_util.ravel_pytree(tree)[0] for tree in (gradient, gradient_expected))
    assert jnp.linalg.norm(one - other) < 0.05 * jnp.linalg.norm(other)


def test_bf16_learns_and_is_another_experiment():
    made = experiment(
        epochs=200, precision="bf16", optimizer={"name": "adam", "learning_rate": 0.1}
    )
    whole = made.replaced({"precision": "float32"})
    assert made.identity != whole.identity
    ends = [run(each, logbook=None).history["train_loss"][0, -1] for each in (made, whole)]
    assert max(ends) < 0.35
    assert ends[0] != ends[1]


def test_bf16_keeps_the_numbers_of_categories_apart(tmp_path):
    path = tmp_path / "towns.csv"
    rows = [f"town {town},{town + row / 20},{town % 7}" for town in range(300) for row in range(20)]
    path.write_text("town,size,y\n" + "\n".join(rows))
    made = experiment(
        data={"name": "file", "path": str(path), "target": "y"},
        loss="squared_error",
        precision="bf16",
    )
    task, _, _ = from_experiment(made)
    params, state = task.functions.init(jax.random.key(0))
    numbers = np.arange(256.0, 264.0)[:, None]  # bfloat16 has every other one
    outputs, _ = task.functions.apply(params, state, np.pad(numbers, ((0, 0), (0, 1))), None, False)
    assert len(np.unique(outputs[:, 0])) == len(numbers)
