import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnref import UserError
from nnref.diagnosis.run.history import Steps, diagnosed, history_of, measured

X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def mean_squared_error(params):
    outputs = jnp.tanh(X @ params["hidden"]) @ params["output"]["kernel"] + params["output"]["bias"]
    return jnp.mean((outputs - Y) ** 2)


def drawn():
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(first, (3, 4)) / 2,
        "output": {"kernel": jax.random.normal(second, (4, 1)) / 2, "bias": jnp.zeros(1)},
    }


def trained(optimizer, steps=60, loss=mean_squared_error):
    """The history of a training loop, with every step measured."""

    def step(carry, _):
        params, opt_state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        record = value, measured(value, gradients, updates)
        return (optax.apply_updates(params, updates), opt_state), record

    params = drawn()
    carry = params, optimizer.init(params)
    losses, records = jax.lax.scan(step, carry, length=steps)[1]
    return history_of(losses, jax.tree.map(np.asarray, records))


def causes(history):
    return [(finding.severity, finding.cause) for finding in diagnosed(history)]


def test_steps_are_what_numpy_computes():
    history = trained(optax.sgd(0.1), steps=3)
    assert isinstance(history.steps, Steps)
    params = drawn()
    for number in range(3):
        loss, slope = jax.value_and_grad(mean_squared_error)(params)
        np.testing.assert_allclose(history.loss[number], loss, rtol=1e-5)
        for path, leaf in (("hidden", slope["hidden"]), ("output.bias", slope["output"]["bias"])):
            norm = np.linalg.norm(np.asarray(leaf, np.float64))
            np.testing.assert_allclose(history.steps.gradient[path][number], norm, rtol=1e-5)
            np.testing.assert_allclose(history.steps.update[path][number], 0.1 * norm, rtol=1e-5)
        np.testing.assert_allclose(history.steps.update_gradient_cosine[number], -1, rtol=1e-5)
        assert history.steps.finite[number].all()
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
    assert set(diagnosed(history).measures["update"]) == set(history.steps.update)


def test_nothing_is_found_in_a_run_that_learns():
    assert causes(trained(optax.adam(0.05), 400)) == []


@pytest.mark.parametrize(
    ("history", "found"),
    [
        (trained(optax.sgd(50.0)), ("fault", "learning_rate_too_high")),
        (trained(optax.sgd(-0.01)), ("fault", "gradient_ascent")),
        (trained(optax.set_to_zero()), ("fault", "parameters_not_updated")),
        (
            trained(optax.sgd(0.1), loss=lambda params: jnp.round(params["hidden"]).sum()),
            ("fault", "vanishing_gradients"),
        ),
        (
            trained(optax.sgd(1e-3), loss=lambda params: jnp.sqrt(0 * params["hidden"]).sum()),
            ("fault", "numerical_instability"),
        ),
        (trained(optax.sgd(1e-3), 40), ("note", "undertrained")),
    ],
)
def test_what_is_wrong_in_a_run_is_named(history, found):
    assert causes(history)[:1] == [found]


def test_one_layer_that_stands_still_is_a_note():
    frozen = optax.multi_transform(
        {"moves": optax.adam(0.05), "stays": optax.set_to_zero()},
        {"hidden": "stays", "output": "moves"},
    )
    found = [f for f in diagnosed(trained(frozen, 400)) if f.where == "hidden"]
    assert [(f.severity, f.cause) for f in found] == [("note", "parameters_not_updated")]


FALLING = np.exp(-np.linspace(0, 8, 60))


@pytest.mark.parametrize(
    ("history", "found"),
    [
        (list(FALLING), []),
        ({"loss": FALLING, "valid_loss": FALLING + 0.01}, []),
        ({"loss": FALLING, "valid_loss": 0.5 + np.linspace(-1, 1, 60) ** 2}, ["overfitting"]),
        (list(np.linspace(2, 1, 60)), ["undertrained"]),
        (list(np.geomspace(1, 100, 60)), ["learning_rate_too_high"]),
        ([1.0, 0.9, 80.0, np.inf, np.nan], ["learning_rate_too_high"]),
        ([1.0, 0.9, 0.8, np.nan, np.nan], ["numerical_instability"]),
        ([1.0, 0.5], []),
        (list(2.3 - 0.02 * np.linspace(0, 1, 60) ** 0.1), ["learning_rate_too_low"]),
        (list(1 + 0.5 * (-1.0) ** np.arange(60)), ["learning_rate_too_high"]),
        (list(np.random.default_rng(1).uniform(0.5, 1.5, 60)), []),
        (list(FALLING + 0.01 * (-1.0) ** np.arange(60)), []),
        (list(2 * FALLING + np.random.default_rng(0).uniform(0, 0.5, 60)), []),
    ],
)
def test_plain_losses(history, found):
    assert [finding.cause for finding in diagnosed(history_of(history))] == found


def test_what_plain_losses_cannot_tell_is_said():
    found = diagnosed(history_of(list(FALLING)))
    assert any("gradients and updates" in line for line in found.impossible)
    assert any("validation" in line for line in found.impossible)
    assert len(found.checked) == 4


@pytest.mark.parametrize("history", [[], {"accuracy": [1.0]}, object(), ["a"]])
def test_what_is_no_history_is_refused(history):
    with pytest.raises(UserError, match="history"):
        diagnosed(history_of(history))
