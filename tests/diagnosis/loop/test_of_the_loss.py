"""The loss inside of a step: its random numbers, and what a loss that stands alone is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import BATCHES, TX, X, Y, begun, drawn, faults, first, network, squares
from networks import line_of

import nnref


def noisy(params, x, y, key):
    return squares(params, x + 0.3 * jax.random.normal(key, x.shape), y)


def step_of(key_of):
    """A step that draws noise with a key of its state; `key_of` gives that key and the next."""

    @jax.jit
    def step(state, batch):
        one, key = key_of(state["key"], state["opt_state"][0].count)
        value, gradient = jax.value_and_grad(noisy)(state["params"], *batch, one)
        updates, opt_state = TX.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state, "key": key}, value

    params, opt_state = begun()
    return step, {"params": params, "opt_state": opt_state, "key": jax.random.key(1)}


def test_a_key_that_the_step_gives_back_as_it_came():
    found = first(*step_of(lambda key, count: (jax.random.split(key)[0], key)))
    assert found.cause == "random_key_reused"
    assert found.where.startswith("key; ")


def test_a_key_that_is_made_of_one_number_is_named_at_its_line():
    def same(key, count):
        return jax.random.PRNGKey(0), key  # the same

    found = first(*step_of(same))
    assert found.cause == "random_key_reused"
    assert found.where.endswith(f"test_of_the_loss.py:{line_of(__file__, 'the same')}")


@pytest.mark.parametrize(
    "key_of",
    [
        lambda key, count: tuple(jax.random.split(key)),
        lambda key, count: (jax.random.fold_in(key, count), key),
    ],
)
def test_keys_that_advance_or_count_are_healthy(key_of):
    assert faults(*step_of(key_of)) == []


@pytest.mark.parametrize(
    ("counts", "again", "causes"),
    [(False, True, ["random_key_reused"]), (True, True, []), (False, False, [])],
    ids=["by the row alone", "by the row and the step", "by numbers that never come again"],
)
def test_noise_that_is_drawn_by_the_number_of_a_row(counts, again, causes):
    @jax.jit
    def step(state, batch):
        x, y, rows = batch
        key = jax.random.fold_in(state["key"], state["opt_state"][0].count if counts else 7)
        noise = jax.vmap(lambda r: jax.random.normal(jax.random.fold_in(key, r), (2,)))(rows)
        value, gradient = jax.value_and_grad(squares)(state["params"], x + 0.3 * noise, y)
        updates, opt_state = TX.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state, "key": state["key"]}, value

    def batches(number):
        rows = np.random.default_rng(number).permutation(len(X))[:16]
        return X[rows], Y[rows], rows if again else 16 * number + np.arange(16)

    _, state = step_of(None)
    assert faults(step, state, batches) == causes


def test_a_step_that_takes_a_key_and_draws_from_another():
    def step_with(fresh):
        @jax.jit
        def step(params, opt_state, x, y, key):
            one = key if fresh else jax.random.key(3)
            value, gradient = jax.value_and_grad(noisy)(params, x, y, one)
            updates, opt_state = TX.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        return step

    assert faults(step_with(fresh=False), begun()) == ["random_key_reused"]
    assert faults(step_with(fresh=True), begun()) == []


def test_random_features_are_meant_to_stay():
    @jax.jit
    def step(params, opt_state, x, y):
        directions = jax.random.normal(jax.random.key(0), (2, 2))
        value, gradient = jax.value_and_grad(squares)(params, jnp.sin(x @ directions), y)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun()) == []


def test_outputs_against_targets_of_another_shape():
    def step_for(loss):
        @jax.jit
        def step(params, opt_state, x, y):
            value, gradient = jax.value_and_grad(loss)(params, x, y)
            updates, opt_state = TX.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, value

        return step

    def matrix(params, x, y):
        return jnp.mean((network(params, x) - y) ** 2)

    flat = [(x, y[:, 0]) for x, y in BATCHES]
    assert faults(step_for(matrix), begun(), flat) == ["loss_broadcast"]
    assert faults(step_for(matrix), begun(), [(X[:16], Y[:16]), (X[16:32], Y[16:32])]) == []


OTHERS = begun()[0]


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (lambda state: OTHERS, ["parameters_not_updated"]),
        (lambda state: state["judged"], ["parameters_not_updated"]),
        (lambda state: state["params"], []),
        (lambda state: jax.tree.map(jnp.add, state["judged"], state["params"]), []),
    ],
    ids=["captured", "another network", "its own", "its own beside a frozen one"],
)
def test_a_loss_of_other_parameters_than_those_that_move(weights, found):
    """The gradient is taken of one network, and the update made of another."""

    @jax.jit
    def step(state, batch):
        value, gradient = jax.value_and_grad(squares)(weights(state), *batch)
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return state | {"params": params, "opt_state": opt_state}, {"loss": value}

    params, opt_state = begun()
    state = {"params": params, "opt_state": opt_state, "judged": jax.tree.map(jnp.copy, params)}
    assert faults(step, state) == found


def in_epochs(surrogate):
    """Three epochs over each batch within a call, as in PPO, of a loss of outputs and targets."""

    @jax.jit
    def step(params, opt_state, x, y):
        def epoch(carry, _):
            loss = lambda params: surrogate(network(params, x), y)  # noqa: E731
            value, gradient = jax.value_and_grad(loss)(carry[0])
            updates, opt_state = TX.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), opt_state), value

        (params, opt_state), values = jax.lax.scan(epoch, (params, opt_state), None, length=3)
        return params, opt_state, values[-1]

    return step


def spread(outputs, y):
    return jnp.mean((outputs[:, 0] - y) ** 2)  # spreads


def ranked(outputs, y):
    """Pairs of rows, as a loss of ranks has them."""
    one, wanted = outputs[:, 0], y[:, 0]
    return jnp.mean((one[:, None] - one[None, :] - (wanted[:, None] - wanted[None, :])) ** 2)


def test_a_number_for_each_row_against_a_column_within_a_loop():
    found = first(in_epochs(spread), begun())
    assert (found.cause, found.severity) == ("loss_broadcast", "fault")
    assert found.where.endswith(f"test_of_the_loss.py:{line_of(__file__, 'spreads')}")
    assert "(16, 16)" in found.evidence


@pytest.mark.parametrize(
    "surrogate", [ranked, lambda outputs, y: -jnp.mean(outputs * y) + 0.1 * jnp.mean(outputs**2)]
)
def test_pairs_of_rows_that_are_meant_and_columns_that_fit(surrogate):
    assert "loss_broadcast" not in faults(in_epochs(surrogate), begun())


PICTURES = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
MASKS = (np.cumsum(PICTURES, 1) > 0).astype(np.float32)
SEGMENTED = [(PICTURES[i : i + 16], MASKS[i : i + 16]) for i in range(0, 64, 16)]


def segmenting(change):
    """A network that marks the points of a line; `change` makes rows of rows, masks and a key."""

    def loss(params, x, y, key):
        x, y, hidden = change(x, y, key)
        logits = hidden(jnp.tanh(x @ params["w1"])) @ params["w2"]
        return optax.sigmoid_binary_cross_entropy(logits, y).mean()

    @jax.jit
    def step(params, opt_state, x, y, key):
        value, gradient = jax.value_and_grad(loss)(params, x, y, key)
        updates, opt_state = TX.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    w1, w2 = jax.random.normal(jax.random.key(0), (2, 8, 8)) / 3
    params = {"w1": w1, "w2": w2}
    return step, (params, TX.init(params))


def mirrored(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(x), 1)), x[:, ::-1], x)  # mirrors


def as_it_is(hidden):
    return hidden


def by_two_keys(x, y, key):
    one, other = jax.random.split(key)
    return mirrored(one, x), mirrored(other, y), as_it_is  # apart


def by_one_key(x, y, key):
    return mirrored(key, x), mirrored(key, y), as_it_is


def with_noise_and_dropout(x, y, key):
    one, other = jax.random.split(key)
    kept = jax.random.bernoulli(other, 0.8, (16, 8))
    noise = 0.1 * jax.random.normal(one, x.shape)
    return x + noise, y, lambda hidden: hidden * kept / 0.8


def with_noise(x, y, key):
    one, other = jax.random.split(key)
    return mirrored(one, x) + 0.1 * jax.random.normal(other, x.shape), mirrored(one, y), as_it_is


def with_labels_turned(x, y, key):
    one, other = jax.random.split(key)
    turned = jax.random.bernoulli(other, 0.05, y.shape)
    return mirrored(one, x), jnp.abs(mirrored(one, y) - turned), as_it_is


def test_inputs_and_targets_that_are_changed_apart():
    found = first(*segmenting(by_two_keys), SEGMENTED)
    assert (found.cause, found.severity) == ("corrupted_labels", "fault")
    assert f"test_of_the_loss.py:{line_of(__file__, 'mirrors')} from " in found.where
    assert found.where.endswith(f"test_of_the_loss.py:{line_of(__file__, 'apart')}")


@pytest.mark.parametrize(
    "change", [by_one_key, with_noise_and_dropout, with_noise, with_labels_turned]
)
def test_inputs_and_targets_that_are_changed_as_they_should_be(change):
    assert "corrupted_labels" not in faults(*segmenting(change), SEGMENTED)


def test_a_teacher_may_see_other_changes_of_the_same_rows():
    """As in BYOL or a mean teacher: what it sees is an input too, though the loss is held to it."""

    @jax.jit
    def step(state, batch, key):
        one, other = jax.random.split(key)

        def loss(params):
            wanted = network(state["mean"], mirrored(other, batch[0]))
            return squares(params, mirrored(one, batch[0]), jax.lax.stop_gradient(wanted))

        value, gradient = jax.value_and_grad(loss)(state["params"])
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        mean = optax.incremental_update(params, state["mean"], 0.1)
        return {"params": params, "opt_state": opt_state, "mean": mean}, value

    params, opt_state = begun()
    mean = jax.tree.map(lambda p: 0.9 * p, params)
    assert faults(step, {"params": params, "opt_state": opt_state, "mean": mean}) == []


def test_what_another_step_moves_is_not_asked_of_the_loss_of_this_one():
    """The judge of a GAN is shown bits, and its generator learns from their probabilities."""

    def stepping(loss, own):
        @jax.jit
        def step(state, batch):
            def of(params):
                return loss({**state, own: params}, *batch)

            value, gradient = jax.value_and_grad(of)(state[own])
            updates, moments = TX.update(gradient, state["moments"][own])
            params = optax.apply_updates(state[own], updates)
            return state | {own: params, "moments": state["moments"] | {own: moments}}, value

        return step

    def score(state, x, bits):
        return network(state["judge"], jnp.concatenate([x[:, :1], bits], 1))

    def judges(state, x, y):
        fake = network(state["generator"], x) > 0
        scores = score(state, x, y > 0), score(state, x, fake)
        return jnp.mean(jax.nn.softplus(-scores[0]) + jax.nn.softplus(scores[1]))

    def generates(state, x, y):
        fake = jax.nn.sigmoid(network(state["generator"], x))
        return jnp.mean(jax.nn.softplus(-score(state, x, fake)))

    state = {"judge": drawn(0), "generator": drawn(1)}
    state |= {"moments": {name: TX.init(params) for name, params in state.items()}}
    assert faults([stepping(judges, "judge"), stepping(generates, "generator")], state) == []


@pytest.mark.parametrize(("reads", "causes"), [(False, ["random_key_reused"]), (True, [])])
def test_a_key_that_is_handed_in_and_not_used(reads, causes):
    """What is drawn is the same for all rows: which column is hidden."""

    @jax.jit
    def step(params, opt_state, x, y, key):
        one = key if reads else jax.random.key(0)
        hidden = jax.random.bernoulli(one, 0.5, (2,))
        value, gradient = jax.value_and_grad(squares)(params, jnp.where(hidden, 0, x), y)
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun()) == causes


def agreement(params, one, other):
    """A contrastive loss of two views of the same rows."""
    a, b = (jnp.tanh(view @ params["w"]) for view in (one, other))
    return optax.softmax_cross_entropy_with_integer_labels(a @ b.T, jnp.arange(len(a))).mean()


def one_end(params, one, other):
    """The same, in which the other view is called on, and forgotten."""
    a, _ = (jnp.tanh(view @ params["w"]) for view in (one, other))
    return optax.softmax_cross_entropy_with_integer_labels(a @ a.T, jnp.arange(len(a))).mean()


def of_views(keys_of, views, loss=agreement):
    """A step that makes two views of its rows; `keys_of` gives the keys of both."""

    @jax.jit
    def step(state, batch, key):
        one, other = keys_of(key)
        value, gradient = jax.value_and_grad(loss)(
            state["params"], views(batch[0], one), views(batch[0], other)
        )
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}, value

    params = {"w": jax.random.normal(jax.random.key(0), (2, 5))}
    return step, {"params": params, "opt_state": TX.init(params)}


def at_random(x, key):
    return x + 0.1 * jax.random.normal(key, x.shape)


@pytest.mark.parametrize(
    ("keys_of", "views", "told"),
    [
        (lambda key: (key, key), at_random, True),
        (jax.random.split, at_random, False),
        (lambda key: (key, key), lambda x, key: x, False),
    ],
    ids=["one key", "two keys", "nothing at random"],
)
def test_two_views_are_drawn_by_two_keys(keys_of, views, told):
    found = nnref.examine(*of_views(keys_of, views), BATCHES, effort=0)
    same = [f for f in found.faults if "one view twice" in f.evidence]
    assert [f.cause for f in same] == ["random_key_reused"] * told


def test_one_view_that_is_used_twice_is_one_draw():
    """Beside a loss of the two ends of a view, drawn once, nothing is drawn twice."""

    @jax.jit
    def step(state, batch, key):
        view = at_random(batch[0], key)
        value, gradient = jax.value_and_grad(agreement)(state["params"], view, view)
        updates, opt_state = TX.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}, value

    _, state = of_views(jax.random.split, at_random)
    found = nnref.examine(step, state, BATCHES, effort=0)
    assert not any("one view twice" in f.evidence for f in found.faults)


@pytest.mark.parametrize(("loss", "told"), [(one_end, True), (agreement, False)])
def test_a_view_that_leads_nowhere(loss, told):
    found = nnref.examine(*of_views(jax.random.split, at_random, loss), BATCHES, effort=0)
    lost = [f for f in found.faults if "is used nowhere" in f.evidence]
    assert [f.cause for f in lost] == ["inputs_ignored"] * told


def test_outputs_that_are_computed_again_for_nothing_are_no_other_rows():
    """A call on the very rows of the loss, as for a figure that is left out in the end."""

    @jax.jit
    def step(params, opt_state, x, y):
        value, gradient = jax.value_and_grad(squares)(params, x, y)
        _ = network(params, x).max()
        updates, opt_state = TX.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    assert faults(step, begun()) == []


def coding(reduced):
    """A step of an autoencoder whose code is drawn to 0; `reduced` takes what is left of a row."""
    random = np.random.default_rng(2)
    x = (random.normal(size=(128, 2)) @ random.normal(size=(2, 32))).astype(np.float32)
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "in": 0.2 * jax.random.normal(first, (32, 4)),
        "out": 0.2 * jax.random.normal(second, (4, 32)),
    }

    @jax.jit
    def step(state, x):
        params, opt_state = state

        def loss(params):
            code = x @ params["in"]
            left = reduced((code @ params["out"] - x) ** 2, axis=-1)
            return jnp.mean(left) + 16 * jnp.mean(jnp.sum(code**2, axis=-1))  # drawn to 0

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = TX.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    def explained(state):
        """Share of the variance that is explained: 1 is best."""
        left = (x @ state[0]["in"] @ state[0]["out"] - x) ** 2
        return float(1 - left.mean() / x.var())

    return step, (params, TX.init(params)), [x[i : i + 32] for i in range(0, 128, 32)], explained


def test_a_term_that_is_served_alone_is_a_fault_where_an_evaluation_says_so():
    step, state, rows, evaluate = coding(jnp.mean)
    (fault,) = nnref.examine(step, state, rows, evaluate, effort=0).faults
    assert fault.cause == "excessive_regularization"
    assert fault.where.endswith(f"test_of_the_loss.py:{line_of(__file__, 'drawn to 0')}")
    unjudged = nnref.examine(step, state, rows, effort=0)
    assert not unjudged.faults
    assert "excessive_regularization" in [note.cause for note in unjudged.notes]


def test_a_term_that_others_hold_is_no_fault():
    step, state, rows, evaluate = coding(lambda left, axis: 16 * jnp.sum(left, axis))
    assert "excessive_regularization" not in faults(step, state, rows, evaluate)


def of_signs(by_hand):
    """Kernels that count by their signs: the gradient is that of the signs, or of what they are."""

    def signs(params):
        return {n: jnp.where(p >= 0, 1.0, -1.0) if n[0] == "w" else p for n, p in params.items()}

    tx = optax.adamw(1e-2, weight_decay=0.1)  # what has no gradient still decays

    @jax.jit
    def step(state, batch):
        if by_hand:
            value, slopes = jax.value_and_grad(squares)(signs(state[0]), *batch)
        else:
            value, slopes = jax.value_and_grad(lambda p: squares(signs(p), *batch))(state[0])
        updates, moments = tx.update(slopes, state[1], state[0])
        return (optax.apply_updates(state[0], updates), moments), value

    return step, begun(tx)


def test_the_gradient_of_a_rounded_copy_moves_what_was_rounded():
    assert "gradient_blocked" not in faults(*of_signs(by_hand=True))
    assert "gradient_blocked" in faults(*of_signs(by_hand=False))
