"""Two networks against each other."""

import jax
import jax.numpy as jnp
import optax
import pytest
from loops import TX, X

import nnref

BATCHES = [jnp.asarray(X[i : i + 16]) for i in range(0, 128, 16)]


def drawn(sizes, seed):
    keys = jax.random.split(jax.random.key(seed), len(sizes) - 1)
    shapes = list(zip(keys, sizes[:-1], sizes[1:], strict=True))
    return {
        f"layer{i}": {"w": jax.random.normal(key, (a, b)) / a**0.5, "b": jnp.zeros(b)}
        for i, (key, a, b) in enumerate(shapes)
    }


def network(params, x):
    hidden = jnp.tanh(x @ params["layer0"]["w"] + params["layer0"]["b"])
    return hidden @ params["layer1"]["w"] + params["layer1"]["b"]


def cross_entropy(answer, true):
    return optax.sigmoid_binary_cross_entropy(answer, jnp.full_like(answer, true)).mean()


def wasserstein(answer, true):
    return jnp.mean(answer) * (1 - 2 * true)


def game(cost, asked, at_once=False):
    """The steps of a critic and of a maker, who asks for answers as to what is true, 1, or not."""

    def updated(state, name, loss):
        value, gradient = jax.value_and_grad(loss)(state[name])
        updates, moments = TX.update(gradient, state[f"{name}_moments"])
        params = optax.apply_updates(state[name], updates)
        return {**state, name: params, f"{name}_moments": moments}, value

    def made_by(params, key):
        return network(params, jax.random.normal(key, (16, 3)))

    @jax.jit
    def critic(state, batch, key):
        made = made_by(state["maker"], key)

        def loss(params):
            if at_once:
                answers = network(params, jnp.concatenate([batch, made]))
                return cost(answers[:16], 1) + cost(answers[16:], 0)
            return cost(network(params, batch), 1) + cost(network(params, made), 0)

        return updated(state, "critic", loss)

    @jax.jit
    def maker(state, batch, key):
        def loss(params):
            return cost(network(state["critic"], made_by(params, key)), asked)

        return updated(state, "maker", loss)

    state = {"critic": drawn((2, 8, 1), 0), "maker": drawn((3, 8, 2), 1)}
    moments = {f"{name}_moments": TX.init(params) for name, params in state.items()}
    return [critic, maker], state | moments


@pytest.mark.parametrize("cost", [cross_entropy, wasserstein])
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("asked", [0, 1])
def test_a_maker_asks_for_the_answers_to_true_rows(cost, at_once, asked):
    found = nnref.examine(*game(cost, asked, at_once), BATCHES, effort=0)
    assert not found.mistakes
    sides = [f for f in found.faults if "the other network's answers" in f.evidence]
    assert [f.cause for f in sides] == ["gradient_ascent"] * (asked == 0)
    assert all("step 2; " in f.where and "test_games.py:" in f.where for f in sides)


def test_a_network_that_helps_another_is_no_game():
    """An encoder and a decoder that both lower one error are on one side by intent."""

    def step_of(name):
        @jax.jit
        def step(state, batch):
            def loss(params):
                both = {**state, name: params}
                return jnp.mean(
                    (network(both["maker"], network(both["critic"], batch)) - batch) ** 2
                )

            value, gradient = jax.value_and_grad(loss)(state[name])
            updates, moments = TX.update(gradient, state[f"{name}_moments"])
            params = optax.apply_updates(state[name], updates)
            return {**state, name: params, f"{name}_moments": moments}, value

        return step

    state = {"critic": drawn((2, 8, 3), 0), "maker": drawn((3, 8, 2), 1)}
    moments = {f"{name}_moments": TX.init(params) for name, params in state.items()}
    found = nnref.examine([step_of("critic"), step_of("maker")], state | moments, BATCHES, effort=0)
    assert not any("the other network's answers" in f.evidence for f in found.faults)
    assert not found.mistakes
