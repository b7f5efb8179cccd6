"""Optimizers on a gradient that is drawn once: which leaves they move, and which way."""

import jax
import jax.numpy as jnp
import optax
import pytest
from networks import judged, learns, line_of, recipe

from nnref.diagnosis.program.at_start import AtStart
from nnref.diagnosis.program.updates import listed, optimizer, walk

HEAD = {"dense0": False, "dense1": True}  # which of its layers a mask lets through
PARTS = {"dense0": "freeze", "dense1": "train"}


def two_layers(**more):
    return recipe(learns, **more)


@pytest.mark.parametrize(
    ("chain", "cause"),
    [
        (optax.sgd(0.1), None),
        (optax.adam(1e-3), None),
        (optax.sgd(0.1, momentum=0.9), None),
        (optax.adamw(1e-3, weight_decay=0.1), None),
        (optax.adafactor(1e-3), None),
        (optax.adam(optax.linear_schedule(0.0, 0.1, 20)), None),
        (optax.sgd(-0.1), "gradient_ascent"),
        (optax.chain(optax.adam(1e-3), optax.scale(-1.0)), "gradient_ascent"),
        (optax.set_to_zero(), "parameters_not_updated"),
        (optax.sgd(0.0), "parameters_not_updated"),
        (optax.adam(1e-3, eps=0.0), "numerical_instability"),
    ],
)
def test_the_direction_of_the_updates(chain, cause):
    expected = [] if cause is None else [("fault", cause)]
    assert judged(optimizer, two_layers(optimizer=chain)) == expected


def test_a_mask_hands_on_raw_gradients_and_the_leaves_that_climb_have_names():
    masked = optax.masked(optax.adam(1e-3), HEAD)
    (finding,) = optimizer(AtStart(two_layers(optimizer=masked)))
    assert (finding.severity, finding.cause) == ("fault", "gradient_ascent")
    assert finding.where == "2 leaves: dense0.bias, dense0.kernel"
    assert "2 leaves: dense1.bias, dense1.kernel descends" in finding.evidence
    assert "set_to_zero" in finding.remedy


@pytest.mark.parametrize(
    "frozen",
    [
        optax.multi_transform({"train": optax.adam(1e-3), "freeze": optax.set_to_zero()}, PARTS),
        optax.chain(
            optax.masked(optax.adam(1e-3), HEAD),
            optax.masked(optax.set_to_zero(), {"dense0": True, "dense1": False}),
        ),
    ],
)
def test_leaves_that_are_frozen_on_purpose_do_not_climb(frozen):
    assert list(optimizer(AtStart(two_layers(optimizer=frozen)))) == []


def test_a_wrong_sign_in_one_part_is_no_mask():
    halves = optax.multi_transform({"train": optax.sgd(0.1), "freeze": optax.sgd(-0.1)}, PARTS)
    (finding,) = optimizer(AtStart(two_layers(optimizer=halves)))
    assert finding.where == "2 leaves: dense0.bias, dense0.kernel"
    assert "mask" not in finding.evidence


def rate_of(warmup, total=100):
    def rate(step):
        rises = step / warmup  # nothing by nothing
        return 1e-2 * jnp.clip(jnp.minimum(rises, (total - step) / total), 0.0, 1.0)

    return rate


def test_a_schedule_that_is_nan_is_followed_to_its_line():
    asked = two_layers(optimizer=optax.adamw(rate_of(jnp.float32(0))))
    (finding,) = optimizer(AtStart(asked))
    assert finding.cause == "numerical_instability"
    assert (
        finding.where.rpartition("/")[2]
        == f"test_updates.py:{line_of(__file__, 'nothing by nothing')}"
    )
    assert "schedule" in finding.evidence
    assert "step 1:" in finding.evidence
    assert "division by 0" in finding.evidence
    assert list(optimizer(AtStart(two_layers(optimizer=optax.adamw(rate_of(5.0)))))) == []


def test_a_schedule_that_becomes_nan_within_the_run_is_found_and_after_it_is_not():
    def rate_until(end):
        return lambda step: 1e-2 * jnp.sqrt(end - step)

    def said(end):
        asked = two_layers(rows=64, optimizer=optax.sgd(rate_until(end)))
        return [f.evidence for f in optimizer(AtStart(asked))]

    planned = walk(AtStart(two_layers(rows=64, optimizer=optax.sgd(0.1)))).planned
    (evidence,) = said(10.0)
    assert "step 12" in evidence
    assert said(float(planned)) == []


def test_an_epsilon_that_half_precision_rounds_away():
    asked = two_layers(optimizer=optax.adam(1e-3, eps=1e-8))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), asked.init(jax.random.key(0))[0])
    (finding,) = optimizer(AtStart(asked, half, {}))
    assert finding.cause == "numerical_instability"
    assert "float16" in finding.evidence


def test_updates_that_are_few_and_a_warm_up_that_outlasts_the_run():
    def said(chain):
        found = optimizer(AtStart(two_layers(rows=64, epochs=100, batch_size=64, optimizer=chain)))
        return [(finding.severity, finding.cause) for finding in found]

    assert said(optax.MultiSteps(optax.sgd(0.1), 2)) == []
    assert said(optax.MultiSteps(optax.sgd(0.1), 25)) == [("note", "undertrained")]
    assert said(optax.MultiSteps(optax.sgd(0.1), 101)) == [("fault", "parameters_not_updated")]
    assert said(optax.sgd(optax.linear_schedule(0.0, 0.1, 100))) == []
    late = optax.linear_schedule(0.0, 0.1, 800)
    assert said(optax.sgd(late)) == [("note", "learning_rate_too_low")]


def test_an_optimizer_that_holds_arrays_like_the_parameters_is_asked_with_whole_leaves():
    asked = two_layers()
    shares = jax.tree.map(jnp.ones_like, asked.init(jax.random.key(0))[0])

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, share: 0.1 * u * share, updates, shares), state

    climbs = optax.GradientTransformation(lambda params: (), update)
    found = optimizer(AtStart(two_layers(optimizer=climbs)))
    assert [finding.cause for finding in found] == ["gradient_ascent"]


def test_names_are_listed_up_to_four():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "2 leaves: a, b"
    assert listed(list("abcde")) == "5 leaves: a, b, c, d, …"
