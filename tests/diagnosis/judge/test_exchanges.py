"""The training with a piece exchanged: it learns where that piece was the fault, and else not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import learns, recipe

from nnref.diagnosis.judge.exchanges import Exchanges
from nnref.diagnosis.judge.interventions import Interventions
from nnref.diagnosis.judge.measurements import Measurements


def exchanges(made):
    return Exchanges(Interventions(Measurements(made)))


def made(network=learns, **others):
    """Three inputs, two targets between -1 and 1, 64 rows, that Adam at 0.02 learns."""
    given = {"optimizer": optax.adam(0.02), "epochs": 60, "rows": 64, "batch_size": 16}
    return recipe(network, (3, 16, 2), **(given | others))


def test_a_loss_is_exchanged_where_it_is_another_one_and_the_network_learns_with_it():
    tried = exchanges(made(loss=lambda o, y: jnp.mean((o - jnp.roll(y, 1)) ** 2))).head
    assert tried["loss"].skill > 0.9
    assert exchanges(made()).head == {}


def test_raw_outputs_learn_where_the_last_activation_was_the_fault():
    tried = exchanges(made(lambda params, x: jax.nn.relu(learns(params, x)) ** 3)).head
    assert tried["outputs"].skill > 0.9
    assert "outputs and loss" not in tried  # the loss is the trusted one


def test_outputs_of_another_form_than_the_last_layer_are_not_exchanged_for_it():
    """The length of a code is one number, and the code has two."""
    network = lambda params, x: jnp.sqrt(jnp.sum(learns(params, x) ** 2, -1) + 1e-6)  # noqa: E731
    assert exchanges(made(network, y=np.linspace(0, 1, 64, dtype=np.float32))).head == {}


def test_another_hidden_activation_learns_where_that_was_the_fault():
    def flat(params, x):
        h = jnp.floor(x @ params["dense0"]["kernel"] / 10)
        return h @ params["dense1"]["kernel"] + params["dense1"]["bias"]

    assert exchanges(made(flat)).activation["activation"].skill > 0.8
    assert exchanges(made()).activation == {}


@pytest.mark.parametrize(("rows", "many"), [(256, True), (64, False)])
def test_smaller_batches_learn_where_there_were_too_few_steps(rows, many):
    tried = exchanges(made(rows=256, batch_size=rows, epochs=20)).batch
    assert bool(tried) == many
    assert all(trial.skill > 0.9 for trial in tried.values())


def test_another_optimizer_learns_where_that_was_the_fault_and_not_where_the_loss_was():
    slow = optax.sgd(1e-7)
    assert exchanges(made(optimizer=slow)).optimizer["optimizer x10"].skill > 0.9
    blind = made(optimizer=slow, loss=lambda o, y: jnp.mean(o**2))
    assert max(t.skill for t in exchanges(blind).optimizer.values()) < 0.1
    assert max(t.skill for t in exchanges(blind).everything.values()) > 0.9


def test_with_everything_exchanged_what_is_left_are_the_layers():
    def ignores(params, x):
        return learns(params, 0 * x)

    tried = exchanges(made(ignores)).everything
    assert max(trial.skill for trial in tried.values()) < 0.1


@pytest.mark.parametrize(("units", "narrow"), [(1, True), (80, False)])
def test_a_wider_network_is_tried_where_a_layer_is_narrow(units, narrow):
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 3)).astype(np.float32)
    y = np.sign(x[:, :1] * x[:, 1:2]).astype(np.float32) + 0.5 * x[:, 2:]
    network = replace(made(), train=(x, y), epochs=100)
    sizes = recipe(learns, (3, units, 1))
    tried = exchanges(replace(network, init=sizes.init)).width
    assert bool(tried) == narrow
    if narrow:
        assert max(tried["same width"].skill, tried["same width x10"].skill) < 0.6
        assert max(tried["wider"].skill, tried["wider x10"].skill) > 0.8


def test_nothing_is_exchanged_that_the_work_does_not_allow():
    none = Exchanges(Interventions(Measurements(made(), effort=1e-6)))
    assert none.optimizer == none.everything == {}


def pair(params, x):
    """How far a network maps the two halves of a row apart; it learns which pairs are alike."""
    ends = [jnp.tanh(x[:, part] @ params["dense0"]["kernel"]) for part in (slice(3), slice(3, 6))]
    return jnp.sqrt(jnp.sum((ends[0] - ends[1]) ** 2, -1) + 1e-6)


def contrastive(far):
    """The loss of Hadsell et al. 2006, where pairs of this target are to be far apart."""

    def loss(distance, y):
        apart = jnp.maximum(0, 1 - distance) ** 2
        return jnp.mean(jnp.where(y == far, apart, distance**2))

    return loss


@pytest.mark.parametrize("far", [0.0, 1.0])
def test_targets_that_mean_the_opposite(far):
    random = np.random.default_rng(0)
    alike = (np.arange(200) % 2).astype(np.float32)
    one, other = random.normal(size=(2, 200, 3))
    other = np.where(alike[:, None] == 1, one, other) + 0.1 * random.normal(size=(200, 3))
    asked = recipe(pair, (3, 8), y=alike, loss=contrastive(far), optimizer=optax.adam(0.02))
    asked = replace(asked, train=(np.concatenate([one, other], 1).astype(np.float32), alike))
    asked = replace(asked, epochs=40, batch_size=20)
    tried = exchanges(asked).opposite["opposite"].skill
    own = Measurements(asked).trained.skill
    assert (tried > own + 0.5) == (far == 1.0), (tried, own)
    assert exchanges(made()).opposite == {}  # more than two targets
