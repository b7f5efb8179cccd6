"""All properties at once, as one line of a test."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import X, Y, task

import nnref
from nnref import checks


def test_a_healthy_network():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked = nnref.check(task())
    assert not checked.notes
    assert "gradients_match_finite_differences" in checked.held
    assert "too few" in checked.skipped["labels_belong_to_rows"]
    assert "key_matters" in checked.skipped
    assert len(str(checked).splitlines()) == len(checked.held) + len(checked.skipped)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"loss": lambda o, y: -((o - y) ** 2)}, "loss_fits_outputs"),
        ({"train": (np.where(X > 2, np.nan, X), Y)}, "data_summary"),
    ],
)
def test_a_fault_raises_with_the_text_of_its_finding(changes, name):
    with pytest.raises(AssertionError, match=f"({name}): "):
        nnref.check(task(**changes))
    with pytest.raises(AssertionError, match="all_parameters_train: "):
        nnref.check(task(), optimizer=optax.sgd(-0.1))


def test_what_is_odd_and_learns_is_warned_of_and_raises_only_where_one_asks_for_it():
    """A ReLU on the outputs, before targets that are hardly ever negative."""
    mostly = task(
        apply=lambda params, x: jax.nn.relu(x @ params["w"]),
        train=(X, np.where(Y > 0, Y, -1e-2 * np.abs(Y))),
    )
    trained = {"optimizer": optax.adam(0.1), "epochs": 60}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked = nnref.check(mostly, **trained)
    assert any("loss_fits_outputs: the outputs stay in" in str(each.message) for each in caught)
    assert "loss_fits_outputs" in checked.held
    assert "note: loss_fits_outputs" in str(checked)
    with pytest.raises(AssertionError, match="loss_fits_outputs"):
        nnref.check(mostly, strict=True, **trained)


def test_steps_may_look_ahead_unless_one_asks():
    x = np.random.default_rng(0).normal(size=(64, 6, 3)).astype(np.float32)
    backwards = task(
        init=lambda key: {"w": jax.random.normal(key, (3, 3))},
        apply=lambda params, x: jnp.cumsum((x @ params["w"])[:, ::-1], 1),
        train=(x, np.cumsum(x[:, ::-1], 1)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checked = nnref.check(backwards, optimizer=optax.adam(0.1), epochs=60)
    assert "unless" in checked.skipped["is_causal"]
    assert "is_causal" not in checked.notes


def test_zeros_may_count_unless_one_asks():
    x = np.where(np.arange(6) < 4, 1, 0)[:, None] * np.random.default_rng(0).normal(size=(64, 6, 2))
    mean = task(
        init=lambda key: {"w": jax.random.normal(key, (2, 1))},
        apply=lambda params, x: x.mean(1) @ params["w"],
        train=(x.astype(np.float32), x.mean(1)[:, :1].astype(np.float32)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checked = nnref.check(mean, optimizer=optax.adam(0.1), epochs=60)
    assert "unless" in checked.skipped["padding_is_ignored"]
    assert not {"is_causal", "padding_is_ignored"} & set(checked.notes)


def test_the_wing_is_a_door():
    assert nnref.checks is checks
