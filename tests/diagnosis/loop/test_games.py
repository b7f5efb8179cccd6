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


def labelled(judged_by):
    """The step of a maker that is given labels; `judged_by` says which ones the critic gets."""

    def beside(x, labels):
        return jnp.concatenate([x, jax.nn.one_hot(labels, 3)], 1)

    @jax.jit
    def critic(state, batch, key):
        x, own = batch
        noise, labels = drawn_for(key)
        made = network(state["maker"], beside(noise, labels))

        def loss(params):
            true = cross_entropy(network(params, beside(x, own)), 1)
            return true + cross_entropy(network(params, beside(made, labels)), 0)

        return stepped(state, "critic", loss)

    @jax.jit
    def maker(state, batch, key):
        noise, labels = drawn_for(key)

        def loss(params):
            made = network(params, beside(noise, labels))
            answer = network(state["critic"], beside(made, judged_by(batch[1], labels)))
            return cross_entropy(answer, 1)

        return stepped(state, "maker", loss)

    state = {"critic": drawn((5, 8, 1), 0), "maker": drawn((6, 8, 2), 1)}
    moments = {f"{name}_moments": TX.init(params) for name, params in state.items()}
    return [critic, maker], state | moments


def drawn_for(key):
    one, other = jax.random.split(key)
    return jax.random.normal(one, (16, 3)), jax.random.randint(other, (16,), 0, 3)


def stepped(state, name, loss):
    value, gradient = jax.value_and_grad(loss)(state[name])
    updates, moments = TX.update(gradient, state[f"{name}_moments"])
    return {
        **state,
        name: optax.apply_updates(state[name], updates),
        f"{name}_moments": moments,
    }, value


@pytest.mark.parametrize(
    ("judged_by", "told"),
    [
        (lambda own, labels: own, True),
        (lambda own, labels: labels, False),
        (lambda own, labels: 0 * labels, False),
    ],
    ids=["the labels of the batch", "its own", "one label for all"],
)
def test_what_is_made_is_judged_by_the_labels_it_was_made_for(judged_by, told):
    batches = [(x, jnp.arange(16) % 3) for x in BATCHES]
    found = nnref.examine(*labelled(judged_by), batches, effort=0)
    assert not found.mistakes
    others = [f for f in found.faults if "made for some labels" in f.evidence]
    assert [f.cause for f in others] == ["loss_mismatch"] * told
    assert all("step 2; " in f.where for f in others)


def in_one_step(judged_by):
    """Both networks in one step, which returns both losses and keeps the key in its state."""

    def beside(x, labels):
        return jnp.concatenate([x, jax.nn.one_hot(labels, 3)], 1)

    @jax.jit
    def step(state, batch):
        x, own = batch
        key, one, other = jax.random.split(state["key"], 3)
        noise, labels = drawn_for(one)

        def of_critic(params):
            made = network(state["maker"], beside(noise, labels))
            true = cross_entropy(network(params, beside(x, own)), 1)
            answer = network(params, beside(made, judged_by(own, labels)))
            return true + cross_entropy(answer, 0)

        state, critic_loss = stepped(state, "critic", of_critic)
        noise, labels = drawn_for(other)

        def of_maker(params):
            made = network(params, beside(noise, labels))
            return cross_entropy(network(state["critic"], beside(made, labels)), 1)

        state, maker_loss = stepped(state, "maker", of_maker)
        return state | {"key": key}, {"critic": critic_loss, "maker": maker_loss}

    _, state = labelled(judged_by)
    return step, state | {"key": jax.random.key(3)}


@pytest.mark.parametrize("own_labels", [False, True])
def test_the_labels_of_what_is_made_are_followed_within_one_step(own_labels):
    batches = [(x, jnp.arange(16) % 3) for x in BATCHES]
    step = in_one_step(lambda own, labels: labels if own_labels else own)
    found = nnref.examine(*step, batches, effort=0)
    assert not found.mistakes
    others = [f for f in found.faults if "made for some labels" in f.evidence]
    assert [f.cause for f in others] == ["loss_mismatch"] * (not own_labels)
