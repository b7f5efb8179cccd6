import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nnref
from nnref import UserError

X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def network(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["output"]["kernel"] + params["output"]["bias"]


def mean_squared_error(params):
    return jnp.mean((network(params, X) - Y) ** 2)


def drawn():
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(first, (3, 4)) / 2,
        "output": {"kernel": jax.random.normal(second, (4, 1)) / 2, "bias": jnp.zeros(1)},
    }


def loop(optimizer, steps=60, loss=mean_squared_error, scanned=True, applied=optax.apply_updates):
    """Records of a training loop as a user writes it."""
    watch = nnref.watch()
    params = drawn()
    start = watch.init(params)

    def step(carry, _):
        params, opt_state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        record = watch.measure(start, params, value, gradients, updates)
        return (applied(params, updates), opt_state), record

    carry = params, optimizer.init(params)
    if scanned:
        return jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(carry)[1]
    records, jitted = [], jax.jit(step)
    for _ in range(steps):
        carry, record = jitted(carry, None)
        records.append(record)
    return records


def causes(records):
    return [(finding.severity, finding.cause) for finding in nnref.diagnose_history(records)]


def test_records_are_what_numpy_computes():
    records = loop(optax.sgd(0.1), steps=3, scanned=False)
    params = drawn()
    begun = params
    for record in records:
        loss, slope = jax.value_and_grad(mean_squared_error)(params)
        np.testing.assert_allclose(record.loss, loss, rtol=1e-5)
        for path, pick in (("hidden", lambda tree: tree["hidden"]),) + tuple(
            (f"output.{name}", lambda tree, name=name: tree["output"][name])
            for name in ("kernel", "bias")
        ):
            norm = np.linalg.norm(np.asarray(pick(slope), np.float64))
            np.testing.assert_allclose(record.gradient[path], norm, rtol=1e-5)
            np.testing.assert_allclose(record.update[path], 0.1 * norm, rtol=1e-5)
            weight = np.asarray(pick(params), np.float64)
            np.testing.assert_allclose(record.weight[path], np.linalg.norm(weight), rtol=1e-5)
            moved = np.linalg.norm(weight - np.asarray(pick(begun), np.float64))
            np.testing.assert_allclose(record.moved[path], moved, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(record.update_gradient_cosine, -1, rtol=1e-5)
        assert record.finite.all()
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)


def test_a_scan_and_a_python_loop_record_the_same():
    scanned = nnref.watch().summarize(loop(optax.adam(0.05), 25))
    appended = nnref.watch().summarize(loop(optax.adam(0.05), 25, scanned=False))
    for one, other in zip(jax.tree.leaves(scanned), jax.tree.leaves(appended), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    assert scanned["steps"] == 25
    assert scanned["first_nonfinite"] is None
    assert set(scanned["moved_to_weight"]) == {"hidden", "output.kernel", "output.bias"}


def test_nothing_is_found_in_a_run_that_learns():
    assert causes(loop(optax.adam(0.05), 400)) == []


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (loop(optax.sgd(50.0)), ("fault", "learning_rate_too_high")),
        (loop(optax.sgd(1e-6)), ("fault", "learning_rate_too_low")),
        (loop(optax.sgd(-0.01)), ("fault", "gradient_ascent")),
        (
            loop(optax.sgd(0.1), applied=lambda params, updates: params),
            ("fault", "parameters_not_updated"),
        ),
        (
            loop(optax.sgd(0.1), loss=lambda params: jnp.round(params["hidden"]).sum()),
            ("fault", "vanishing_gradients"),
        ),
        (
            loop(optax.sgd(1e-3), loss=lambda params: jnp.sqrt(0 * params["hidden"]).sum()),
            ("fault", "numerical_instability"),
        ),
        (loop(optax.sgd(1e-3), 40), ("note", "undertrained")),
    ],
)
def test_what_is_wrong_in_a_loop_is_named(records, found):
    assert causes(records)[:1] == [found]


def test_what_is_a_fault_is_no_note_beside_it():
    found = causes(loop(optax.sgd(1e-6)))
    assert [severity for severity, cause in found if cause == "learning_rate_too_low"] == ["fault"]


def test_one_layer_that_stands_still_is_a_note():
    frozen = optax.multi_transform(
        {"moves": optax.adam(0.05), "stays": optax.set_to_zero()},
        {"hidden": "stays", "output": "moves"},
    )
    found = [f for f in nnref.diagnose_history(loop(frozen, 400)) if f.where == "hidden"]
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
    assert [finding.cause for finding in nnref.diagnose_history(history)] == found


def test_what_plain_losses_cannot_tell_is_said():
    found = nnref.diagnose_history(list(FALLING))
    assert any("nnref.watch" in line for line in found.impossible)
    assert any("validation" in line for line in found.impossible)
    assert len(found.checked) == 4


@pytest.mark.parametrize("history", [[], {"accuracy": [1.0]}, object(), ["a"]])
def test_what_is_no_history_is_refused(history):
    with pytest.raises(UserError, match="history"):
        nnref.diagnose_history(history)
