"""Models of Keras 3 on JAX, compiled or not."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import KEY, X, Y

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")

import nnref  # noqa: E402
from nnref.training.adapters.models import optax_of  # noqa: E402

# Of Keras itself: it reads its own learning rate in NumPy's old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def small(**compiled):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ]
    )
    if compiled:
        model.compile(**compiled)
    return model


def test_a_model_trains_evaluates_and_keeps_its_statistics():
    model = small()
    before = [np.array(v.value) for v in model.variables]
    functions = nnref.Task(model=model, loss=lambda o, y: o - y, train=(X, Y)).functions
    params, state = functions.init(KEY)
    assert "kernel" in " ".join(params)
    apply = jax.jit(functions.apply, static_argnums=4)
    outputs, after = apply(params, state, X, KEY, True)
    other, _ = apply(params, state, X, jax.random.key(8), True)
    assert 0.2 < float((outputs == 0).mean()) < 0.8
    assert ((outputs == 0) != (other == 0)).any()
    assert len(after) == len(state) == 2
    assert any((a != b).any() for a, b in zip(state, after, strict=True))
    evaluated, kept = apply(params, after, X, None, False)
    assert (evaluated != 0).all()
    for old, new in zip(after, kept, strict=True):
        np.testing.assert_array_equal(old, new)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.value)


def test_what_a_model_was_compiled_with_is_read_from_it():
    model = small(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    target = np.repeat(Y, 4, 1)
    model.fit(X, target, epochs=3, batch_size=10, verbose=0)
    task = nnref.Task(model=model, train=(X, target))
    assert task.training["epochs"] == 3
    assert task.training["batch_size"] == 10
    params, _ = task.functions.init(KEY)
    assert task.functions.loss(jnp.zeros((64, 4)), target) == pytest.approx(
        float((target**2).mean()), rel=1e-6
    )
    kernel = next(value for name, value in params.items() if "kernel" in name)
    penalty = task.functions.penalty(params)
    assert penalty == pytest.approx(float(0.5 * (kernel**2).sum()), rel=1e-6)


def test_losses_that_layers_add_are_told():
    layer = keras.layers.Dense(1, activity_regularizer="l2")
    model = keras.Sequential([keras.Input((3,)), layer])
    with pytest.warns(UserWarning, match="model: losses that its layers add"):
        nnref.Task(model=model, loss=lambda o, y: o - y, train=(X, Y))


def test_a_model_without_a_loss_wants_one():
    with pytest.raises(nnref.UserError, match="loss is missing"):
        nnref.Task(model=small(), train=(X, Y))


def test_an_optimizer_steps_as_it_does_in_keras():
    tree = {"b": jnp.ones(2), "a": jnp.arange(3.0)}
    gradient = {"b": jnp.full(2, 0.5), "a": jnp.array([1.0, -2.0, 0.0])}
    ours, theirs = optax_of(keras.optimizers.SGD(0.1, momentum=0.9)), optax.sgd(0.1, 0.9)
    mine, other = ours.init(tree), theirs.init(tree)
    for _ in range(3):
        update, mine = jax.jit(ours.update)(gradient, mine, tree)
        wanted, other = theirs.update(gradient, other, tree)
        for one, two in zip(*map(jax.tree.leaves, (update, wanted)), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)  # a difference of weights


def test_several_inputs_go_in_as_keras_takes_them():
    left, right = keras.Input((1,)), keras.Input((2,))
    model = keras.Model([left, right], keras.layers.Concatenate()([right, left]))
    task = nnref.Task(model=model, loss=lambda o, y: o - y, train=([X[:, :1], X[:, 1:]], Y))
    outputs, _ = task.functions.apply(*task.functions.init(KEY), task.train.x, None, False)
    np.testing.assert_array_equal(outputs, X[:, [1, 2, 0]])


def test_the_metric_that_is_1_for_a_perfect_answer_is_read():
    x, y = jnp.asarray([[0.0], [1.0], [2.0], [4.0]]), jnp.asarray([0.0, 1.0, 1.0, 0.0])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    for metrics, perfect, off in (
        (["mae", "accuracy"], 1.0, 0.5),
        ([keras.metrics.R2Score()], 1.0, 0.0),
    ):
        model.compile(loss="mse", metrics=metrics)
        metric = nnref.Task(model=model, train=(x, y)).training["metric"]
        assert float(metric(y[:, None], y[:, None])) == perfect
        assert float(metric(jnp.full((4, 1), 0.5), y[:, None])) == pytest.approx(off, abs=1e-6)
    model.compile(loss="mse", metrics=["mae"])
    assert "metric" not in nnref.Task(model=model, train=(x, y)).training


def test_an_accuracy_of_values_is_no_fault_of_the_training():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5])[:, None].astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    for metrics, causes in ((["accuracy"], ["metric_mismatch"]), ([keras.metrics.R2Score()], [])):
        model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse", metrics=metrics)
        task = nnref.Task(model=model, train=(x[:150], y[:150]), valid=(x[150:], y[150:]))
        assert [found.cause for found in nnref.diagnose(task).faults] == causes


@pytest.mark.parametrize("moded", [True, False])
def test_a_model_of_a_class_is_called_with_the_arguments_that_it_has(moded):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.last = keras.layers.Dropout(0.5), keras.layers.Dense(1)

        if moded:

            def call(self, x, training=False):
                return self.last(self.drop(x, training=training))
        else:

            def call(self, x):
                return self.last(self.drop(x))

    functions = nnref.Task(model=Net(), loss=lambda o, y: ((o - y) ** 2).mean(), train=(X, Y))
    params, state = functions.functions.init(KEY)
    one, other = (
        functions.functions.apply(params, state, X, jax.random.key(seed), True)[0]
        for seed in (0, 1)
    )
    assert np.array_equal(one, other) == (not moded)
    assert functions.functions.modes == moded


def test_a_model_of_two_inputs_and_two_outputs_is_trained_by_the_sum_of_its_losses():
    random = np.random.default_rng(0)
    x = {name: random.normal(size=(200, 2)).astype(np.float32) for name in ("a", "b")}
    y = {"p": (x["a"][:, :1] > 0).astype(np.float32), "q": 2 * x["b"][:, :1]}
    inputs = {name: keras.Input((2,), name=name) for name in x}
    h = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()(list(inputs.values())))
    heads = {"p": keras.layers.Dense(1, "sigmoid", name="p"), "q": keras.layers.Dense(1, name="q")}
    model = keras.Model(inputs, {name: head(h) for name, head in heads.items()})
    model.compile("adam", {"p": "binary_crossentropy", "q": "mse"})
    task = nnref.Task(model=model, train=(x, y))
    outputs = {"p": np.full((200, 1), 0.5, np.float32), "q": np.zeros((200, 1), np.float32)}
    targets = jnp.asarray(task.train.y)
    for program in (lambda o, y: task.functions.loss(o, y), lambda o, y: task.functions.loss(o, y)):
        loss = jax.jit(program)(outputs, targets)  # another program, with the same variables
    assert float(loss) == pytest.approx(np.log(2) + np.mean(y["q"] ** 2), rel=1e-4)
    assert not nnref.diagnose(task, epochs=3, effort=0.1).mistakes
