"""What is tried with one thing changed, and what a network learns of one batch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import X, linear, recipe_of, task

from nnref.diagnosis.judge.exchanges import Exchanges
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements
from nnref.diagnosis.recipe import Recipe
from nnref.diagnosis.run.changes import Change, End


def tried(recipe):
    return Interventions(Measurements(recipe))


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


def test_trials_have_an_order_where_no_step_was_finite():
    def apply(params, x):
        return x @ params["w"] / 0.0

    made = tried(recipe_of(task(apply=apply)))
    assert made.likeliest(["rate x10", "rate x0.1"])[0] == "rate x0.1"


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
        replace(linear(), optimizer=optax.chain(strong, optax.sgd(0.02)), epochs=40)
    )
    assert measured.decay == pytest.approx([0.1])
    assert measured.trained.skill < 0.6
    assert Interventions(measured).trials["decay"].skill > 0.99
    for optimizer in (optax.chain(mild, optax.sgd(0.02)), optax.adam(0.1)):
        measured = Measurements(replace(linear(), optimizer=optimizer))
        assert measured.decay == ()


def test_a_decay_behind_the_rate_makes_the_weights_grow():
    behind = optax.chain(optax.sgd(0.02), optax.add_decayed_weights(0.01))
    measured = Measurements(replace(linear(), optimizer=behind))
    assert measured.growth == pytest.approx(0.01)
    assert measured.decay == ()
    slight = optax.chain(optax.sgd(0.02), optax.add_decayed_weights(1e-6))
    for optimizer in (slight, optax.adamw(0.02, weight_decay=0.5), optax.sgd(0.02)):
        assert Measurements(replace(linear(), optimizer=optimizer)).growth == 0


def test_a_trial_is_made_again_from_two_other_seeds():
    """A rate that is far too small: none of the runs learns, and each does at ten times it."""

    def init(key):
        return {"w": jax.random.normal(key, (3, 1))}, {}

    made = tried(replace(linear(), init=init, optimizer=optax.sgd(2e-3), epochs=10))
    pairs = made.repeated(made.trials["rate x10"])
    assert len(pairs) == 2
    for before, after in pairs:
        assert after.skill > before.skill + 0.2
        assert after.losses[-1] < before.losses[-1] < before.losses[0]
        assert len(before.losses) == len(after.losses) == 10
    assert pairs[0][0].skill != pairs[1][0].skill
    again = made.repeated(made.trials["initialization"])
    assert len({after.skill for _, after in again}) == 2
    assert [own.skill for own, _ in again] == [own.skill for own, _ in pairs]


def test_a_longer_run_and_an_exchange_are_made_again_from_other_seeds():
    """The run of such a pair is the run of that seed, whatever it is held against."""

    def init(key):
        return {"w": jax.random.normal(key, (3, 1))}, {}

    made = tried(replace(linear(), init=init, optimizer=optax.sgd(2e-3), epochs=10))
    exchanged = Exchanges(made).optimizer
    pairs = made.repeated(made.trials["rate x10"])
    for trial in (made.trials["longer"], exchanged["optimizer x10"]):
        again = made.repeated(trial)
        for (own, after), (known, _) in zip(again, pairs, strict=True):
            assert own.skill == pytest.approx(known.skill, abs=1e-5)
            assert after.skill > own.skill + 0.05
        if trial.name == "longer":
            assert [len(after.losses) for _, after in again] == [50, 50]


@pytest.mark.parametrize(
    ("optimizer", "tried_without"),
    [
        (optax.chain(optax.add_decayed_weights(5.0), optax.adam(0.1)), True),
        (optax.chain(optax.add_decayed_weights(1e-6), optax.adam(0.05)), False),
        (optax.adam(1.0), False),
        (optax.lamb(0.05, weight_decay=5.0), False),  # its trust ratio is of the weights, too
    ],
    ids=["strong", "mild", "none", "a trust ratio"],
)
def test_an_l2_penalty_in_the_gradient_of_adam_is_tried_without(optimizer, tried_without):
    """It is no share of the weights that a step takes away, whatever the gradient."""

    def init(key):
        return {"w": jnp.array([[1.0], [2.0], [0.5]])}, {}

    measured = Measurements(replace(linear(), init=init, optimizer=optimizer, epochs=40))
    made = Interventions(measured)
    assert made.outweighing == tried_without
    if tried_without:
        assert measured.decay == ()
        assert measured.added.coefficient == pytest.approx(5.0)
        assert made.trials["decay"].skill > 0.99 > measured.trained.skill + 0.3


def of_times(loss):
    """Months until an event, and whether it was seen: targets far from unit scale."""
    random = np.random.default_rng(0)
    months = random.exponential(30, 64) * np.exp(X[:, 0])
    y = np.stack([months, random.uniform(size=64) < 0.6], 1).astype(np.float32)
    return recipe_of(
        task(
            init=lambda key: {"w": 0.1 * jax.random.normal(key, (3, 1))},
            loss=loss,
            train=(X, y),
        )
    )


def cox(risk, y):
    order = jnp.argsort(-y[:, 0])
    risk, event = risk[order, 0], y[order, 1]
    return jnp.sum((jax.lax.cumlogsumexp(risk) - risk) * event) / jnp.maximum(event.sum(), 1)


def seen_times(rate, y):
    """The times themselves, of rows whose event was seen."""
    return jnp.mean(y[:, 1] * (rate[:, 0] - y[:, 0]) ** 2)


@pytest.mark.parametrize(("loss", "scaled"), [(cox, False), (seen_times, True)])
def test_targets_are_not_standardized_for_a_loss_that_knows_their_order_alone(loss, scaled):
    _, targets, changes = tried(of_times(loss)).planned()
    assert ("targets" in changes) == scaled
    if scaled:
        np.testing.assert_allclose(targets[1][:, 0].std(), 1, rtol=1e-3)
        np.testing.assert_array_equal(targets[1][:, 1], targets[0][:, 1])  # flags stay


def test_a_skill_by_the_loss_is_held_against_a_constant_answer_to_the_same_targets():
    """A loss of the scale of its targets is small for small targets, whatever is answered."""
    made = tried(of_times(seen_times))
    assert not made.measurements.skill.fits
    _, targets, _ = made.planned()
    constant = {"w": jnp.zeros((3, 1))}, {}
    end = End(constant, np.zeros(1))
    for at in (0, 1):
        rows = made.recipe.train[0], targets[at]
        skill = made.trial("targets", Change(targets=at), end, rows).skill
        assert skill < 0.02
